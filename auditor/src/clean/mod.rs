//! Removes leaks, and nothing else.
//!
//! A scan is out of date as soon as it is complete. So `clean` takes another look at each cgroup with leaks right
//! before acting there, and judges it by the same rules. It does what the fresh judgement asks for, but only to leaks
//! that the scan confirmed. Each step checks its target once more with the program open, so that the kernel cannot
//! reuse the program's id.

mod act;
mod forced;
mod steps;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kernel::error::Kind;

pub use self::act::{Failure, Outcome};
use self::steps::take_each;
use crate::actions::{Step, removal, steps};
use crate::collect::{Collector, Options};
use crate::facts::Snapshot;
use crate::judge::{Classified, Judged, Key, classify};

/// Removes what a scan found.
pub struct Cleaner {
    collector: Collector,
    act: act::Act,
}

/// The result of one step, or of a leak that needs no step any more.
#[derive(Debug)]
pub struct Done {
    /// The leak as the scan described it, for people.
    pub leak: String,
    /// The step; none if the leak is no longer a leak.
    pub step: Option<Step>,
    /// The result.
    pub outcome: Outcome,
}

impl Cleaner {
    /// Finds out what the kernel supports.
    ///
    /// # Errors
    /// The errors of [`crate::collect::collect`]; `Denied` without the rights to remove anything.
    pub fn new(options: &Options) -> anyhow::Result<Self> {
        let collector = Collector::new(options)?;
        let support = kernel::probe::support()?;
        let act = act::Act::new(collector.mount(), support);
        Ok(Self { collector, act })
    }

    /// Takes a snapshot, as [`crate::collect::collect`] does.
    ///
    /// # Errors
    /// Somebody has removed the cgroup at the top of the scope.
    pub fn scan(&self, settle: std::time::Duration) -> anyhow::Result<Snapshot> {
        self.collector.snapshot(settle)
    }

    /// Removes the leaks that the scan confirmed and that are still leaks, and reports each result at once. Needs the
    /// rights of a scan, and `CAP_BPF`. Continues after failures.
    pub fn clean(&self, scanned: &Classified<'_>, mut tell: impl FnMut(Done)) {
        // Go place by place, because a fresher look is a better one. Things without a place come last. Only a look at
        // the whole scope can judge them.
        let mut places: BTreeMap<Place, BTreeMap<Key, String>> = BTreeMap::new();
        for leak in scanned.leaks() {
            let cgroup = leak.place.map(|place| place.cgroup.clone());
            places.entry(Place::of(cgroup)).or_default().insert(leak.key(), leak.to_string());
        }
        for leak in scanned.leaked_devices() {
            places.entry(Place::Nowhere).or_default().insert(leak.key(), leak.device.to_string());
        }
        for (place, leaks) in places {
            self.clean_place(&place, leaks, &mut tell);
        }
    }

    fn clean_place(
        &self,
        place: &Place,
        mut leaks: BTreeMap<Key, String>,
        tell: &mut impl FnMut(Done),
    ) {
        let Some(snapshot) = self.look_again(place, &leaks, tell) else { return };
        let fresh = classify(&snapshot);
        let is_here = |leak: &&Judged<'_>| leak.place.is_some() == place.cgroup().is_some();
        let still = fresh.leaks().filter(is_here).filter_map(|judged| {
            leaks.remove(&judged.key()).map(|leak| (leak, steps(judged, &fresh)))
        });
        take_each(still, is_failed, |step| self.act.take(step), tell);
        // A look at a single cgroup judges no devices.
        for judged in fresh.leaked_devices() {
            let Some(leak) = leaks.remove(&judged.key()) else { continue };
            let step = removal(judged);
            let outcome = self.act.take(&step);
            tell(Done { leak, step: Some(step), outcome });
        }
        for leak in leaks.into_values() {
            let outcome = Outcome::Gone("it is no longer a leak: left alone".to_owned());
            tell(Done { leak, step: None, outcome });
        }
    }
}

