//! Runs every sequence up to a depth over an alphabet, with a crash and a fault at every possible call.
//!
//! A step that has nothing to do ends the sequence, because the search has run the shorter one already. Such a step
//! removes what is not there, for example.
//!
//! A sequence has at most one injected failure. The search tries each one at every call of its step. Each
//! sequence runs once from the start. The search skips no state that looks like an earlier one.

use std::ops::AddAssign;
use std::time::{Duration, Instant};

use sim::Version;

use super::in_model::Program;
use super::on_model::{self, trial};
use super::random::{Failure, drop_needless};
use super::step::{Damage, Fail, Fault, How, Kind, Mishap, Place, Step, Target, Way, Ways};
use super::trial::{ByHand, Checked, Tally};

/// Every sequence starts with a cgroup, its child, and an owner.
const START: [Step; 3] = [
    Step::CreateCgroup(Place::A),
    Step::CreateCgroup(Place::AB),
    Step::Start { owner: 0, fault: None },
];

/// The steps and injected failures of the sequences.
#[derive(Debug, Clone, Copy)]
pub struct Alphabet {
    /// The possible steps.
    pub steps: &'static [Step],
    /// The possible injected failures at a call.
    pub mishaps: &'static [Mishap],
}

const fn add(owner: u8, place: Place, ways: Ways, how: How) -> Step {
    Step::Add { owner, target: Target::Cgroup(place), ways, how, fault: None }
}

const ADD_PINNED: Step = add(0, Place::A, Ways::Upload, How::Pinned);
const ADD_LEGACY: Step = add(0, Place::AB, Ways::Both, How::Legacy);
const ADD_LINK: Step = add(0, Place::AB, Ways::Upload, How::Link);
const REMOVE: Step = Step::Remove { owner: 0, throttle: 0, fault: None };
const OTHERS_ATTACH: Step =
    Step::OthersAttach { place: Place::AB, way: Way::Upload, kind: Kind::Multi };
const KILL: Step = Step::Kill { owner: 0 };
const START_AGAIN: Step = Step::Start { owner: 0, fault: None };
const SHUT_DOWN: Step = Step::ShutDown { owner: 0, fault: None };

/// The alphabet for deep sequences: throttles on parent and child in each mode, a foreign program, and all that ends
/// them.
pub const SMALL: Alphabet = Alphabet {
    steps: &[
        ADD_PINNED,
        ADD_LEGACY,
        ADD_LINK,
        REMOVE,
        OTHERS_ATTACH,
        Step::OthersDetach(0),
        Step::RemoveCgroup(Place::AB),
        KILL,
        START_AGAIN,
        SHUT_DOWN,
    ],
    // One errno stands for all, because only `ENOENT` has a rule of its own. WIDE has each of them.
    mishaps: &[
        Mishap::DieBefore,
        Mishap::DieAfter,
        Mishap::Fail(Fail::EPERM),
        Mishap::Fail(Fail::ENOENT),
    ],
};

/// The alphabet for broad sequences: two owners, changes, removal by name, every kind of list, a damaged ledger, and
/// every errno.
pub const WIDE: Alphabet = Alphabet {
    steps: &[
        ADD_PINNED,
        ADD_LEGACY,
        ADD_LINK,
        add(0, Place::AB, Ways::Both, How::Pinned),
        add(1, Place::AB, Ways::Both, How::Legacy),
        add(1, Place::A, Ways::Download, How::Pinned),
        Step::Change { owner: 0, throttle: 0, fault: None },
        REMOVE,
        Step::Remove { owner: 1, throttle: 0, fault: None },
        Step::RemovePinned { throttle: 0, fault: None },
        OTHERS_ATTACH,
        Step::OthersAttach { place: Place::AB, way: Way::Upload, kind: Kind::None },
        Step::OthersAttach { place: Place::A, way: Way::Upload, kind: Kind::Override },
        Step::OthersDetach(0),
        Step::Stranger(0),
        Step::RemoveCgroup(Place::AB),
        Step::HoldSocket(Place::AB),
        Step::Damage(Damage::Junk),
        Step::Damage(Damage::Torn(0)),
        KILL,
        Step::Kill { owner: 1 },
        START_AGAIN,
        Step::Start { owner: 1, fault: None },
        SHUT_DOWN,
        Step::ShutDown { owner: 1, fault: None },
    ],
    mishaps: &[
        Mishap::DieBefore,
        Mishap::DieAfter,
        Mishap::Fail(Fail::EPERM),
        Mishap::Fail(Fail::ENOMEM),
        Mishap::Fail(Fail::E2BIG),
        Mishap::Fail(Fail::EBUSY),
        Mishap::Fail(Fail::ENOENT),
        Mishap::Fail(Fail::EINTR),
    ],
};

/// The time for shortening a failed sequence.
const SHORTENING: Duration = Duration::from_secs(20);

/// The extent of a search.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    /// The number of steps in a sequence.
    pub depth: usize,
    /// The number of steps in a sequence with an injected failure.
    pub depth_with_mishap: usize,
    /// The time limit. A search that reaches it reports that it is not complete.
    pub time: Duration,
}

/// What a search covered.
#[derive(Debug, Clone, Default)]
pub struct Covered {
    /// The amount of work done.
    pub tally: Tally,
    /// The number of sequences without an injected failure, and with one.
    pub sequences: [u64; 2],
    /// Whether the search covered its whole extent.
    pub complete: bool,
    /// The first sequence that failed.
    pub failure: Option<Failure>,
    /// The time that it took.
    pub took: Duration,
}

