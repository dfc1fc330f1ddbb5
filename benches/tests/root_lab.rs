//! The lab on the real kernel: what it sets up it takes back, and what it measures is what is there.

use std::process::Command;

use benches::lab::cell::{Cell, Sender, Way};
use benches::lab::measure::Lab;
use benches::lab::network::Network;
use benches::lab::plan::Entry;
use benches::lab::results::{Measured, Run};
use benches::lab::setup::Refusal;
use benches::lab::stop::Stop;
use benches::lab::systems::Name;
use benches::lab::traffic::Span;
use bpf::limits::Rate;

const RATE: u64 = 2_000_000;

fn rate() -> Rate {
    Rate::from_bytes_per_second(RATE).unwrap()
}

fn cell(way: Way, rtt_ms: u32, loss_percent: u32) -> Cell {
    Cell { way, sender: Sender::Cubic, rtt_ms, loss_percent, rate: rate(), flows: 1 }
}

/// In a virtual machine all of it is there.
fn is_vm() -> bool {
    std::env::var_os("VMTESTS_KERNEL").is_some()
}

/// A virtual machine has all of it, but for a queue: that is for downloads, and not every kernel has its links.
fn may_lack(name: Name, way: Way) -> bool {
    let is_old = !testkit::tcx::has_tcx();
    !is_vm() || (name == Name::OursQueue && (way == Way::Up || is_old))
}

/// Everything that a system or a distance can leave in both networks.
fn configured() -> String {
    let commands = [
        "tc qdisc show",
        "tc filter show dev chadtest0 ingress",
        "tc filter show dev chadtest0 egress",
        "tc -n chadtest-far qdisc show",
        "ip -d link show",
        "ip -n chadtest-far -d link show",
        "nft list ruleset",
    ];
    let said = commands.map(|command| {
        let mut words = command.split(' ');
        let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
        format!("{command}\n{}", String::from_utf8_lossy(&output.stdout))
    });
    said.concat()
}

#[test]
fn root_every_system_takes_back_what_it_did() {
    let network = Network::new().unwrap();
    let before = configured();
    for name in Name::ALL {
        for way in [Way::Up, Way::Down] {
            match name.system().install(&network, way, rate()) {
                Ok(installed) => {
                    assert!(*name == Name::None || !installed.done().is_empty(), "{name:?}");
                    installed.remove().unwrap();
                }
                Err(Refusal::Missing(why)) => assert!(may_lack(*name, way), "{name:?}: {why}"),
                Err(Refusal::Failed(error)) => panic!("{name:?} {way:?}: {error:#}"),
            }
            assert_eq!(configured(), before, "{name:?} {way:?} left something");
        }
    }
}

#[test]
fn root_a_distance_is_taken_back() {
    let network = Network::new().unwrap();
    let before = configured();
    for cell in [cell(Way::Up, 20, 0), cell(Way::Up, 20, 1), cell(Way::Down, 0, 1)] {
        match network.distance(&cell) {
            Ok(distance) => {
                assert_ne!(configured(), before);
                distance.remove().unwrap();
            }
            Err(Refusal::Missing(why)) => assert!(!is_vm(), "{why}"),
            Err(Refusal::Failed(error)) => panic!("{error:#}"),
        }
        assert_eq!(configured(), before, "{cell}");
    }
}

#[test]
fn root_a_limit_is_told_from_none() {
    let network = Network::new().unwrap();
    let stop = Stop::default();
    let lab = Lab { network: &network, span: Span { seconds: 2, omit: 1 }, runs: 1, stop: &stop };
    let cell = cell(Way::Up, 0, 0);
    let entry = Entry { cell, systems: vec![Name::Htb, Name::None] };
    let idle = lab.idle(&cell);
    let rows = lab.entry(&entry, &idle, &|_| ()).unwrap();
    let measured = |at: usize| -> &Measured {
        match rows[at].runs.as_slice() {
            [Run::Measured(measured)] => measured,
            other => panic!("{other:?}"),
        }
    };
    let (limited, free) = (measured(0), measured(1));
    // A processor may stand still for half of the time; that it is limited at all is what counts here.
    let share = limited.goodput / rows[0].expected.unwrap();
    assert!(0.3 < share && share < 1.2, "{limited:?}");
    assert!(free.goodput > 3.0 * limited.goodput, "{free:?}");
    // A shaper has those who send beside the load wait, too.
    assert!(limited.outside.p50_ms > free.outside.p50_ms, "{limited:?} {free:?}");
    assert!(limited.inside.sent > 10, "{limited:?}");
    // The kernel counts processor time by ticks: those of a slow transfer may all fall beside the work.
    assert!(free.busy_processors > 0.0, "{free:?}");
}