impl Cleaner {
    /// Takes a look at a place right before acting there. Returns `None` and reports each thing if the look fails.
    fn look_again(
        &self,
        place: &Place,
        things: &BTreeMap<Key, String>,
        tell: &mut impl FnMut(Done),
    ) -> Option<Snapshot> {
        let error = match self.collector.again(place.cgroup()) {
            Ok(snapshot) => return Some(snapshot),
            Err(error) => error,
        };
        for leak in things.values() {
            let outcome = if error.kind() == Kind::Vanished {
                Outcome::Gone("its cgroup has been removed".to_owned())
            } else {
                Outcome::Failed(Failure::Call(error.clone()))
            };
            tell(Done { leak: leak.clone(), step: None, outcome });
        }
        None
    }
}

/// Tells whether to stop with a leak. After a refused step `clean` still removes the leak's pins.
fn is_failed(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Failed(_))
}

/// A cgroup, or no place, which sorts last.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Cgroup(PathBuf),
    Nowhere,
}

impl Place {
    fn of(cgroup: Option<PathBuf>) -> Self {
        cgroup.map_or(Self::Nowhere, Self::Cgroup)
    }

    fn cgroup(&self) -> Option<&Path> {
        match self {
            Self::Cgroup(path) => Some(path),
            Self::Nowhere => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::iter;

    use super::*;
    use kernel::ProgramId;

    use crate::actions::{Action, Obstacle, Premise};
    use crate::facts::Object;
    use crate::judge::Finding;

    /// Takes three steps against one thing. The step at `at` has the given outcome, and the others work. Returns the
    /// reported steps, after checking that they are the steps taken.
    fn taken(at: usize, outcome: &Outcome, ends: fn(&Outcome) -> bool) -> Vec<(usize, Outcome)> {
        let step = |number: usize| Step {
            finding: Finding::Unowned,
            program: None,
            premise: Premise::Unowned,
            action: Action::Unpin {
                path: number.to_string().into(),
                object: Object::Program(ProgramId(41)),
            },
            remains: None,
        };
        let number = |step: &Step| match &step.action {
            Action::Unpin { path, .. } => path.to_str().unwrap().parse::<usize>().unwrap(),
            other => panic!("{other:?}"),
        };
        let (taken, mut told) = (RefCell::new(Vec::new()), Vec::new());
        let take = |step: &Step| {
            taken.borrow_mut().push(number(step));
            if number(step) == at { outcome.clone() } else { Outcome::Removed }
        };
        let steps = (0..3).map(step).collect();
        take_each(iter::once(("it".to_owned(), steps)), ends, take, &mut |done| {
            assert_eq!(done.leak, "it");
            told.push((number(&done.step.unwrap()), done.outcome));
        });
        assert_eq!(taken.into_inner(), told.iter().map(|(number, _)| *number).collect::<Vec<_>>());
        told
    }

    #[test]
    fn after_what_failed_or_by_force_was_refused_nothing_more_is_done_to_the_same_thing() {
        let why = || "why".to_owned();
        for (outcome, ends_leak, ends_forced) in [
            (Outcome::Removed, false, false),
            (Outcome::Gone(why()), false, false),
            (Outcome::Left(Obstacle::OutOfReach), false, true),
            (Outcome::Failed(Failure::StillThere), true, true),
            (Outcome::Failed(Failure::Changed(why())), true, true),
        ] {
            for at in 0..3 {
                for (ends, is_over) in
                    [(is_failed as fn(&Outcome) -> bool, ends_leak), (forced::is_over, ends_forced)]
                {
                    let count = if is_over { at + 1 } else { 3 };
                    let outcome_of =
                        |number| if number == at { outcome.clone() } else { Outcome::Removed };
                    let expected: Vec<_> = (0..count).map(|it| (it, outcome_of(it))).collect();
                    assert_eq!(taken(at, &outcome, ends), expected, "{outcome:?}");
                }
            }
        }
    }
}
