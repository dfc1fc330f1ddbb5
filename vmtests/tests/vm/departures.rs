//! Packets that wait for their turn in fq.

use std::net::{IpAddr, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bpf::LinuxBpf;
use bpf::limits::FqDevices;
use bpf::state::Count;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{RcvBufForce, SndBufForce};
use testkit::cgroup::ScratchCgroup;
use testkit::traffic::{Interval, Measured, PAYLOAD, Until, assert_at_limit, packet_len, socket};
use throttle_core::mode::{self, DeparturesWish};
use throttle_core::{Engine, Spec};

use crate::common::{FAR, Pair, engine, program, run, shown, spec};

/// How long is sent.
const TIME: Duration = Duration::from_secs(3);

/// The devices with fq, as `chadthrottle limit` looks for them.
fn devices() -> FqDevices {
    mode::departures(DeparturesWish::Auto, &kernel::qdisc::devices(None).unwrap()).unwrap()
}

/// A cgroup that may send that many bytes a second, until the engine is dropped.
fn limited(limit: u64) -> (ScratchCgroup, Engine<LinuxBpf>) {
    let cgroup = ScratchCgroup::new("departures");
    let mut engine = engine();
    engine.add(&Spec { departures: devices(), ..spec(cgroup.path(), None, Some(limit)) }).unwrap();
    (cgroup, engine)
}

/// What a flood came to.
#[derive(Debug)]
struct Came {
    sent: u64,
    received: u64,
    /// What arrived in each whole second, from the IP header on, and what the limit let through.
    measured: Measured,
    /// What tc shows of the queueing discipline afterwards.
    shown: String,
}

/// Sends as fast as the socket takes it, from a cgroup that may send that many bytes a second, through a queueing
/// discipline. `buffer`: the socket's send buffer, in bytes; `None` for the usual one.
fn flood(limit: u64, qdisc: &str, buffer: Option<usize>) -> Came {
    let _pair = Pair::new();
    Pair::qdisc(qdisc);
    flood_to(FAR, limit, buffer)
}

fn flood_to(address: &str, limit: u64, buffer: Option<usize>) -> Came {
    let armed = Instant::now();
    let (cgroup, engine) = limited(limit);
    let (far, receiver) = receiver(address);
    let sender = {
        let _inside = cgroup.enter();
        UdpSocket::bind("0.0.0.0:0").unwrap()
    };
    sender.connect(far).unwrap();
    if let Some(bytes) = buffer {
        setsockopt(&sender, SndBufForce, &bytes).unwrap();
    }
    let (start, mut sent) = (Instant::now(), 0);
    while start.elapsed() < TIME {
        sender.send(&[7; PAYLOAD]).unwrap();
        sent += 1;
    }
    let passed = passed(&engine);
    let measured = Interval::since(armed, passed.bytes as f64);
    let times = receiver.all(passed.packets);
    let packet = packet_len(FAR.parse().unwrap()) as f64;
    let in_second = |second| {
        let count = times.iter().filter(|time| time.as_secs() == second).count();
        Interval { bytes: count as f64 * packet, seconds: 1.0 }
    };
    let whole = times.last().map_or(0, Duration::as_secs);
    let measured = Measured { came: (0..whole).map(in_second).collect(), passed: measured };
    let shown = run(&["tc", "-s", "qdisc", "show", "dev", "chadtest0"]);
    Came { sent, received: times.len() as u64, measured, shown }
}

/// What the limit for uploads has let through: all of that arrives, unless fq throws it away.
fn passed(engine: &Engine<LinuxBpf>) -> Count {
    engine.list()[0].directions[0].counters.as_ref().unwrap().unwrap().passed
}

/// Somebody far away who receives datagrams.
struct Receiver {
    thread: std::thread::JoinHandle<Vec<Duration>>,
    /// How many there are, once that is known.
    expected: Arc<AtomicU64>,
}

/// And the address to send them to.
fn receiver(address: &str) -> (std::net::SocketAddr, Receiver) {
    let address: IpAddr = address.parse().unwrap();
    let (ready, at) = std::sync::mpsc::channel();
    let expected = Arc::new(AtomicU64::new(u64::MAX));
    let known = Arc::clone(&expected);
    let thread = std::thread::spawn(move || {
        Pair::go_far();
        let socket = UdpSocket::bind((address, 0)).unwrap();
        setsockopt(&socket, RcvBufForce, &(64 << 20)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        ready.send(socket.local_addr().unwrap()).unwrap();
        let mut buffer = [0; 2 * PAYLOAD];
        let (mut first, mut last, mut times) = (None, Instant::now(), Vec::new());
        loop {
            let expected = known.load(Ordering::Relaxed);
            let is_known = expected != u64::MAX;
            if times.len() as u64 >= expected || is_known && last.elapsed() > PATIENCE {
                return times;
            }
            if socket.recv(&mut buffer).is_ok() {
                last = Instant::now();
                times.push(first.get_or_insert(last).elapsed());
            }
        }
    });
    (at.recv().unwrap(), Receiver { thread, expected })
}

/// Whatever has not come in this time is lost.
const PATIENCE: Duration = Duration::from_secs(20);

impl Receiver {
    /// When each came, after the first, once there are so many, or some of them are lost.
    fn all(self, expected: u64) -> Vec<Duration> {
        self.expected.store(expected, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// Somebody far away who answers, and a socket to ask from.
struct Probe {
    socket: UdpSocket,
    bytes: usize,
}

impl Probe {
    fn new(bytes: usize) -> Self {
        let (ready, at) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            Pair::go_far();
            let socket = UdpSocket::bind((FAR, 0)).unwrap();
            ready.send(socket.local_addr().unwrap()).unwrap();
            let mut buffer = [0; PAYLOAD];
            // Until the test's process ends.
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                socket.send_to(&buffer[..length], from).unwrap();
            }
        });
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket.connect(at.recv().unwrap()).unwrap();
        Self { socket, bytes }
    }

    fn round_trip(&self) -> Duration {
        std::thread::sleep(Duration::from_millis(100));
        let start = Instant::now();
        self.socket.send(&vec![1; self.bytes]).unwrap();
        assert_eq!(self.socket.recv(&mut [0; PAYLOAD]).unwrap(), self.bytes);
        start.elapsed()
    }
}

// Low rates: an emulated processor that is busy with other things sends a thousand packets a second, not more.

#[test]
fn vm_where_there_is_fq_who_sends_too_much_waits_and_nothing_is_lost() {
    // The send buffer holds 14 packets, and 19 may wait.
    assert_at_limit(5e5, || {
        let came = flood(500_000, "fq", Some(16 << 10));
        assert_eq!(came.sent, came.received, "{came:?}");
        came.measured
    });
    let came = flood(500_000, "pfifo", Some(16 << 10));
    assert!(came.received < came.sent, "without fq nobody waits: {came:?}");
}

const HEAP: usize = 20;

/// Sends a heap of datagrams, 200 ms of the limit, through another device than the one with fq; returns how many come.
/// The departure rule would let 60 ms of them pass.
fn heap_past_fq(address: &str) -> usize {
    assert!(!devices().is_empty());
    let (cgroup, _engine) = limited(100_000);
    let receiver = socket(address.parse().unwrap());
    let to = receiver.local_addr().unwrap();
    {
        let _inside = cgroup.enter();
        let sender = socket(address.parse().unwrap());
        for _ in 0..HEAP {
            sender.send_to(&[7; PAYLOAD], to).unwrap();
        }
    }
    let start = Instant::now();
    let mut came = 0;
    while came < HEAP && start.elapsed() < Duration::from_secs(10) {
        came += usize::from(receiver.recv(&mut [0; 2 * PAYLOAD]).is_ok());
    }
    came
}

#[test]
fn vm_what_leaves_through_a_device_without_fq_has_all_of_the_burst() {
    let _pair = Pair::new();
    Pair::qdisc("fq");
    assert_eq!(heap_past_fq("127.0.0.1"), HEAP);
    assert_eq!(heap_past_fq("::1"), HEAP);
}

#[test]
fn vm_who_limits_is_told_which_devices_have_fq_and_so_is_who_lists() {
    let _pair = Pair::new();
    Pair::qdisc("fq");
    let cgroup = ScratchCgroup::new("fq-told");
    let chadthrottle = |args: &[&str]| {
        let output = Command::new(program("chadthrottle")).args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", shown(&output));
        output
    };
    let on = cgroup.path().to_str().unwrap();
    let limit = ["limit", "--cgroup", on, "--upload", "1M", "--attach", "pinned"];
    let said = String::from_utf8(chadthrottle(&limit).stderr).unwrap();
    assert!(said.contains("waits in fq on chadtest0"), "{said}");
    let list = chadthrottle(&["list", "--format", "json"]).stdout;
    let list: serde_json::Value = serde_json::from_slice(&list).unwrap();
    let listed = cgroup.relative();
    let is_ours = |it: &&serde_json::Value| it["cgroup"].as_str() == listed.to_str();
    let row = list["throttles"].as_array().unwrap().iter().find(is_ours).unwrap();
    chadthrottle(&["rm", row["id"].as_str().unwrap()]);
    let numbers: Vec<_> = devices().numbers().collect();
    assert_eq!(row["fq_devices"], serde_json::json!(numbers), "{row}");
    assert_eq!(row["departures"], true, "{row}");
}

#[test]
fn vm_what_leaves_through_a_vlan_waits_in_the_fq_below_it() {
    let _pair = Pair::new();
    Pair::qdisc("fq");
    for words in [
        "ip link add link chadtest0 name chadtest0.7 type vlan id 7",
        "ip addr add 198.18.7.1/30 dev chadtest0.7",
        "ip link set chadtest0.7 up",
        "ip -n chadtest-far link add link chadtest1 name chadtest1.7 type vlan id 7",
        "ip -n chadtest-far addr add 198.18.7.2/30 dev chadtest1.7",
        "ip -n chadtest-far link set chadtest1.7 up",
    ] {
        run(&words.split(' ').collect::<Vec<_>>());
    }
    assert_eq!(devices().numbers().count(), 2);
    assert_at_limit(5e5, || {
        let came = flood_to("198.18.7.2", 500_000, Some(16 << 10));
        assert_eq!(came.sent, came.received, "{came:?}");
        came.measured
    });
}

#[test]
fn vm_of_a_flood_no_more_waits_than_is_sent_in_40_ms_and_the_rate_is_right() {
    // 11 packets, and the send buffer holds 92: the others are dropped.
    assert_at_limit(3e5, || {
        let came = flood(300_000, "fq", None);
        assert!(came.received < came.sent, "{came:?}");
        came.measured
    });
}

#[test]
fn vm_fq_never_gets_so_much_of_a_flow_that_it_throws_away_what_was_charged() {
    // 194 packets in 40 ms, of which fq would take 100; the send buffer holds thousands.
    let came = flood(5_000_000, "fq", Some(8 << 20));
    assert!(came.shown.contains("dropped 0,"), "{came:?}");
}

#[test]
fn vm_a_flood_does_not_keep_others_waiting() {
    let _pair = Pair::new();
    Pair::qdisc("fq");
    let (cgroup, _engine) = limited(500_000);
    let (far, receiver) = receiver(FAR);
    let entered = cgroup.enter();
    let probe = Probe::new(400);
    let until = Until::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let flooder = UdpSocket::bind("0.0.0.0:0").unwrap();
            while until.goes_on() {
                flooder.send_to(&[7; PAYLOAD], far).unwrap();
            }
        });
        std::thread::sleep(Duration::from_millis(300));
        let mut times: Vec<_> = (0..10).map(|_| probe.round_trip()).collect();
        until.end();
        times.sort();
        // As long as the flood's packets, about; and each of them comes back. A busy processor only makes it longer.
        let (median, least) = (times[times.len() / 2], times[0]);
        assert!(median > Duration::from_millis(5), "nothing waits: {times:?}");
        assert!(least < Duration::from_millis(100), "{times:?}");
    });
    drop(entered);
    // Of what they flooded with no more is needed.
    receiver.all(0);
}

