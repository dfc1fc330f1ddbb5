//! `limit --guard`: programs on the cgroup above hold a new cgroup's packets until it is limited, and nobody else's.

#[path = "../common/mod.rs"]
mod common;
mod firewalls;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use auditor::judge::Finding;
use bpf::state::Count;
use kernel::cgroup::Cgroup;
use kernel::list::{AttachFlags, Scope, attach, query};
use kernel::{AttachType, Program, ProgramId};
use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testkit::cgroup::{ScratchCgroup, enter, remove_tree};
use testkit::isolation::isolate;
use testkit::process::{Mortal, soon};
use testkit::traffic::{PAYLOAD, socket};

use crate::common::audit;

const LOOPBACK: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const EGRESS: AttachType = AttachType::INET_EGRESS;
const PROGRAM: &str = env!("CARGO_BIN_EXE_chadthrottle");

/// `chadthrottle limit --upload 1M --burst 20ms`, armed: a burst is 20 kB.
struct Limit {
    child: Mortal,
    stderr: BufReader<std::process::ChildStderr>,
}

impl Limit {
    fn start(cgroup: &Path, args: &[&str]) -> Self {
        Self::start_in(&["env"], cgroup, args)
    }

    /// In surroundings that a command makes.
    fn start_in(surroundings: &[&str], cgroup: &Path, args: &[&str]) -> Self {
        let limit = [PROGRAM, "limit", "--upload", "1M", "--burst", "20ms", "--cgroup"];
        let mut command = Command::new(surroundings[0]);
        command.args(&surroundings[1..]).args(limit).arg(cgroup).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = Mortal::from(command.spawn().unwrap());
        let mut armed = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut armed).unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        if !armed.starts_with("limiting ") {
            stderr.read_to_string(&mut armed).unwrap();
            panic!("{armed}");
        }
        Self { child, stderr }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    fn stand_still(&self) {
        self.signal(Signal::SIGSTOP);
        let status = format!("/proc/{}/status", self.child.id());
        soon("it stands still", || fs::read_to_string(&status).unwrap().contains("State:\tT"));
    }

    /// What it says up to some words.
    fn says(&mut self, words: &str) -> String {
        let mut said = String::new();
        while !said.contains(words) {
            assert_ne!(self.stderr.read_line(&mut said).unwrap(), 0, "{words}: {said}");
        }
        said
    }

    /// What else it says until it has ended.
    fn interrupt(mut self) -> String {
        self.signal(Signal::SIGINT);
        let mut said = String::new();
        self.stderr.read_to_string(&mut said).unwrap();
        assert!(self.child.wait().unwrap().success(), "{said}");
        said
    }
}

fn on(cgroup: &Path) -> Vec<ProgramId> {
    let Ok(open) = Cgroup::open(cgroup) else { return Vec::new() };
    let list = query(&open, EGRESS, Scope::Local, false).unwrap();
    list.programs.iter().map(|program| program.id).collect()
}

/// A program of somebody else's that stays until its cgroup goes.
fn plant(cgroup: &Path, program: &Program, flags: AttachFlags) -> ProgramId {
    attach(program.as_fd(), &Cgroup::open(cgroup).unwrap(), EGRESS, flags, None).unwrap();
    program.info().id
}

fn pass() -> Program {
    Program::load_pass("chadtest_pass", EGRESS).unwrap()
}

fn socket_of(cgroup: &Path) -> UdpSocket {
    let _inside = enter(cgroup);
    socket(LOOPBACK)
}

/// How many of so many datagrams arrive. A busy kernel delivers them a moment later, perhaps only when others are looked
/// for: so each call has a number, which is in its datagrams, and one more that the receiver sends itself comes last. (They
/// go through the queue of one processor.)
fn arrive(sender: &UdpSocket, receiver: &UdpSocket, datagrams: usize) -> usize {
    static CALLS: AtomicU8 = AtomicU8::new(0);
    let datagram = [CALLS.fetch_add(1, Relaxed); PAYLOAD];
    let to = receiver.local_addr().unwrap();
    stay_on_one_processor();
    for _ in 0..datagrams {
        // A firewall's refusal is an error here.
        let _ = sender.send_to(&datagram, to);
    }
    let last = &datagram[..PAYLOAD / 2];
    receiver.send_to(last, to).unwrap();
    receiver.set_nonblocking(false).unwrap();
    receiver.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let (mut next, mut count) = ([0; PAYLOAD], 0);
    loop {
        let length = receiver.recv(&mut next).unwrap();
        if next[..length] == *last {
            return count;
        }
        count += usize::from(next[..length] == datagram);
    }
}

fn stay_on_one_processor() {
    let mut one = CpuSet::new();
    one.set(sched_getcpu().unwrap()).unwrap();
    sched_setaffinity(Pid::from_raw(0), &one).unwrap();
}

/// Received and sent packets that were held back, and those that passed, as the end says.
fn held(said: &str) -> [u64; 4] {
    let line = said.lines().find(|line| line.contains("above one burst were held back"));
    let numbers = line.unwrap_or_default().split(' ').filter_map(|word| word.parse().ok());
    let numbers: Vec<_> = numbers.collect();
    numbers.try_into().unwrap_or_default()
}

