//! What becomes of TCP: it keeps to the limit by itself, and nothing of that stays in a socket.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bpf::limits::Burst;
use bpf::state::Counters;
use testkit::cgroup::ScratchCgroup;
use testkit::isolation::isolate;
use testkit::traffic::{
    Interval, Measured, TRIES, assert_at_limit, assert_held, flood, iperf3_intervals, is_at_limit,
    socket, wait_for_listener,
};
use throttle_core::mode::{TcpWish, Wish};
use throttle_core::{Engine, Spec};

use crate::common::{rate, spec, start};

/// What a segment of 1,500 bytes carries, with time stamps.
const PAYLOAD: f64 = 1448.0 / 1500.0;
/// No more than this is on its way when an end of it is looked at: socket buffers count, and the others have 4 MB.
const BUFFER: &str = "65536";

/// A connection over loopback with segments as on Ethernet: bytes go one way as fast as they can.
struct Connection {
    sender: TcpStream,
    writer: JoinHandle<()>,
    receiver: TcpStream,
}

/// Alone in namespaces, with a loopback that is as narrow as Ethernet.
fn isolate_narrow() {
    isolate();
    for words in [
        &["ip", "link", "set", "lo", "mtu", "1500"][..],
        &["sysctl", "-qw", &format!("net.ipv4.tcp_wmem=4096 {BUFFER} {BUFFER}")],
        &["sysctl", "-qw", "net.ipv4.tcp_rmem=4096 131072 6291456"],
    ] {
        assert!(Command::new(words[0]).args(&words[1..]).status().unwrap().success(), "{words:?}");
    }
}

impl Connection {
    /// The sending end is made in that cgroup.
    fn new(cgroup: &ScratchCgroup) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let to = listener.local_addr().unwrap();
        let sender = {
            let _inside = cgroup.enter();
            TcpStream::connect(to).unwrap()
        };
        let (receiver, _) = listener.accept().unwrap();
        let mut end = sender.try_clone().unwrap();
        let writer = std::thread::spawn(move || while end.write_all(&[7; 16_384]).is_ok() {});
        Self { sender, writer, receiver }
    }

    /// Reads for a while; returns what came.
    fn read_for(&mut self, time: Duration) -> Interval {
        let (start, mut bytes) = (Instant::now(), 0_u64);
        let mut buffer = vec![0; 65_536];
        while start.elapsed() < time {
            bytes += self.receiver.read(&mut buffer).unwrap() as u64;
        }
        Interval { bytes: bytes as f64, seconds: start.elapsed().as_secs_f64() }
    }

    /// Reads for a second; returns what came in each half.
    fn second(&mut self) -> Vec<Interval> {
        (0..2).map(|_| self.read_for(Duration::from_millis(500))).collect()
    }

    /// What the kernel says of the sending end.
    fn told(&self) -> String {
        let port = self.sender.local_addr().unwrap().port();
        let output = Command::new("ss")
            .args(["-tinHO", "state", "established", "sport", "=", &port.to_string()])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    fn end(self) {
        self.sender.shutdown(Shutdown::Both).unwrap();
        drop(self.receiver);
        self.writer.join().unwrap();
    }
}

fn upload(cgroup: &ScratchCgroup, bytes_per_second: u64) -> Spec {
    Spec {
        download: None,
        upload: Some(rate(bytes_per_second)),
        burst: Burst::DEFAULT,
        ..spec(cgroup.path(), Wish::Link)
    }
}

fn counters(engine: &Engine<bpf::LinuxBpf>) -> Counters {
    engine.list()[0].directions[0].counters.as_ref().unwrap().unwrap()
}

/// Lost or held back: the limit had to say no.
fn dropped(engine: &Engine<bpf::LinuxBpf>) -> u64 {
    let Counters { dropped, held_back, .. } = counters(engine);
    dropped.packets + held_back.packets
}

/// What TCP has carried, at the most, through a limit that was armed then.
fn passed(engine: &Engine<bpf::LinuxBpf>, armed: Instant) -> Interval {
    Interval::since(armed, counters(engine).passed.bytes as f64 * PAYLOAD)
}

