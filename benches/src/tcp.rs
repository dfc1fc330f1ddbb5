//! Measures the programs in real traffic, with the run times that the kernel counts.
//!
//! The program for TCP cannot be measured otherwise, because the kernel has no test run for sockops programs. Beside
//! each program of ours, a program that does nothing is attached at the same place, so both run equally often. Both pay
//! for the clock that the kernel reads.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::Command;
use std::thread;

use anyhow::{Context, ensure};
use bpf::limits::Rate;
use kernel::cgroup::Cgroup;
use kernel::link::Link;
use kernel::list::{Scope, query};
use kernel::run_time::{RunTime, count};
use kernel::{AttachType, Program};
use testkit::cgroup::ScratchCgroup;
use throttle_core::mode::{TcpWish, Wish};

use crate::throttle::{engine, spec};
use crate::turns::Figure;

/// A rate below what loopback carries, and far above rates where the bucket would have to hold packets back.
const RATE: &str = "100MB/s";
const CHUNK: usize = 64 * 1024;

/// The attach types of the programs, and their names in the table.
const PLACES: [(AttachType, &str); 3] = [
    (AttachType::INET_INGRESS, "download"),
    (AttachType::INET_EGRESS, "upload"),
    (AttachType::SOCK_OPS, "TCP"),
];

/// The cost of one program in traffic.
#[derive(Debug)]
pub struct InTraffic {
    /// Our program, per run.
    pub ours: Figure,
    /// The program that does nothing, per run.
    pub nothing: Figure,
    /// The runs of our program per data segment (1,448 bytes), over all rounds.
    pub runs: f64,
}

/// A program of ours and the program beside it.
struct Pair {
    name: &'static str,
    ours: Program,
    nothing: Program,
    _link: Link,
}

/// Sends and receives `bytes` over loopback in a throttled cgroup, `rounds` times. Returns the cost of each program.
/// Call [`testkit::isolation::isolate`] first.
///
/// # Errors
/// Fails if the throttle or the traffic fails.
pub fn measure(rounds: usize, bytes: usize) -> anyhow::Result<Vec<InTraffic>> {
    // This is the MTU of a real network. Loopback's own is 64 kB.
    let status = Command::new("ip").args(["link", "set", "lo", "mtu", "1500"]).status()?;
    ensure!(status.success(), "ip cannot set the MTU of loopback: {status}");
    let scratch = ScratchCgroup::new("tcp");
    let mut engine = engine()?;
    let rate: Rate = RATE.parse()?;
    let started = engine.add(&spec(scratch.path().into(), rate, Wish::Link, TcpWish::Shape))?;
    let cgroup = Cgroup::open(scratch.path())?;
    let pairs: Vec<Pair> =
        PLACES.into_iter().map(|place| pair(&cgroup, place)).collect::<anyhow::Result<_>>()?;
    let _counting = count()?;

    let mut rows = Vec::new();
    for upload in [true, false] {
        let way = if upload { "sending" } else { "receiving" };
        let mut now: Vec<InTraffic> = pairs
            .iter()
            .map(|pair| InTraffic {
                ours: Figure { name: format!("{way}: {}", pair.name), rounds: Vec::new() },
                nothing: Figure { name: format!("{way}: nothing"), rounds: Vec::new() },
                runs: 0.0,
            })
            .collect();
        for _ in 0..rounds {
            let before = times(&pairs)?;
            transfer(&scratch, upload, bytes)?;
            for ((row, before), after) in now.iter_mut().zip(before).zip(times(&pairs)?) {
                let [ours, nothing] = [0, 1].map(|at| after[at].since(before[at]));
                let silent = || format!("{} did not run", row.ours.name);
                let (mean, peer) = ours.mean().zip(nothing.mean()).with_context(silent)?;
                row.ours.rounds.push(mean);
                row.nothing.rounds.push(peer);
                row.runs += ours.count as f64 / (rounds * bytes) as f64 * 1_448.0;
            }
        }
        rows.extend(now);
    }
    engine.remove(started.id)?;
    Ok(rows)
}

/// Finds our program and attaches one that does nothing beside it.
fn pair(cgroup: &Cgroup, (at, name): (AttachType, &'static str)) -> anyhow::Result<Pair> {
    let list = query(cgroup, at, Scope::Local, false)?;
    ensure!(list.programs.len() == 1, "{} programs at {at}, not one", list.programs.len());
    let ours = Program::open(list.programs[0].id)?;
    let nothing = Program::load_pass("chadtest_nothing", at)?;
    let link = Link::create(nothing.as_fd(), cgroup, at)?;
    Ok(Pair { name, ours, nothing, _link: link })
}

fn times(pairs: &[Pair]) -> anyhow::Result<Vec<[RunTime; 2]>> {
    let both = |pair: &Pair| Ok([RunTime::of(&pair.ours)?, RunTime::of(&pair.nothing)?]);
    pairs.iter().map(both).collect()
}

/// Transfers data between an end in the cgroup and one outside.
fn transfer(scratch: &ScratchCgroup, upload: bool, bytes: usize) -> anyhow::Result<()> {
    // An accepted socket belongs to the listener's cgroup.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let far = thread::spawn(move || -> std::io::Result<usize> {
        let (mut stream, _) = listener.accept()?;
        if upload { receive(&mut stream) } else { send(&mut stream, bytes).map(|()| bytes) }
    });
    let mut near = {
        let _inside = scratch.enter();
        TcpStream::connect(address)?
    };
    let arrived = if upload {
        send(&mut near, bytes)?;
        drop(near);
        far.join().expect("the far end does not panic")?
    } else {
        let arrived = receive(&mut near)?;
        far.join().expect("the far end does not panic")?;
        arrived
    };
    ensure!(arrived == bytes, "{arrived} of {bytes} bytes arrived");
    Ok(())
}

fn send(stream: &mut TcpStream, bytes: usize) -> std::io::Result<()> {
    let chunk = vec![0; CHUNK];
    let mut left = bytes;
    while left > 0 {
        let now = left.min(CHUNK);
        stream.write_all(&chunk[..now])?;
        left -= now;
    }
    Ok(())
}

fn receive(stream: &mut TcpStream) -> std::io::Result<usize> {
    let mut chunk = vec![0; CHUNK];
    let mut sum = 0;
    loop {
        match stream.read(&mut chunk)? {
            0 => return Ok(sum),
            some => sum += some,
        }
    }
}
