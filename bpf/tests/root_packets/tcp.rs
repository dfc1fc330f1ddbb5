//! What becomes of TCP's segments that are above the limit.

use std::io::Write;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bpf::LinuxBpf;
use bpf::limits::{Limits, Rate, Traffic};
use bpf::state::{Counters, ThrottleState};
use kernel::AttachType;
use kernel::boundary::Host as _;

use crate::{Lab, V4, limits};

/// A TCP connection over loopback: `inside` was made in the throttled cgroup, `outside` was not.
struct Connection {
    inside: TcpStream,
    outside: TcpStream,
}

impl Connection {
    fn new(lab: &Lab) -> Self {
        let listener = TcpListener::bind((V4, 0)).unwrap();
        let inside = {
            let _inside = lab.cgroup.enter();
            TcpStream::connect(listener.local_addr().unwrap()).unwrap()
        };
        Self { inside, outside: listener.accept().unwrap().0 }
    }
}

/// Sends until the throttle has said no; then the limit goes, and every byte arrives. Returns the counters before that.
fn counted_until_it_says_no(attach_type: AttachType, inside_sends: bool) -> Counters {
    let lab = Lab::new(attach_type, Traffic::All);
    let limits =
        Limits { rate: Rate::from_bytes_per_second(10_000).unwrap(), ..limits(Traffic::All) };
    let state = ThrottleState::armed(&limits, LinuxBpf::new().unwrap().now_ns());
    let Connection { inside, outside } = Connection::new(&lab);
    lab.program().set_state(lab.open.id(), attach_type, &state).unwrap();
    let (mut from, mut to) = if inside_sends { (inside, outside) } else { (outside, inside) };
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sent = scope.spawn(|| {
            let mut sent = 0;
            while !done.load(Ordering::Relaxed) {
                from.write_all(&[7; 16_384]).unwrap();
                sent += 16_384;
            }
            from.shutdown(Shutdown::Write).unwrap();
            sent
        });
        let came = scope.spawn(|| std::io::copy(&mut to, &mut std::io::sink()).unwrap());
        let mut counters = Counters::default();
        for _ in 0..1_000 {
            counters = lab.counters();
            if counters.dropped.packets + counters.held_back.packets > 2 {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        done.store(true, Ordering::Relaxed);
        let free = ThrottleState::disarmed();
        lab.program().set_state(lab.open.id(), attach_type, &free).unwrap();
        let (sent, came): (u64, u64) = (sent.join().unwrap(), came.join().unwrap());
        assert_eq!(sent, came, "{counters:?}");
        counters
    })
}

#[test]
fn root_what_tcp_sends_is_held_back_and_not_lost() {
    let counters = counted_until_it_says_no(AttachType::INET_EGRESS, true);
    assert!(counters.held_back.packets > 0 && counters.dropped.packets == 0, "{counters:?}");
}

/// Nobody sends a bare acknowledgement again: the next one stands for it.
#[test]
fn root_a_bare_acknowledgement_is_lost() {
    let counters = counted_until_it_says_no(AttachType::INET_EGRESS, false);
    assert!(counters.dropped.packets > 0 && counters.held_back.packets == 0, "{counters:?}");
}

#[test]
fn root_what_tcp_receives_is_lost_on_its_way() {
    let counters = counted_until_it_says_no(AttachType::INET_INGRESS, false);
    assert!(counters.dropped.packets > 0 && counters.held_back.packets == 0, "{counters:?}");
}