/// The connection is at the limit for a second in which nothing is dropped. (A machine that does something else for a
/// quarter of a second loses the thread.)
#[track_caller]
fn assert_shaped(
    connection: &mut Connection,
    (engine, armed): (&Engine<bpf::LinuxBpf>, Instant),
    rate: f64,
) {
    let mut seen = Vec::new();
    for _ in 0..TRIES {
        let before = dropped(engine);
        let came = connection.second();
        let lost = dropped(engine) - before;
        assert_held(passed(engine, armed), rate * PAYLOAD);
        if lost == 0 && is_at_limit(&came, rate * PAYLOAD) {
            return;
        }
        seen.push((came, lost));
    }
    panic!("what came in half a second each, and what was dropped: {seen:.2?}");
}

/// The limit is one of packets, and this is what TCP carries in them.
#[track_caller]
fn assert_goodput(rate: f64, measure: impl FnMut() -> Measured) {
    assert_at_limit(rate * PAYLOAD, measure);
}

#[test]
fn root_tcp_sends_at_the_limit_and_nothing_is_dropped_or_sent_twice() {
    isolate_narrow();
    let cgroup = ScratchCgroup::new("paced");
    let (mut engine, armed) = (start(), Instant::now());
    engine.add(&upload(&cgroup, 2_000_000)).unwrap();
    let mut connection = Connection::new(&cgroup);
    connection.read_for(Duration::from_millis(500));
    assert_shaped(&mut connection, (&engine, armed), 2e6);
    let told = connection.told();
    // A machine that stood still for a moment may have made the kernel send a segment or two again.
    let number = |name: &str| {
        let text = told.split_whitespace().find_map(|word| word.strip_prefix(name));
        text.map_or(0, |text| text.parse::<u64>().unwrap())
    };
    let (sent, again) = (number("bytes_sent:"), number("bytes_retrans:"));
    assert!(sent > 1_000_000 && again * 200 < sent, "{told}");
    connection.end();
}

#[test]
fn root_a_connection_is_its_own_again_when_the_throttle_is_gone() {
    isolate_narrow();
    let cgroup = ScratchCgroup::new("free");
    let (mut engine, armed) = (start(), Instant::now());
    let id = engine.add(&upload(&cgroup, 500_000)).unwrap().id;
    let mut connection = Connection::new(&cgroup);
    connection.read_for(Duration::from_millis(500));
    assert_goodput(5e5, || Measured { came: connection.second(), passed: passed(&engine, armed) });
    // Not even meanwhile does the socket have a limit: ss would show it behind a slash.
    let told = connection.told();
    let pacing = told.split_once("pacing_rate ").unwrap().1.split_whitespace().next().unwrap();
    assert!(!pacing.contains('/'), "{told}");
    engine.remove(id).unwrap();
    connection.read_for(Duration::from_millis(500));
    // How fast it is then is the machine's affair, and one that stands still is slow for a while.
    let mut rates = (0..40).map(|_| connection.read_for(Duration::from_millis(500)).rate());
    assert!(rates.any(|it| it > 3e6), "limited as before, or as slow, for 20 s");
    connection.end();
}

/// A transfer over a connection for which a user has set a pacing rate, beside a limit of 2 MB/s: what ss shows of
/// that rate meanwhile, and what came. A busy machine may run ss too late to see anything: then there is another transfer.
fn with_rate_of_a_user(user: &str) -> (String, Measured) {
    let seen = (0..5).find_map(|_| seen_with_rate_of_a_user(user));
    seen.expect("ss has seen the connection in one of five transfers")
}

