//! What the gate asks of a throttle system, whichever it is.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

use bpf::state::Counters;
use bpf::{AttachType, CgroupId, ProgramId};
use serde::{Deserialize, Serialize};
use throttle_core::files::Files;

use super::step::{Fault, How, Step};

/// A throttle's number, given by who asks for it; unique in a trial.
pub type Handle = u32;

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome<T> {
    /// It says that it is done.
    Done(T),
    /// It says that it failed, and why.
    Failed(String),
    /// The process was killed half way.
    Died,
}

impl<T> Outcome<T> {
    /// The same, with something else that is told where it is done.
    pub fn map<U>(self, told: impl FnOnce(T) -> U) -> Outcome<U> {
        match self {
            Self::Done(done) => Outcome::Done(told(done)),
            Self::Failed(why) => Outcome::Failed(why),
            Self::Died => Outcome::Died,
        }
    }
}

/// Whom to limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Whom {
    /// A cgroup, by its directory.
    Cgroup(PathBuf),
    /// A process.
    Process(u32),
}

/// Bytes per second in each direction that is limited.
pub type Rates = BTreeMap<AttachType, u64>;

/// The programs of a throttle: where, and to how many bytes per second each limits, if it does.
pub type Parts = BTreeMap<AttachType, Option<u64>>;

/// A throttle that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Its number.
    pub handle: Handle,
    /// For whom.
    pub whom: Whom,
    /// How much.
    pub rates: Rates,
    /// How.
    pub how: How,
}

/// What a throttle has counted, in each direction of which that is told.
pub type Counted = BTreeMap<AttachType, Counters>;

/// A throttle that a living owner says it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Which.
    pub handle: Handle,
    /// To how much it limits.
    pub rates: Rates,
    /// What it did; a direction whose counters could not be read is not among them.
    #[serde(with = "counters_by_type")]
    pub counters: Counted,
}

/// A throttle that is recorded to outlive its owner and can be removed by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Its name.
    pub name: String,
    /// Where its cgroup is, or was.
    pub cgroup: PathBuf,
    /// Which cgroup: another one may be there now.
    pub cgroup_id: CgroupId,
    /// Its programs.
    pub programs: Vec<ProgramId>,
}

/// A system under test. It runs as two owners (0 and 1), each a process that can be killed.
pub trait System {
    /// Whether it can take this step at all. What it never can is not counted as tested.
    fn offers(&self, step: &Step) -> bool;
    /// Each throttle has a process of its own: adding one is a start, which settles, and a pinned one is let go
    /// of as soon as it is there.
    fn is_a_process_for_each_throttle(&self) -> bool {
        false
    }

    /// Its throttles have a program for TCP.
    fn shapes_tcp(&self) -> bool;

    /// Its owners tell to how much their throttles limit and what they have counted, also in the end.
    fn tells_figures(&self) -> bool {
        true
    }

    /// It adds no throttle that would put somebody else's program out of force.
    fn refuses_to_displace(&self) -> bool {
        true
    }

    /// Starts an owner; it settles what dead owners left.
    fn start(&mut self, owner: usize, fault: Option<Fault>) -> Outcome<()>;
    /// Adds a throttle.
    fn add(&mut self, owner: usize, request: &Request, fault: Option<Fault>) -> Outcome<()>;
    /// Changes a throttle's rates.
    fn change(
        &mut self,
        owner: usize,
        handle: Handle,
        rates: &Rates,
        fault: Option<Fault>,
    ) -> Outcome<()>;
    /// Removes a throttle. Tells what it had counted.
    fn remove(&mut self, owner: usize, handle: Handle, fault: Option<Fault>) -> Outcome<Counted>;
    /// What the owner says it has.
    fn claims(&mut self, owner: usize) -> Vec<Claim>;
    /// Removes everything and ends. Tells how many files are open that were not when it started.
    fn shut_down(&mut self, owner: usize, fault: Option<Fault>) -> Outcome<usize>;
    /// Kills an owner.
    fn kill(&mut self, owner: usize);

    /// Removes a throttle that outlived its owner, by its name.
    fn remove_recorded(&mut self, name: &str, fault: Option<Fault>) -> Outcome<()>;
    /// The throttles that can be removed so.
    fn recorded(&self) -> Vec<Recorded>;
    /// The ledger's files and folder, if it has one.
    fn ledger(&self) -> Option<(Rc<dyn Files>, PathBuf)>;

    /// Whether the fault of the last operation came to pass: it may have made fewer calls.
    fn fault_struck(&self) -> bool;

    /// The throttles that were removed since it was last asked and of which their owner said in the end that somebody else
    /// had detached what limits.
    fn take_lost(&mut self) -> Vec<Handle> {
        Vec::new()
    }
}

/// Counters have no serialised form of their own.
pub(super) mod counters_by_type {
    use bpf::state::Count;
    use serde::{Deserializer, Serializer};

    use super::{AttachType, BTreeMap, Counted, Counters, Deserialize, Serialize};

    type Plain = BTreeMap<AttachType, [u64; 8]>;

    pub(in crate::gate) fn serialize<S: Serializer>(
        counters: &Counted,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let plain = |it: &Counters| {
            let [e, p, d, h] = [it.exempt, it.passed, it.dropped, it.held_back];
            [e.packets, e.bytes, p.packets, p.bytes, d.packets, d.bytes, h.packets, h.bytes]
        };
        let plain: Plain = counters.iter().map(|(&at, it)| (at, plain(it))).collect();
        plain.serialize(serializer)
    }

    pub(in crate::gate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Counted, D::Error> {
        let counters = |[ep, eb, pp, pb, dp, db, hp, hb]: [u64; 8]| Counters {
            exempt: Count { packets: ep, bytes: eb },
            passed: Count { packets: pp, bytes: pb },
            dropped: Count { packets: dp, bytes: db },
            held_back: Count { packets: hp, bytes: hb },
        };
        let plain = Plain::deserialize(deserializer)?;
        Ok(plain.into_iter().map(|(at, it)| (at, counters(it))).collect())
    }
}
