//! A queue for downloads: what goes through it, and that it leaves nothing.

use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use bpf::limits::Burst;
use kernel::ProgramId;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testkit::cgroup::ScratchCgroup;
use testkit::isolation::isolate;
use testkit::process::{Mortal, wait_for_name};
use testkit::tcx::has_tcx;
use throttle_core::{Engine, Spec};

use crate::common::{NEAR, Pair, devices_of_ours, engine, program, queue_is_refused, run, spec};

/// How many packets the queue's device has passed on.
fn passed() -> usize {
    let device = format!("chadq{}a", std::process::id());
    let shown = run(&["tc", "-s", "qdisc", "show", "dev", &device]);
    let words = shown.split_once("Sent ").unwrap().1.split(' ').nth(2).unwrap();
    words.parse().unwrap()
}

/// How many datagrams are sent to a socket.
const FEW: usize = 10;

/// A socket that is far away sends a datagram to each of these, a few times, with as much time between them.
fn send_to(sockets: &[&UdpSocket], pause: Duration) {
    let to: Vec<_> = sockets.iter().map(|it| it.local_addr().unwrap().port()).collect();
    std::thread::spawn(move || {
        Pair::go_far();
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        for _ in 0..FEW {
            for port in &to {
                socket.send_to(&[7; 100], (NEAR, *port)).unwrap();
            }
            sleep(pause);
        }
    })
    .join()
    .unwrap();
}

/// What a limit of 1 MB/s lets pass in any case.
const GENTLY: Duration = Duration::from_millis(20);

/// Receives as many as that, however long they are on their way, and what is there beside them.
fn received(socket: &UdpSocket, expected: usize) -> usize {
    let patience = |came| Duration::from_millis(if came < expected { 20_000 } else { 100 });
    for came in 0.. {
        socket.set_read_timeout(Some(patience(came))).unwrap();
        if socket.recv(&mut [0; 200]).is_err() {
            return came;
        }
    }
    unreachable!("it is not received for ever")
}

#[test]
fn vm_what_is_the_cgroups_goes_through_the_queue_and_nothing_else_does() {
    if !has_tcx() {
        return queue_is_refused();
    }
    let _pair = Pair::new();
    let cgroup = ScratchCgroup::new("members");
    let mut engine = engine();
    let queued = Spec { queue: true, ..spec(cgroup.path(), Some(1_000_000), None) };
    let id = engine.add(&queued).unwrap().id;
    let inside = {
        let _inside = cgroup.enter();
        UdpSocket::bind((NEAR, 0)).unwrap()
    };
    let outside = UdpSocket::bind((NEAR, 0)).unwrap();
    let before = passed();
    send_to(&[&outside], GENTLY);
    assert_eq!((received(&outside, FEW), passed() - before), (FEW, 0));
    // The first one tells whose the socket is.
    send_to(&[&inside, &outside], GENTLY);
    assert_eq!((received(&inside, FEW), received(&outside, FEW)), (FEW, FEW));
    assert_eq!(passed() - before, FEW - 1);
    engine.remove(id).unwrap();
    assert_eq!(devices_of_ours(), "");
    send_to(&[&inside], GENTLY);
    assert_eq!(received(&inside, FEW), FEW);
}

