//! Limits over a network with a round trip of 20 ms: what the sender and who limits it learn of each other, they
//! learn late.

use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;
use testkit::cgroup::ScratchCgroup;
use testkit::tcx::has_tcx;
use testkit::traffic::{Interval, assert_held, iperf3_intervals, is_at_limit, wait_for_listener};
use throttle_core::Spec;
use throttle_core::mode::TcpWish;

use crate::common::{FAR, Pair, engine, queue_is_refused, shown, spec};

/// Bytes a second.
const LIMIT: u32 = 2_000_000;
/// What of a packet of 1,500 bytes TCP carries, with time stamps.
const PAYLOAD: f64 = 1448.0 / 1500.0;

/// What became of a transfer of some seconds.
#[derive(Debug)]
struct Transfer {
    /// What TCP carried in each second but the first ones.
    seconds: Vec<Interval>,
    /// How many packets the limit dropped or held back.
    dropped: u64,
    /// Which part of the segments was sent again. Some are for nothing, where a processor stood still for longer than
    /// a sender waits for an answer, so this alone proves nothing.
    sent_again: f64,
}

/// What is transferred how.
#[derive(Clone, Copy)]
struct How {
    tcp: TcpWish,
    download: bool,
    queue: bool,
    connections: u32,
}

/// One connection.
fn one(tcp: TcpWish, download: bool) -> How {
    How { tcp, download, queue: false, connections: 1 }
}

/// From or to a process in a throttled cgroup. However busy the machine is, the limit lets through no more than it may.
fn transfer(how: How) -> Transfer {
    let How { tcp, download, queue, connections } = how;
    let _pair = Pair::new();
    let distance = "netem delay 10ms limit 10000";
    Pair::qdisc(distance);
    Pair::far_qdisc(distance);
    let cgroup = ScratchCgroup::new("far");
    let (mut engine, armed) = (engine(), Instant::now());
    let limit = |this| if this { Some(LIMIT.into()) } else { None };
    engine
        .add(&Spec { tcp, queue, ..spec(cgroup.path(), limit(download), limit(!download)) })
        .unwrap();

    let mut server = Command::new("ip")
        .args(["netns", "exec", "chadtest-far", "iperf3", "-s", "-1", "-J"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // `ip` enters the namespace, and then is iperf3.
    wait_for_listener(server.id(), 5201);
    let output = {
        let _inside = cgroup.enter();
        let mut client = Command::new("iperf3");
        client.args(["-c", FAR, "-J", "-C", "cubic", "-t", "4", "-O", "2", "--get-server-output"]);
        client.args(["-P", &connections.to_string()]);
        if download {
            client.arg("-R");
        }
        client.output().unwrap()
    };
    assert!(output.status.success(), "{}", shown(&output));
    server.wait().unwrap();
    let counters = engine.list()[0].directions[0].counters.as_ref().unwrap().unwrap();
    assert_held(Interval::since(armed, counters.passed.bytes as f64), LIMIT.into());
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    let end = |of: &str, what: &str| result["end"][of][what].as_f64().unwrap();
    let segments = end("sum_sent", "bytes") / 1448.0;
    Transfer {
        seconds: iperf3_intervals(&result),
        dropped: counters.dropped.packets + counters.held_back.packets,
        sent_again: end("sum_sent", "retransmits") / segments,
    }
}

impl Transfer {
    fn is_at_limit(&self) -> bool {
        is_at_limit(&self.seconds, f64::from(LIMIT) * PAYLOAD)
    }

    /// Both are at the limit, and less than half as much has to be dropped for this one. (Nothing, unless the machine
    /// stands still: then what was on its way for too long is sent again, all at once.)
    fn is_gentler_than(&self, other: &Self) -> bool {
        self.is_at_limit() && other.is_at_limit() && 2 * self.dropped < other.dropped
    }
}

/// Transfers both ways, again where a busy machine was in the way, until the first is gentler than the second, and fails
/// where it never is.
#[track_caller]
fn assert_gentler([gentle, rough]: [How; 2], is_right: impl Fn(&Transfer, &Transfer) -> bool) {
    let mut seen = Vec::new();
    for _ in 0..5 {
        let (gentle, rough) = (transfer(gentle), transfer(rough));
        if gentle.is_gentler_than(&rough) && is_right(&gentle, &rough) {
            return;
        }
        seen.push((gentle, rough));
    }
    panic!("{seen:.2?}");
}

#[test]
fn vm_a_shaped_download_comes_at_the_limit_and_hardly_anything_is_dropped() {
    let how = [TcpWish::Shape, TcpWish::Police].map(|tcp| one(tcp, true));
    // Whoever drops what is too much has it sent again.
    assert_gentler(how, |shaped, policed| policed.sent_again > shaped.sent_again);
}

#[test]
fn vm_a_shaped_upload_goes_at_the_limit_and_hardly_anything_is_dropped() {
    assert_gentler([TcpWish::Shape, TcpWish::Police].map(|tcp| one(tcp, false)), |_, _| true);
}

#[test]
fn vm_over_many_connections_what_is_too_much_waits_in_the_queue() {
    if !has_tcx() {
        return queue_is_refused();
    }
    // One segment in each round trip is too much for so many, so windows alone do not suffice.
    let many = How { connections: 32, ..one(TcpWish::Shape, true) };
    let how = [true, false].map(|queue| How { queue, ..many });
    assert_gentler(how, |waits, windows| windows.sent_again > waits.sent_again);
}
