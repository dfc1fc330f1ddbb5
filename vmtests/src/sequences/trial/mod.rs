//! Runs one trial. It takes steps on a machine with a throttle system, and compares the actual state with the expected
//! state after each step.

mod check;
mod finish;
mod host;
mod ledger;
mod owners;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bpf::state::Counters;
use kernel::{AttachType, ProgramId};
use serde::{Deserialize, Serialize};
use sim::{Census, ModelProcess, ModelSocket, Version};

pub use finish::{ByHand, Witness};
use host::Foreign;
pub use testkit::results::Tally;

use super::expected::Expected;
use super::step::Step;
use super::system::{Handle, System};
use crate::sequences::census::Surveyed;

/// A property that must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Property {
    /// A program that is reported as removed is gone.
    GoneMeansGone,
    /// Other people's programs stay where they were, in order.
    OthersStay,
    /// Everything of ours that is attached has an owner, or a record that the next start finds.
    NothingUnaccounted,
    /// A throttle that should exist is attached and limits to the requested rate.
    LimitsHold,
    /// An owner does what the kernel allows, refuses the rest, and lists what it has.
    AnswersAreTrue,
    /// One failed call makes only its own operation fail.
    OneFailureIsOne,
    /// Counters only grow.
    CountersGrow,
    /// At the end nothing of ours is left.
    NothingLeft,
    /// The model of the kernel and the harness itself are right.
    GateIsRight,
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::GoneMeansGone => "gone means gone",
            Self::OthersStay => "others stay",
            Self::NothingUnaccounted => "nothing unaccounted for",
            Self::LimitsHold => "limits hold",
            Self::AnswersAreTrue => "answers are true",
            Self::OneFailureIsOne => "one failure is one",
            Self::CountersGrow => "counters only grow",
            Self::NothingLeft => "nothing left",
            Self::GateIsRight => "the gate is right",
        })
    }
}

/// A violated property.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{property}: {what}")]
pub struct Violation {
    /// The property.
    pub property: Property,
    /// What the check saw.
    pub what: String,
}

impl Violation {
    pub(crate) fn new(property: Property, what: impl Into<String>) -> Self {
        Self { property, what: what.into() }
    }
}

/// The result of a check.
pub type Checked<T = ()> = Result<T, Violation>;

/// A trial.
pub struct Trial<W: Surveyed, S: System> {
    // This field comes first, so the owners end before the world.
    system: S,
    foreign: Vec<Foreign<W>>,
    processes: Vec<(W::Process, ModelProcess)>,
    sockets: Vec<(W::Socket, ModelSocket)>,
    world: W,
    top: PathBuf,
    /// The longest wait for work that the kernel finishes later.
    patience: Duration,
    expected: Expected,
    running: [bool; 2],
    /// The counters of the programs, across all uses of their load.
    counted: BTreeMap<(Handle, AttachType), Counters>,
    /// The counters that owners report, which start when the throttle is added.
    reported: BTreeMap<(Handle, AttachType), Counters>,
    /// Files in the ledger's folder that belong to no owner.
    junk: Vec<PathBuf>,
    /// Programs of cgroups above the trial's, which it ignores.
    above: Vec<ProgramId>,
    /// Throttles that existed before the trial, such as a user's.
    before: Census,
    last_handle: Handle,
    last_rate: u64,
    tally: Tally,
}

impl<W: Surveyed, S: System> Trial<W, S> {
    /// Creates a trial of a system on a machine, below the empty cgroup `top`.
    ///
    /// # Errors
    /// Fails if the machine cannot be queried.
    pub fn new(
        world: W,
        system: S,
        top: &Path,
        version: Version,
        patience: Duration,
    ) -> kernel::Result<Self> {
        let mut trial = Self {
            system,
            foreign: Vec::new(),
            processes: Vec::new(),
            sockets: Vec::new(),
            expected: Expected::new(version, top),
            before: world.census()?,
            world,
            top: top.to_owned(),
            patience,
            running: [false; 2],
            counted: BTreeMap::new(),
            reported: BTreeMap::new(),
            junk: Vec::new(),
            above: Vec::new(),
            last_handle: 0,
            last_rate: 1_000_000,
            tally: Tally { sequences: 1, ..Tally::default() },
        };
        trial.above = trial.programs_above()?;
        Ok(trial)
    }

    /// Returns the amount of work done so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Tells whether the fault of the last step struck.
    pub fn fault_struck(&self) -> bool {
        self.system.fault_struck()
    }

    /// Takes a step and checks every property. Returns whether the step had anything to do.
    ///
    /// # Errors
    /// Returns the violated property.
    pub fn step(&mut self, step: &Step) -> Checked<bool> {
        if !self.system.offers(step) || !self.act(step)? {
            return Ok(false);
        }
        self.tally.steps += 1;
        let patience = if step.is_finished_later() { self.patience } else { Duration::ZERO };
        self.check(patience)?;
        Ok(true)
    }

    fn act(&mut self, step: &Step) -> Checked<bool> {
        match *step {
            Step::CreateCgroup(place) => self.create_cgroup(place),
            Step::RemoveCgroup(place) => self.remove_cgroup(place),
            Step::Spawn(place) => self.spawn(place),
            Step::Move(nth, place) => self.move_process(nth, place),
            Step::End(nth) => Ok(self.end_process(nth)),
            Step::HoldSocket(place) => self.hold_socket(place),
            Step::CloseSocket(nth) => Ok(self.close_socket(nth)),
            Step::Send(nth) => self.send(nth),
            Step::Start { owner, fault } => self.start(owner, fault),
            Step::Add { owner, target, ways, how, fault } => {
                self.add(owner, target, ways, how, fault)
            }
            Step::Change { owner, throttle, fault } => self.change(owner, throttle, fault),
            Step::Remove { owner, throttle, fault } => self.remove(owner, throttle, fault),
            Step::RemovePinned { throttle, fault } => self.remove_pinned(throttle, fault),
            Step::ShutDown { owner, fault } => self.shut_down(owner, fault),
            Step::Kill { owner } => self.kill(owner),
            Step::OthersAttach { place, way, kind } => self.others_attach(place, way, kind),
            Step::OthersDetach(nth) => self.others_detach(nth),
            Step::Fill { place, way } => self.fill(place, way),
            Step::Stranger(nth) => self.stranger(nth),
            Step::Damage(damage) => self.damage(damage),
        }
    }
}

/// Returns the index of the nth element, modulo their number. `None` if there are none.
fn nth<T>(of: &[T], nth: u8) -> Option<usize> {
    (!of.is_empty()).then(|| usize::from(nth) % of.len())
}
