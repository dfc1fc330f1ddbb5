//! Measures attaching and detaching with other programs on the list.

use std::cell::RefCell;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::ensure;
use bpf::LinuxBpf;
use bpf::limits::Rate;
use kernel::cgroup::Cgroup;
use kernel::link::Link;
use kernel::list::{AttachFlags, attach, detach};
use kernel::{AttachType, Program};
use testkit::cgroup::ScratchCgroup;
use throttle_core::mode::{TcpWish, Wish};
use throttle_core::{Engine, ThrottleId};

use crate::throttle::{engine, spec};
use crate::turns::Contestant;

/// The numbers of neighbours to try. The kernel accepts 64 programs on one list.
pub const NEIGHBOURS: [usize; 4] = [0, 1, 31, 63];

/// The name of the contestant that makes two system calls and nothing else.
pub const FLOOR: &str = "attach and detach alone";

/// The name of the contestant that creates a link and detaches it.
pub const LINK_FLOOR: &str = "a link alone";

const AT: AttachType = AttachType::INET_EGRESS;
const RATE: &str = "10MB/s";

/// A cgroup with neighbours on it, and an engine that has loaded its programs already.
///
/// Everything in it disappears when it is dropped, or with the process. Call [`testkit::isolation::isolate`] first.
pub struct Place {
    scratch: ScratchCgroup,
    cgroup: Cgroup,
    nothing: Program,
    engine: RefCell<Engine<LinuxBpf>>,
    // One throttle of each kind elsewhere keeps the programs loaded.
    held: Vec<ThrottleId>,
}

impl Place {
    /// Creates the cgroup, its neighbours and the engine.
    ///
    /// # Errors
    /// Fails if the kernel refuses something.
    pub fn new(neighbours: usize) -> anyhow::Result<Self> {
        let scratch = ScratchCgroup::new("attach");
        let path = scratch.child("place");
        let cgroup = Cgroup::open(&path)?;
        for at in [AttachType::INET_INGRESS, AT, AttachType::SOCK_OPS] {
            for _ in 0..neighbours {
                // The attachment keeps the program loaded until the cgroup is removed.
                let neighbour = Program::load_pass("chadtest_neighb", at)?;
                attach(neighbour.as_fd(), &cgroup, at, AttachFlags::MULTI, None)?;
            }
        }
        let mut engine = engine()?;
        let mut held = Vec::new();
        for tcp in [TcpWish::Police, TcpWish::Shape] {
            let elsewhere = scratch.child("elsewhere");
            held.push(engine.add(&spec(elsewhere, RATE.parse()?, Wish::Link, tcp))?.id);
        }
        let nothing = Program::load_pass("chadtest_nothing", AT)?;
        Ok(Self { scratch, cgroup, nothing, engine: RefCell::new(engine), held })
    }

    /// Returns the contestants, with the floor first.
    pub fn contestants(&self) -> Vec<Contestant<'_>> {
        let mut all = vec![
            Contestant::new(FLOOR, |times| self.floor(times)),
            Contestant::new(LINK_FLOOR, |times| self.link_floor(times)),
        ];
        for (name, attach) in
            [("link", Wish::Link), ("pinned", Wish::Pinned), ("legacy", Wish::Legacy)]
        {
            all.push(Contestant::new(format!("{name}, one program"), move |times| {
                self.throttle(attach, TcpWish::Police, times)
            }));
        }
        all.push(Contestant::new("link, all three programs", |times| {
            self.throttle(Wish::Link, TcpWish::Shape, times)
        }));
        all
    }

    /// Removes the throttles elsewhere.
    ///
    /// # Errors
    /// Fails if a throttle cannot be removed.
    pub fn end(self) -> anyhow::Result<()> {
        let mut engine = self.engine.into_inner();
        for id in self.held {
            engine.remove(id)?;
        }
        ensure!(engine.list().is_empty(), "throttles are left");
        drop(self.scratch);
        Ok(())
    }

    /// Measures a bare attach and detach of a program.
    fn floor(&self, times: u64) -> anyhow::Result<Duration> {
        let start = Instant::now();
        for _ in 0..times {
            attach(self.nothing.as_fd(), &self.cgroup, AT, AttachFlags::MULTI, None)?;
            detach(self.nothing.as_fd(), &self.cgroup, AT, None)?;
        }
        Ok(start.elapsed())
    }

    /// Measures the same with a link.
    fn link_floor(&self, times: u64) -> anyhow::Result<Duration> {
        let start = Instant::now();
        for _ in 0..times {
            // Closing the link is not enough, because a process that lists the host's links holds each for a moment.
            Link::create(self.nothing.as_fd(), &self.cgroup, AT)?.detach()?;
        }
        Ok(start.elapsed())
    }

    /// Measures adding a throttle and removing it, which includes the check that its programs are gone.
    fn throttle(&self, attach: Wish, tcp: TcpWish, times: u64) -> anyhow::Result<Duration> {
        let rate: Rate = RATE.parse()?;
        let spec = spec(self.cgroup.path().to_owned(), rate, attach, tcp);
        let mut engine = self.engine.borrow_mut();
        let start = Instant::now();
        for _ in 0..times {
            let started = engine.add(&spec)?;
            engine.remove(started.id)?;
        }
        Ok(start.elapsed())
    }
}

/// Measures the first throttle of a process and its removal. This includes loading and unloading the programs.
///
/// # Errors
/// Fails if the throttle cannot be added or removed.
pub fn first_of_a_process(times: u64) -> anyhow::Result<Duration> {
    let scratch = ScratchCgroup::new("first");
    let spec = spec(scratch.path().into(), RATE.parse()?, Wish::Link, TcpWish::Shape);
    let start = Instant::now();
    for _ in 0..times {
        let mut engine = engine()?;
        let started = engine.add(&spec)?;
        engine.remove(started.id)?;
    }
    Ok(start.elapsed())
}