fn make_again(service: &Path) {
    remove_tree(service).unwrap();
    fs::create_dir(service).unwrap();
}

/// For so long the guard holds a new cgroup.
const HELD: Duration = Duration::from_secs(1);

/// Makes a cgroup again that is guarded, and whose limit stands still, and tries something within the second in which the
/// guard holds it. Returns from when to when the last one was being made, and what all tries came to: a machine that stands
/// still may need some.
fn while_held<T>(limit: &Limit, service: &Path, try_it: impl Fn() -> T) -> ([Instant; 2], Vec<T>) {
    let mut tries = Vec::new();
    for _ in 0..20 {
        limit.stand_still();
        let begin = Instant::now();
        make_again(service);
        let end = Instant::now();
        tries.push(try_it());
        if begin.elapsed() < HELD {
            return ([begin, end], tries);
        }
        limit.signal(Signal::SIGCONT);
        soon("it is limited", || on(service).len() == 1);
    }
    panic!("it has taken longer than a second each time");
}

/// Of 20 kB 19 packets of 1,028 bytes and one that goes beyond.
const IN_A_BURST: usize = 20;

#[test]
fn root_the_guard_holds_a_new_cgroup_to_one_burst_for_a_second_and_nobody_beside_it() {
    isolate();
    let cgroup = ScratchCgroup::new("guard");
    let (service, beside) = (cgroup.child("service"), cgroup.child("beside"));
    let receiver = socket(LOOPBACK);
    let [neighbour, parent] = [&beside, cgroup.path()].map(socket_of);
    let limit = Limit::start(&service, &["--guard"]);
    soon("the guard is there", || on(cgroup.path()).len() == 1);
    let ([begin, end], tries) = while_held(&limit, &service, || {
        let sender = socket_of(&service);
        let below = socket_of(&cgroup.child("service/inner"));
        let came = [&sender, &below].map(|it| arrive(it, &receiver, 50));
        (sender, came)
    });
    let lost: usize = tries.iter().map(|(_, came)| 100 - came[0] - came[1]).sum();
    let (sender, came) = tries.last().unwrap();
    assert_eq!(*came, [IN_A_BURST, 0], "{:?}", begin.elapsed());
    assert_eq!(arrive(&neighbour, &receiver, 50), 50);
    assert_eq!(arrive(&parent, &receiver, 50), 50);
    // A limit that does not come holds nobody for ever.
    std::thread::sleep(Duration::from_millis(600).saturating_sub(begin.elapsed()));
    let still = arrive(sender, &receiver, 50);
    assert!(still == 0 || begin.elapsed() > HELD, "{still}");
    let mut singles = 0;
    let mut sent = Instant::now();
    while arrive(sender, &receiver, 1) == 0 {
        assert!(sent < end + HELD, "it was held for longer");
        singles += 1;
        sent = Instant::now();
    }
    assert_eq!(arrive(sender, &receiver, 50), 50);
    assert!(on(&service).is_empty());
    limit.signal(Signal::SIGCONT);
    soon("it is limited", || on(&service).len() == 1);
    let said = limit.interrupt();
    let [lost_down, lost_up, passed_down, passed_up] = held(&said);
    assert_eq!((lost_down, passed_down), (0, 0), "{said}");
    assert_eq!(lost_up, (lost + 50 - still + singles) as u64, "{said}");
    assert!(passed_up == 20 || tries.len() > 1 && passed_up > 20, "{said}");
    assert_eq!(on(cgroup.path()), []);
}

/// How many of 50 datagrams arrive on a socket whose own do not: one to another socket comes after them.
fn come_in(sender: &UdpSocket, held: &UdpSocket, other: &UdpSocket) -> usize {
    let to = held.local_addr().unwrap();
    stay_on_one_processor();
    for _ in 0..50 {
        sender.send_to(&[0; PAYLOAD], to).unwrap();
    }
    assert_eq!(arrive(sender, other, 1), 1);
    held.set_nonblocking(true).unwrap();
    (0..50).take_while(|_| held.recv(&mut [0; PAYLOAD]).is_ok()).count()
}

#[test]
fn root_each_cgroup_that_a_guard_holds_has_a_burst_of_its_own_both_ways() {
    isolate();
    let cgroup = ScratchCgroup::new("bursts");
    let service = cgroup.child("service");
    let [receiver, outside] = [(); 2].map(|()| socket(LOOPBACK));
    let limit = Limit::start(&service, &["--download", "1M", "--guard"]);
    soon("the guard is there", || on(cgroup.path()).len() == 1);
    for restart in 0..4 {
        let came = while_held(&limit, &service, || {
            let inside = socket_of(&service);
            let upload = || arrive(&inside, &receiver, 50);
            let download = || come_in(&outside, &inside, &receiver);
            // Neither is held by what the other has used, whichever comes first.
            if restart % 2 == 0 {
                (upload(), download())
            } else {
                let first = download();
                (upload(), first)
            }
        });
        assert_eq!(came.1.last(), Some(&(IN_A_BURST, IN_A_BURST)), "restart {restart}");
        limit.signal(Signal::SIGCONT);
        soon("it is limited", || on(&service).len() == 1);
    }
    limit.interrupt();
}

