//! One trial: steps are taken on a machine and a system, and after each what is there is compared with what
//! ought to be there.

mod check;
mod finish;
mod ledger;
mod owners;
mod world;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bpf::state::Counters;
use bpf::{AttachType, ProgramId};
use serde::{Deserialize, Serialize};

pub use finish::{ByHand, Witness};
use world::Neighbour;

use super::expected::Expected;
use super::step::Step;
use super::system::{Handle, System};
use crate::lab::{Census, Lab};
use crate::model::{ModelProcess, ModelSocket, Version};

/// What must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Property {
    /// A program that was said to be gone is gone.
    GoneMeansGone,
    /// Other people's programs stay where they were, in order.
    NeighboursStay,
    /// Whatever of ours is attached has an owner, or a record that the next start finds.
    NothingUnaccounted,
    /// A throttle that is there is attached, and limits to the rate that was asked for.
    LimitsHold,
    /// What the kernel allows is done, what it does not is refused, and an owner lists what it has.
    ToldTheTruth,
    /// Where one call fails, no more fails than what it was for.
    OneFailureIsOne,
    /// Counters only grow.
    CountersGrow,
    /// In the end there is nothing.
    NothingLeft,
    /// The model of the kernel is right, and the gate itself.
    GateIsRight,
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::GoneMeansGone => "gone means gone",
            Self::NeighboursStay => "neighbours stay",
            Self::NothingUnaccounted => "nothing unaccounted for",
            Self::LimitsHold => "limits hold",
            Self::ToldTheTruth => "told the truth",
            Self::OneFailureIsOne => "one failure is one",
            Self::CountersGrow => "counters only grow",
            Self::NothingLeft => "nothing left",
            Self::GateIsRight => "the gate is right",
        })
    }
}

/// A property that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{property}: {what}")]
pub struct Violation {
    /// Which.
    pub property: Property,
    /// What was seen.
    pub what: String,
}

impl Violation {
    pub(crate) fn new(property: Property, what: impl Into<String>) -> Self {
        Self { property, what: what.into() }
    }
}

/// The result of a step.
pub type Checked<T = ()> = Result<T, Violation>;

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Sequences.
    pub sequences: u64,
    /// Steps that were taken.
    pub steps: u64,
    /// Calls that were made to fail.
    pub faults: u64,
    /// Owners that were killed, at a call or between two.
    pub crashes: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, more: Self) {
        self.sequences += more.sequences;
        self.steps += more.steps;
        self.faults += more.faults;
        self.crashes += more.crashes;
    }
}

/// A trial.
pub struct Trial<L: Lab, S: System> {
    // First, so that the owners go before what they stand on.
    system: S,
    neighbours: Vec<Neighbour<L>>,
    processes: Vec<(L::Process, ModelProcess)>,
    sockets: Vec<(L::Socket, ModelSocket)>,
    lab: L,
    top: PathBuf,
    /// How long the kernel may take for what it does a little later.
    patience: Duration,
    expected: Expected,
    running: [bool; 2],
    /// What the programs have counted, in all that their load was used for.
    counted: BTreeMap<(Handle, AttachType), Counters>,
    /// And what their owners tell of it: since the throttle was added.
    told: BTreeMap<(Handle, AttachType), Counters>,
    /// Files in the ledger's folder that are nobody's.
    junk: Vec<PathBuf>,
    /// Programs that run above all this; none of this trial's business.
    above: Vec<ProgramId>,
    /// What of ours there was before; others' real throttles, say.
    before: Census,
    last_handle: Handle,
    last_rate: u64,
    tally: Tally,
}

impl<L: Lab, S: System> Trial<L, S> {
    /// A trial of a system on a machine, below the cgroup `top`, which is empty.
    ///
    /// # Errors
    /// When the machine cannot be asked.
    pub fn new(
        lab: L,
        system: S,
        top: &Path,
        version: Version,
        patience: Duration,
    ) -> bpf::Result<Self> {
        let mut trial = Self {
            system,
            neighbours: Vec::new(),
            processes: Vec::new(),
            sockets: Vec::new(),
            expected: Expected::new(version, top),
            before: lab.census()?,
            lab,
            top: top.to_owned(),
            patience,
            running: [false; 2],
            counted: BTreeMap::new(),
            told: BTreeMap::new(),
            junk: Vec::new(),
            above: Vec::new(),
            last_handle: 0,
            last_rate: 1_000_000,
            tally: Tally { sequences: 1, ..Tally::default() },
        };
        trial.above = trial.programs_above()?;
        Ok(trial)
    }

    /// What was done so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Whether the fault of the last step came to pass.
    pub fn fault_struck(&self) -> bool {
        self.system.fault_struck()
    }

    /// Takes a step, and looks whether everything still holds. Tells whether there was anything to take.
    ///
    /// # Errors
    /// What does not hold.
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
            Step::Neighbour { place, way, kind } => self.neighbour(place, way, kind),
            Step::NeighbourLeaves(nth) => self.neighbour_leaves(nth),
            Step::Fill { place, way } => self.fill(place, way),
            Step::Stranger(nth) => self.stranger(nth),
            Step::Damage(damage) => self.damage(damage),
        }
    }
}

/// The nth of several, counted round; `None` of none.
fn nth<T>(of: &[T], nth: u8) -> Option<usize> {
    (!of.is_empty()).then(|| usize::from(nth) % of.len())
}
