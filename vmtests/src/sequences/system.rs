//! Defines the interface of every throttle system under test.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

use bpf::state::Counters;
use kernel::{AttachType, CgroupId, ProgramId};
use serde::{Deserialize, Serialize};
use throttle_core::files::Files;

use super::step::{Fault, How, Step};

/// The number of a throttle, which the trial chooses. It is unique in the trial.
pub type Handle = u32;

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome<T> {
    /// The system reports success.
    Done(T),
    /// The system reports a failure, and why.
    Failed(String),
    /// The process was killed half-way.
    Died,
}

impl<T> Outcome<T> {
    /// Maps the value of a success.
    pub fn map<U>(self, told: impl FnOnce(T) -> U) -> Outcome<U> {
        match self {
            Self::Done(done) => Outcome::Done(told(done)),
            Self::Failed(why) => Outcome::Failed(why),
            Self::Died => Outcome::Died,
        }
    }
}

/// The target of a throttle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Whom {
    /// A cgroup, by its directory.
    Cgroup(PathBuf),
    /// A process.
    Process(u32),
}

/// Bytes per second in each limited direction.
pub type Rates = BTreeMap<AttachType, u64>;

/// The programs of a throttle: where each is attached, and its limit in bytes per second if it has one.
pub type Parts = BTreeMap<AttachType, Option<u64>>;

/// A request for a throttle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The throttle's number.
    pub handle: Handle,
    /// The target.
    pub whom: Whom,
    /// The rates.
    pub rates: Rates,
    /// How to attach.
    pub how: How,
}

/// A throttle's counters, in each direction for which the system reports them.
pub type Counted = BTreeMap<AttachType, Counters>;

/// A throttle that a living owner lists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The throttle's number.
    pub handle: Handle,
    /// Its limits.
    pub rates: Rates,
    /// Its counters, without those that could not be read.
    #[serde(with = "counters_by_type")]
    pub counters: Counted,
}

/// A recorded throttle, which outlives its owner and can be removed by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Its name.
    pub name: String,
    /// The path that its cgroup has or had.
    pub cgroup: PathBuf,
    /// Its cgroup's id. Another cgroup may have the path now.
    pub cgroup_id: CgroupId,
    /// Its programs.
    pub programs: Vec<ProgramId>,
}

/// A system under test. It runs as two owners (0 and 1), each a process that can be killed.
pub trait System {
    /// Tells whether the system can take this step at all. Steps that it cannot take do not count.
    fn offers(&self, step: &Step) -> bool;
    /// Tells whether each throttle has its own process. If so, adding a throttle is a start, which settles. The process
    /// releases a pinned throttle at once.
    fn is_a_process_for_each_throttle(&self) -> bool {
        false
    }

    /// Tells whether its throttles have a program for TCP.
    fn shapes_tcp(&self) -> bool;

    /// Tells whether its owners report limits and counters, also when a throttle ends.
    fn reports_counters(&self) -> bool {
        true
    }

    /// Tells whether it refuses a throttle that would disable somebody else's program.
    fn refuses_to_displace(&self) -> bool {
        true
    }

    /// Starts an owner, which settles what dead owners left.
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
    /// Removes a throttle. Returns its counters.
    fn remove(&mut self, owner: usize, handle: Handle, fault: Option<Fault>) -> Outcome<Counted>;
    /// Lists the owner's throttles.
    fn claims(&mut self, owner: usize) -> Vec<Claim>;
    /// Removes everything and ends. Returns how many more files are open than at the start.
    fn shut_down(&mut self, owner: usize, fault: Option<Fault>) -> Outcome<usize>;
    /// Kills an owner.
    fn kill(&mut self, owner: usize);

    /// Removes a throttle that outlived its owner, by its name.
    fn remove_recorded(&mut self, name: &str, fault: Option<Fault>) -> Outcome<()>;
    /// Lists the throttles that can be removed by name.
    fn recorded(&self) -> Vec<Recorded>;
    /// Returns the ledger's files and folder, if the system has a ledger.
    fn ledger(&self) -> Option<(Rc<dyn Files>, PathBuf)>;

    /// Tells whether the fault of the last operation struck. It does not if the operation made fewer calls.
    fn fault_struck(&self) -> bool;

    /// Returns the throttles removed since the last call whose owner reported at the end that somebody else had
    /// detached them.
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

    pub(in crate::sequences) fn serialize<S: Serializer>(
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

    pub(in crate::sequences) fn deserialize<'de, D: Deserializer<'de>>(
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