impl AddAssign for Covered {
    /// Adds what another search covered. The sum is complete if both are.
    fn add_assign(&mut self, other: Self) {
        self.tally += other.tally;
        for (one, other) in self.sequences.iter_mut().zip(other.sequences) {
            *one += other;
        }
        self.complete &= other.complete;
        self.failure = self.failure.take().or(other.failure);
        self.took += other.took;
    }
}

/// Runs every sequence of the extent whose first step is one of these (indices into the alphabet). So several threads
/// can share the work.
pub fn exhaust<P: Program + Copy>(
    program: P,
    version: Version,
    alphabet: Alphabet,
    extent: &Extent,
    first: &[usize],
) -> Covered {
    let began = Instant::now();
    let mut search = Search {
        program,
        version,
        alphabet,
        extent: *extent,
        until: began + extent.time,
        covered: Covered { complete: true, ..Covered::default() },
    };
    for &at in first {
        let steps = vec![alphabet.steps[at]];
        search.from(&steps);
        search.with_mishaps(&steps);
    }
    search.covered.took = began.elapsed();
    search.covered
}

struct Search<P> {
    program: P,
    version: Version,
    alphabet: Alphabet,
    extent: Extent,
    until: Instant,
    covered: Covered,
}

/// How a sequence ended.
struct Ran {
    /// Whether the last step had something to do.
    applied: bool,
    /// Whether the injected failure struck.
    struck: bool,
}

impl<P: Program + Copy> Search<P> {
    /// Runs a sequence and all sequences that begin with it.
    fn from(&mut self, steps: &[Step]) {
        if self.is_over() {
            return;
        }
        let Some(ran) = self.run(steps, None) else { return };
        if !ran.applied {
            return;
        }
        self.covered.sequences[0] += 1;
        if steps.len() == self.extent.depth {
            return;
        }
        let mut longer = steps.to_vec();
        for &step in self.alphabet.steps {
            longer.push(step);
            self.from(&longer);
            longer.pop();
        }
    }

    /// Runs a sequence with an injected failure at each call of its last step, and all sequences that begin with it.
    /// Then does the same for every longer sequence.
    fn with_mishaps(&mut self, steps: &[Step]) {
        let Some((last, before)) = steps.split_last() else { return };
        let mut sequence = before.to_vec();
        for &mishap in self.alphabet.mishaps {
            for nth in 1.. {
                let faulty = last.with_fault(Some(Fault { nth, mishap }));
                if faulty.fault().is_none() || self.is_over() {
                    break;
                }
                sequence.push(faulty);
                let struck = self.after_mishap(&sequence);
                sequence.pop();
                if !struck {
                    break;
                }
            }
        }
        if steps.len() < self.extent.depth_with_mishap && !self.is_over() {
            let mut longer = steps.to_vec();
            for &step in self.alphabet.steps {
                longer.push(step);
                self.with_mishaps(&longer);
                longer.pop();
            }
        }
    }

    /// Runs a sequence with an injected failure and all sequences that begin with it. Returns whether the injected
    /// failure struck.
    fn after_mishap(&mut self, steps: &[Step]) -> bool {
        if self.is_over() {
            return false;
        }
        let mishap = steps.iter().position(|step| step.fault().is_some());
        let Some(ran) = self.run(steps, mishap) else { return false };
        if !ran.struck || !ran.applied {
            return ran.struck;
        }
        self.covered.sequences[1] += 1;
        if steps.len() < self.extent.depth_with_mishap {
            let mut longer = steps.to_vec();
            for &step in self.alphabet.steps {
                longer.push(step);
                self.after_mishap(&longer);
                longer.pop();
            }
        }
        true
    }

    fn is_over(&mut self) -> bool {
        if Instant::now() > self.until {
            self.covered.complete = false;
        }
        !self.covered.complete || self.covered.failure.is_some()
    }

    /// Runs one sequence from start to end. Returns `None` if it failed.
    fn run(&mut self, steps: &[Step], mishap: Option<usize>) -> Option<Ran> {
        match self.try_run(steps, mishap) {
            Ok((tally, ran)) => {
                // If the last step did nothing or the injected failure never struck, a shorter sequence has covered it.
                if ran.applied && (mishap.is_none() || ran.struck) {
                    self.covered.tally += tally;
                }
                Some(ran)
            }
            Err(violation) => {
                let steps = START.iter().chain(steps).copied().collect();
                let cases = self.covered.sequences.iter().sum();
                let found = Failure { violation, steps, cases, again: None };
                let until = Instant::now() + SHORTENING;
                let mut run = |steps: &[Step]| on_model::run(self.program, self.version, steps);
                self.covered.failure = Some(drop_needless(found, until, &mut run).try_again(run));
                None
            }
        }
    }

    fn try_run(&self, steps: &[Step], mishap: Option<usize>) -> Checked<(Tally, Ran)> {
        let mut trial = trial(self.program, self.version)?;
        for step in &START {
            trial.step(step)?;
        }
        let mut ran = Ran { applied: false, struck: false };
        for (at, step) in steps.iter().enumerate() {
            ran.applied = trial.step(step)?;
            if mishap == Some(at) {
                ran.struck = ran.applied && trial.fault_struck();
            }
            if !ran.applied {
                break;
            }
        }
        Ok((trial.finish(&mut ByHand)?, ran))
    }
}
