//! Measures many throttles in one process.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use kernel::cgroup::Cgroup;
use kernel::link::Link;
use kernel::{AttachType, Program};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use testkit::cgroup::ScratchCgroup;
use throttle_core::mode::{TcpWish, Wish};
use throttle_core::{Change, Spec, ThrottleId};

use crate::throttle::{engine, spec};

/// The open files per throttle (its cgroup and three links), and those for the programs and the rest.
const DESCRIPTORS: (usize, usize) = (4, 200);

/// The steps of a round, in order, with the time for each throttle in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Round {
    /// Adding.
    pub add: f64,
    /// Listing all at once.
    pub list: f64,
    /// Changing the rate of each.
    pub change: f64,
    /// Removing.
    pub remove: f64,
    /// The minimum for adding and removing: three links, created and closed.
    pub links: f64,
    /// The memory of this process that one throttle takes, in bytes.
    pub bytes: f64,
}

/// The cgroups to throttle.
pub struct Many {
    _scratch: ScratchCgroup,
    first: PathBuf,
    cgroups: Vec<PathBuf>,
}

impl Many {
    /// Creates this many cgroups and raises the limit of open files if necessary.
    ///
    /// # Errors
    /// Fails if the limit cannot be raised.
    pub fn new(count: usize) -> anyhow::Result<Self> {
        let needed = (count * DESCRIPTORS.0 + DESCRIPTORS.1) as u64;
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        if soft < needed {
            setrlimit(Resource::RLIMIT_NOFILE, needed, hard.max(needed))
                .with_context(|| format!("{needed} open files are needed, {hard} are allowed"))?;
        }
        let scratch = ScratchCgroup::new("many");
        let cgroups = (0..count).map(|number| scratch.child(number.to_string())).collect();
        let first = scratch.child("first");
        Ok(Self { _scratch: scratch, first, cgroups })
    }

    /// Throttles all cgroups with its own engine and removes the throttles. It calls `step` after each step.
    ///
    /// # Errors
    /// Fails if an attach, change or removal fails, or if the state is wrong afterwards.
    pub fn round(&self, step: impl Fn()) -> anyhow::Result<Round> {
        let count = self.cgroups.len();
        let each = |time: Duration| time.as_nanos() as f64 / count as f64;
        let links = each(self.links()?);
        step();

        let spec = |cgroup: &PathBuf| -> anyhow::Result<Spec> {
            Ok(spec(cgroup.clone(), "1MB/s".parse()?, Wish::Link, TcpWish::Shape))
        };
        let mut engine = engine()?;
        // This extra throttle loads the programs in advance.
        let first = engine.add(&spec(&self.first)?)?.id;
        let before = resident_bytes()?;
        let mut ids: Vec<ThrottleId> = Vec::new();
        let start = Instant::now();
        for cgroup in &self.cgroups {
            ids.push(engine.add(&spec(cgroup)?)?.id);
        }
        let add = each(start.elapsed());
        let bytes = (resident_bytes()? - before) / count as f64;
        step();

        let start = Instant::now();
        let list = engine.list();
        let listed = each(start.elapsed());
        ensure!(list.len() == count + 1, "{} of {} throttles are listed", list.len(), count + 1);
        step();

        let change = Change { upload: Some("2MB/s".parse()?), ..Change::default() };
        let start = Instant::now();
        for id in &ids {
            engine.change(*id, &change)?;
        }
        let changed = each(start.elapsed());
        step();

        let start = Instant::now();
        for id in ids {
            engine.remove(id)?;
        }
        let remove = each(start.elapsed());
        engine.remove(first)?;
        ensure!(engine.list().is_empty(), "throttles are left");
        step();
        Ok(Round { add, list: listed, change: changed, remove, links, bytes })
    }

    fn links(&self) -> anyhow::Result<Duration> {
        let types = [AttachType::INET_INGRESS, AttachType::INET_EGRESS, AttachType::SOCK_OPS];
        let programs: Vec<_> = types
            .into_iter()
            .map(|at| Ok((at, Program::load_pass("chadtest_nothing", at)?)))
            .collect::<kernel::Result<_>>()?;
        let start = Instant::now();
        let mut held = Vec::new();
        for cgroup in &self.cgroups {
            let cgroup = Cgroup::open(cgroup)?;
            for (at, program) in &programs {
                held.push(Link::create(program.as_fd(), &cgroup, *at)?);
            }
        }
        drop(held);
        Ok(start.elapsed())
    }
}

/// The number of steps in a round.
pub const STEPS: usize = 5;

/// Returns `VmRSS`, in bytes.
fn resident_bytes() -> anyhow::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok());
    number.map(|kilobytes| kilobytes * 1_024.0).context("/proc/self/status has no VmRSS")
}