fn seen_with_rate_of_a_user(user: &str) -> Option<(String, Measured)> {
    let cgroup = ScratchCgroup::new("users");
    let (mut engine, armed) = (start(), Instant::now());
    let mut server =
        Command::new("iperf3").args(["-s", "-1", "-J"]).stdout(Stdio::null()).spawn().unwrap();
    wait_for_listener(server.id(), 5201);
    engine.add(&upload(&cgroup, 2_000_000)).unwrap();
    let mut client = {
        let _inside = cgroup.enter();
        // iperf3 can set SO_MAX_PACING_RATE.
        Command::new("iperf3")
            .args([
                "-c",
                "127.0.0.1",
                "-t",
                "2",
                "-O",
                "1",
                "-J",
                "--get-server-output",
                "--fq-rate",
                user,
            ])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    };
    // What it has been for a while, the last time that ss sees the connection.
    let mut told = String::new();
    while client.try_wait().unwrap().is_none() {
        let ss = Command::new("ss").args(["-tinHO", "dport", "=", "5201"]).output().unwrap();
        let now = String::from_utf8(ss.stdout).unwrap();
        if now.contains("bps/") {
            told = now;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    let passed = passed(&engine, armed);
    let output = client.wait_with_output().unwrap();
    // It serves one client, if that comes.
    server.kill().unwrap();
    server.wait().unwrap();
    // Of the two connections the second one carries the data.
    let rates = told.split_whitespace().filter(|word| word.contains("bps/"));
    let shown: String = rates.filter_map(|word| Some(word.split_once('/')?.1.to_owned())).collect();
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    (!shown.is_empty()).then(|| (shown, Measured { came: iperf3_intervals(&result), passed }))
}

#[test]
fn root_a_lower_rate_that_a_user_has_set_holds_and_stays() {
    isolate_narrow();
    // The kernel paces what TCP carries, without headers.
    assert_at_limit(1e6, || {
        let (shown, measured) = with_rate_of_a_user("8M");
        assert!(["8Mbps", "8000000bps"].contains(&shown.as_str()), "{shown}");
        measured
    });
}

#[test]
fn root_a_higher_rate_that_a_user_has_set_stays_and_the_limit_holds() {
    isolate_narrow();
    assert_goodput(2e6, || {
        let (shown, measured) = with_rate_of_a_user("32M");
        // It was lowered for each segment, and set back.
        assert!(["32Mbps", "32000000bps"].contains(&shown.as_str()), "{shown}");
        measured
    });
}

#[test]
fn root_connections_that_are_open_already_are_shaped_too() {
    isolate_narrow();
    let cgroup = ScratchCgroup::new("open");
    let mut connection = Connection::new(&cgroup);
    let outside = ScratchCgroup::new("outside");
    let other = Connection::new(&outside);
    connection.read_for(Duration::from_millis(200));
    let (mut engine, armed) = (start(), Instant::now());
    let id = engine.add(&upload(&cgroup, 2_000_000)).unwrap().id;
    let adopted = engine.adopt(id).unwrap();
    // Both ends are in this process, but only one socket was made in the cgroup.
    assert_eq!(adopted.shaped + adopted.policed, 1, "{adopted:?}");
    if adopted.shaped == 1 {
        connection.read_for(Duration::from_millis(700));
        assert_shaped(&mut connection, (&engine, armed), 2e6);
    }
    connection.end();
    other.end();
}

/// `cgroup.procs` of a threaded cgroup tells nothing, and a thread may be in a network namespace of its own.
#[test]
fn root_open_connections_of_a_thread_in_a_threaded_cgroup_are_found_in_its_network_namespace() {
    isolate();
    let cgroup = ScratchCgroup::new("threaded");
    let (above, inside) = (cgroup.child("p"), cgroup.child("p/t"));
    let _inside = testkit::cgroup::enter(&above);
    std::fs::write(inside.join("cgroup.type"), "threaded").unwrap();
    let (opened, is_open) = std::sync::mpsc::channel();
    let (end, ends) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let thread = inside.join("cgroup.threads");
        scope.spawn(move || {
            std::fs::write(thread, nix::unistd::gettid().to_string()).unwrap();
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
            assert!(up.unwrap().success());
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let receiver = listener.accept().unwrap();
            opened.send(()).unwrap();
            // Both ends stay open until then.
            let _ = ends.recv();
            drop((sender, receiver));
        });
        is_open.recv().unwrap();
        let mut engine = start();
        let limit = Spec { cgroup: inside.clone(), ..upload(&cgroup, 2_000_000) };
        let id = engine.add(&limit).unwrap().id;
        let adopted = engine.adopt(id).unwrap();
        assert_eq!((adopted.shaped + adopted.policed, adopted.untold), (2, 0), "{adopted:?}");
        drop(end);
    });
}