/// Five that flood have up to 200 ms of the limit waiting. What is small goes at once, unless its own socket has
/// something there.
#[test]
fn vm_a_small_packet_goes_at_once_and_the_next_waits() {
    let _pair = Pair::new();
    Pair::qdisc("fq");
    let (cgroup, _engine) = limited(300_000);
    let (far, receiver) = receiver(FAR);
    let entered = cgroup.enter();
    let (small, large) = (Probe::new(16), Probe::new(400));
    let until = Until::new();
    let (small, heap, large) = std::thread::scope(|scope| {
        for _ in 0..5 {
            scope.spawn(|| {
                let flooder = UdpSocket::bind("0.0.0.0:0").unwrap();
                while until.goes_on() {
                    for _ in 0..30 {
                        flooder.send_to(&[7; PAYLOAD], far).unwrap();
                    }
                    std::thread::sleep(Duration::from_millis(50));
                }
            });
        }
        std::thread::sleep(Duration::from_millis(500));
        let median = |mut times: Vec<Duration>| {
            times.sort();
            times[times.len() / 2]
        };
        let sevenfold = |probe: &Probe| (0..7).map(|_| probe.round_trip()).collect::<Vec<_>>();
        // The second of two that are sent together.
        let heap = |_| {
            std::thread::sleep(Duration::from_millis(400));
            let start = Instant::now();
            for _ in 0..2 {
                small.socket.send(&[1; 16]).unwrap();
            }
            for _ in 0..2 {
                small.socket.recv(&mut [0; 16]).unwrap();
            }
            start.elapsed()
        };
        // A busy processor only makes it longer.
        let least = sevenfold(&small).into_iter().min().unwrap();
        let times = (least, median((0..5).map(heap).collect()), median(sevenfold(&large)));
        until.end();
        times
    });
    assert!(large > Duration::from_millis(60), "nothing waits: {large:?}");
    assert!(small < large / 2, "{small:?} beside {large:?}");
    assert!(heap > large / 2, "the second of two: {heap:?} beside {large:?}");
    drop(entered);
    // Of what they flooded with no more is needed.
    receiver.all(0);
}