/// `chadthrottle limit` with a queue, once it has armed it.
fn limit(cgroup: &ScratchCgroup) -> Mortal {
    let mut command = Command::new(program("chadthrottle"));
    command.args(["limit", "--download", "1M", "--download-queue", "--cgroup"]).arg(cgroup.path());
    let mut child = Mortal::from(command.stdout(Stdio::piped()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("limiting "), "{line}");
    child
}

/// How many links to devices there are of programs of that process's throttles. (Others may have some as well.)
fn tcx_links(owner: u32) -> usize {
    let links: serde_json::Value = serde_json::from_str(&run(&["bpftool", "-j", "link"])).unwrap();
    // bpftool 7.1 does not know their type's name, so it is a number there.
    let is_tcx = |link: &&serde_json::Value| link["type"] == "tcx" || link["type"] == 11;
    let is_theirs = |link: &&serde_json::Value| {
        let program = ProgramId(link["prog_id"].as_u64().unwrap().try_into().unwrap());
        let program = kernel::objects::program(program).unwrap();
        let named = program.and_then(|program| bpf::owner_of(&program).unwrap());
        named.is_some_and(|it| it.pid == owner)
    };
    links.as_array().unwrap().iter().filter(is_tcx).filter(is_theirs).count()
}

#[test]
fn vm_a_killed_owner_leaves_an_idle_device_that_the_next_start_removes() {
    if !has_tcx() {
        return queue_is_refused();
    }
    let _pair = Pair::new();
    let cgroup = ScratchCgroup::new("killed");
    let mut child = limit(&cgroup);
    assert!(devices_of_ours().contains(&format!("chadq{}a", child.id())));
    assert_eq!(tcx_links(child.id()), 2);
    child.kill().unwrap();
    child.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while tcx_links(child.id()) != 0 {
        assert!(Instant::now() < deadline, "links outlive their owner");
        sleep(Duration::from_millis(10));
    }
    assert!(devices_of_ours().contains("chadq"));
    let mut next = limit(&cgroup);
    // Its own has taken the place.
    let own = format!("chadq{}a", next.id());
    assert!(devices_of_ours().contains(&own) && devices_of_ours().matches("chadq").count() == 1);
    kill(Pid::from_raw(next.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert!(next.wait().unwrap().success());
    assert_eq!((devices_of_ours().as_str(), tcx_links(next.id())), ("", 0));
}

#[test]
fn vm_where_no_device_has_packets_for_it_a_queue_is_refused_and_its_own_device_goes() {
    if !has_tcx() {
        return queue_is_refused();
    }
    isolate();
    let cgroup = ScratchCgroup::new("alone");
    let queued = Spec { queue: true, ..spec(cgroup.path(), Some(1_000_000), None) };
    let error = engine().add(&queued).unwrap_err().to_string();
    assert!(error.contains("there is none with Ethernet headers that is up"), "{error}");
    assert_eq!(devices_of_ours(), "");
}

#[test]
fn vm_two_queues_have_devices_of_their_own_and_go_one_by_one() {
    if !has_tcx() {
        return queue_is_refused();
    }
    let _pair = Pair::new();
    let mut engine = engine();
    let (a, b) = (ScratchCgroup::new("a"), ScratchCgroup::new("b"));
    let queued =
        |cgroup: &ScratchCgroup| Spec { queue: true, ..spec(cgroup.path(), Some(1_000_000), None) };
    let first = engine.add(&queued(&a)).unwrap().id;
    let second = engine.add(&queued(&b)).unwrap().id;
    assert_eq!(devices_of_ours().matches("chadq").count(), 2);
    engine.remove(first).unwrap();
    let left = devices_of_ours();
    let [is_first, is_second] =
        ["a", "b"].map(|it| left.contains(&format!("{}{it}", std::process::id())));
    assert!(!is_first && is_second, "{left}");
    engine.remove(second).unwrap();
    assert_eq!(devices_of_ours(), "");
}

#[test]
fn vm_a_queue_is_where_the_cgroups_processes_are_and_is_looked_at_there() {
    if !has_tcx() {
        return queue_is_refused();
    }
    let _pair = Pair::new();
    let cgroup = ScratchCgroup::new("far");
    let child = {
        let _inside = cgroup.enter();
        Command::new("ip").args(["netns", "exec", "chadtest-far", "sleep", "1000"]).spawn().unwrap()
    };
    let child = Mortal::from(child);
    wait_for_name(child.id(), "sleep");
    let mut engine = engine();
    let queued = Spec { queue: true, ..spec(cgroup.path(), Some(1_000_000), None) };
    let id = engine.add(&queued).unwrap().id;
    let there = || run(&["ip", "-n", "chadtest-far", "-o", "link", "show", "type", "ifb"]);
    let own = format!("chadq{}a", std::process::id());
    assert!(there().contains(&own) && devices_of_ours().is_empty());
    assert!(!engine.close_broken_queue(id).unwrap());
    run(&["ip", "-n", "chadtest-far", "link", "set", &own, "down"]);
    assert!(engine.close_broken_queue(id).unwrap());
    assert!(!there().contains(&own));
    engine.remove(id).unwrap();
}

/// Sends until some are lost: each takes 64 ms of 2 kB/s. What is not lost arrives.
fn assert_some_are_lost(socket: &UdpSocket, lost: impl Fn() -> usize) {
    let mut sent = 0;
    while lost() == 0 {
        assert!(sent < 100 * FEW, "nothing is lost of {sent}");
        send_to(&[socket], Duration::ZERO);
        sent += FEW;
    }
    let came = received(socket, sent - lost());
    assert!(came > 0 && came + lost() == sent, "{came} of {sent}, and {} are lost", lost());
}

#[test]
fn vm_what_is_dropped_in_the_queue_is_counted_and_a_broken_queue_is_closed() {
    if !has_tcx() {
        return queue_is_refused();
    }
    let _pair = Pair::new();
    let cgroup = ScratchCgroup::new("drops");
    let mut engine = engine();
    let burst = Burst::new(Duration::from_millis(20)).unwrap();
    let slow = Spec { queue: true, burst, ..spec(cgroup.path(), Some(2_000), None) };
    let id = engine.add(&slow).unwrap().id;
    let inside = {
        let _inside = cgroup.enter();
        UdpSocket::bind((NEAR, 0)).unwrap()
    };
    let lost = |engine: &Engine<_>| {
        let counters = engine.list()[0].directions[0].counters.as_ref().unwrap().unwrap();
        usize::try_from(counters.dropped.packets).unwrap()
    };
    assert_some_are_lost(&inside, || lost(&engine));
    assert!(!engine.close_broken_queue(id).unwrap());
    let device = format!("chadq{}a", std::process::id());
    run(&["ip", "link", "set", &device, "down"]);
    assert!(engine.close_broken_queue(id).unwrap());
    assert_eq!((devices_of_ours().as_str(), tcx_links(std::process::id())), ("", 0));
    // The limit is held without it.
    assert_eq!(engine.list().len(), 1);
    // Until then what passed the queue is paid for.
    sleep(Duration::from_secs(1));
    let before = lost(&engine);
    assert_some_are_lost(&inside, || lost(&engine) - before);
    engine.remove(id).unwrap();
}