#[test]
fn root_tcp_that_is_policed_has_no_program_and_is_held_back_without_a_loss() {
    isolate_narrow();
    let cgroup = ScratchCgroup::new("policed");
    let mut engine = start();
    let policed = Spec { tcp: TcpWish::Police, ..upload(&cgroup, 2_000_000) };
    let id = engine.add(&policed).unwrap().id;
    let mut connection = Connection::new(&cgroup);
    connection.read_for(Duration::from_secs(1));
    let counted = counters(&engine);
    assert!(counted.held_back.packets > 0 && counted.dropped.packets == 0, "{counted:?}");
    assert_eq!(engine.adopt(id).unwrap(), bpf::adopt::Adopted::default());
    connection.end();
}

/// A flood keeps the bucket full. Of a connection that has nothing in flight the kernel tries again every half
/// second, and ends it after 15 times.
#[test]
fn root_a_connection_does_not_stand_still_beside_a_flood() {
    isolate_narrow();
    let cgroup = ScratchCgroup::new("beside");
    let mut engine = start();
    engine.add(&upload(&cgroup, 125_000)).unwrap();
    let localhost = Ipv4Addr::LOCALHOST.into();
    let (sender, receiver) = {
        let _inside = cgroup.enter();
        (socket(localhost), socket(localhost))
    };
    let mut connection = Connection::new(&cgroup);
    let goodput = std::thread::scope(|scope| {
        scope.spawn(|| flood(&sender, &receiver, 30 * 125_000, Duration::from_secs(5)));
        std::thread::sleep(Duration::from_secs(1));
        connection.read_for(Duration::from_secs(3)).rate()
    });
    assert!(goodput > 125e3 / 20.0, "{goodput:.0} bytes a second");
    assert!(goodput < 125e3, "{goodput:.0} bytes a second");
    connection.end();
}

#[test]
fn root_many_connections_share_the_limit() {
    isolate_narrow();
    let cgroup = ScratchCgroup::new("many");
    let (mut engine, armed) = (start(), Instant::now());
    engine.add(&upload(&cgroup, 4_000_000)).unwrap();
    let mut connections: Vec<_> = (0..4).map(|_| Connection::new(&cgroup)).collect();
    let read: Vec<_> = connections.iter().map(|_| AtomicU64::new(0)).collect();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // They read on all the while: what one does not read at once comes all the faster later.
        for (connection, read) in connections.iter_mut().zip(&read) {
            let is_over = &is_over;
            scope.spawn(move || {
                let mut buffer = vec![0; 65_536];
                while !is_over.load(Relaxed) {
                    let came = connection.receiver.read(&mut buffer).unwrap();
                    read.fetch_add(came as u64, Relaxed);
                }
            });
        }
        let measure = std::panic::AssertUnwindSafe(|| {
            assert_goodput(4e6, || {
                let (start, before) = (Instant::now(), read.iter().map(|it| it.load(Relaxed)));
                let before: Vec<_> = before.collect();
                std::thread::sleep(Duration::from_secs(1));
                let came = read.iter().zip(before).map(|(it, was)| it.load(Relaxed) - was);
                let (each, seconds): (Vec<_>, _) = (came.collect(), start.elapsed().as_secs_f64());
                let all = Interval { bytes: each.iter().sum::<u64>() as f64, seconds };
                // They take turns, and where round trips are as short as here the kernel makes the segments of one up to
                // 16 times as large as those of another: half as large for each half of a millisecond that the
                // shortest has taken.
                let is_fair = each.iter().all(|it| *it > 100_000);
                let came = if is_fair { vec![all] } else { Vec::new() };
                Measured { came, passed: passed(&engine, armed) }
            });
        });
        let measured = std::panic::catch_unwind(measure);
        is_over.store(true, Relaxed);
        measured.unwrap_or_else(|why| std::panic::resume_unwind(why));
    });
    connections.into_iter().for_each(Connection::end);
}
