//! Several processors.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bpf::limits::Burst;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use testkit::cgroup::ScratchCgroup;
use testkit::isolation::isolate;
use testkit::traffic::{PAYLOAD, packet_len, socket};
use throttle_core::Spec;

use crate::common::{engine, spec};

const CPUS: &str = "/sys/devices/system/cpu";

/// The numbers in a list as the kernel writes it: `0-1,3`.
fn cpus(file: &str) -> Vec<usize> {
    let text = fs::read_to_string(format!("{CPUS}/{file}")).unwrap();
    let range = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        from.parse::<usize>().unwrap()..=to.parse().unwrap()
    };
    text.trim().split(',').flat_map(range).collect()
}

/// Processors that were brought online; dropping this takes them off again. (Emulated guests boot with one.)
struct Online(Vec<usize>);

impl Online {
    fn all() -> Self {
        let online = cpus("online");
        let mut brought = Self(Vec::new());
        for cpu in cpus("present").into_iter().filter(|cpu| !online.contains(cpu)) {
            fs::write(format!("{CPUS}/cpu{cpu}/online"), "1").unwrap();
            brought.0.push(cpu);
        }
        brought
    }
}

impl Drop for Online {
    fn drop(&mut self) {
        for cpu in &self.0 {
            if let Err(error) = fs::write(format!("{CPUS}/cpu{cpu}/online"), "0") {
                eprintln!("processor {cpu} stays online: {error}");
            }
        }
    }
}

#[test]
fn vm_packets_sent_from_two_processors_are_counted_to_the_last_one() {
    const EACH: u64 = 500;
    let _all = Online::all();
    let online = cpus("online");
    assert!(online.len() > 1, "{online:?}: give the machine more processors");
    isolate();
    let cgroup = ScratchCgroup::new("cpus");
    let mut engine = engine();
    let burst = Burst::new(Duration::from_secs(1)).unwrap();
    engine.add(&Spec { burst, ..spec(cgroup.path(), None, Some(10_000_000_000)) }).unwrap();

    let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let receiver = socket(here);
    let to = receiver.local_addr().unwrap();
    let entered = cgroup.enter();
    std::thread::scope(|scope| {
        for &cpu in &online[..2] {
            let sender = socket(here);
            scope.spawn(move || {
                let mut set = CpuSet::new();
                set.set(cpu).unwrap();
                sched_setaffinity(Pid::from_raw(0), &set).unwrap();
                for _ in 0..EACH {
                    sender.send_to(&[0; PAYLOAD], to).unwrap();
                }
            });
        }
    });
    drop(entered);

    let status = &engine.list()[0];
    let counters = status.directions[0].counters.as_ref().unwrap().unwrap();
    let seen = counters.seen();
    assert_eq!((seen.packets, seen.bytes), (2 * EACH, 2 * EACH * packet_len(here)), "{counters:?}");
    // Who loses all races for the bucket drops its packet. Elsewhere that does not happen; an emulated processor translates
    // the code of each race when it comes there for the first time, and the other one sends on meanwhile.
    assert!(counters.dropped.packets <= 4, "{counters:?}");
    engine.shut_down().unwrap();
}