/// What a restart comes to: another cgroup, and a service in it that sends at once. Returns what the limit has seen.
fn restart(service: &Path, receiver: &UdpSocket) -> Count {
    make_again(service);
    let sender = socket_of(service);
    for _ in 0..PACKETS {
        sender.send_to(&[0; 100], receiver.local_addr().unwrap()).unwrap();
    }
    soon("it is armed again", || on(service).len() == 1);
    let open = Cgroup::open(service).unwrap();
    let id = on(service)[0];
    let counters =
        bpf::ThrottleProgram::open(id).unwrap().counters(open.id(), EGRESS).unwrap().unwrap();
    counters.passed + counters.dropped
}

/// Less than a burst.
const PACKETS: u64 = 20;

/// `RESTARTS=100` measures: what the limit has missed, with the kernel's help and without.
#[test]
fn root_packets_of_a_service_that_restarts_are_held_until_it_is_limited() {
    isolate();
    let cgroup = ScratchCgroup::new("gap");
    let service = cgroup.child("service");
    let restarts = std::env::var("RESTARTS").map_or(10, |number| number.parse().unwrap());
    for (way, helps) in [(&["--guard"][..], true), (&[], false)] {
        let limit = Limit::start(&service, way);
        let owner = limit.child.id();
        if helps {
            // The programs on the cgroup above, and the one that waits for the cgroup.
            soon("the kernel helps", || on(cgroup.path()).len() == 1);
            let found = audit(owner);
            assert!(found.iter().all(|it| *it == Finding::Active), "{found:?}");
            let list = Command::new(PROGRAM).arg("list").output().unwrap();
            let list = String::from_utf8(list.stdout).unwrap();
            assert!(!list.contains("named chadthrottle*"), "{list}");
        } else {
            assert_eq!(on(cgroup.path()), [], "nobody has asked for programs on the cgroup above");
        }
        let receiver = socket(LOOPBACK);
        let seen: u64 = (0..restarts).map(|_| restart(&service, &receiver).packets).sum();
        let said = limit.interrupt();
        let (sent, [_, dropped, _, passed]) = (restarts * PACKETS, held(&said));
        println!("{way:?}: sent {sent}, limited {seen}, held to a burst until then {passed}");
        assert_eq!(dropped, 0, "no service sends more than a burst: {said}");
        if helps {
            assert!(seen + passed >= sent, "{said}");
        } else {
            assert_eq!(passed, 0);
        }
        assert_eq!(on(cgroup.path()), [], "nothing is left on the cgroup above");
    }
}

#[test]
fn root_neighbours_on_the_cgroup_above_keep_their_places_beside_a_guard() {
    isolate();
    let cgroup = ScratchCgroup::new("places");
    let service = cgroup.child("service");
    let [first, last] = [pass(), pass()];
    let first = plant(cgroup.path(), &first, AttachFlags::MULTI);
    let limit = Limit::start(&service, &["--guard"]);
    soon("the guard is there", || on(cgroup.path()).len() == 2);
    let last = plant(cgroup.path(), &last, AttachFlags::MULTI);
    let all = on(cgroup.path());
    assert_eq!((all[0], all[2], all.len()), (first, last, 3));
    make_again(&service);
    soon("it is limited", || on(&service).len() == 1);
    limit.interrupt();
    assert_eq!(on(cgroup.path()), [first, last]);
}

#[test]
fn root_a_guard_leaves_the_last_places_on_the_cgroup_above_to_others() {
    isolate();
    let cgroup = ScratchCgroup::new("room");
    let [first, second] = ["first", "second"].map(|name| cgroup.child(name));
    for _ in 0..47 {
        plant(cgroup.path(), &pass(), AttachFlags::MULTI);
    }
    let limit = Limit::start(&first, &["--guard"]);
    soon("the last place that a guard takes is taken", || on(cgroup.path()).len() == 48);
    let mut other = Limit::start(&second, &["--guard", "--duration", "2m"]);
    other.says("48 of the 64 places");
    assert_eq!(on(cgroup.path()).len(), 48);
    other.interrupt();
    limit.interrupt();
    assert_eq!(on(cgroup.path()).len(), 47);
}

#[test]
fn root_a_guard_holds_a_cgroup_however_deep_it_lies() {
    isolate();
    let cgroup = ScratchCgroup::new("deep");
    let above = cgroup.child(["d"; 80].join("/"));
    let service = above.join("service");
    fs::create_dir(&service).unwrap();
    let receiver = socket(LOOPBACK);
    let limit = Limit::start(&service, &["--guard"]);
    soon("the guard is there", || on(&above).len() == 1);
    let came = while_held(&limit, &service, || arrive(&socket_of(&service), &receiver, 50)).1;
    assert_eq!(came.last(), Some(&IN_A_BURST));
    limit.signal(Signal::SIGCONT);
    limit.interrupt();
}
