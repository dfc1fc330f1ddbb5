//! Removing leaks, and just those.
//!
//! A scan is out of date as soon as it is made. So each cgroup with leaks is looked at once more right
//! before anything is done there, and judged by the same rules; what is done is what that fresh judgement
//! asks for, and only to leaks that the scan had confirmed. The act itself makes sure of what it
//! touches once more, with the program open, so that its id cannot become another's.

mod act;
mod forced;
mod report;
mod steps;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bpf::error::Kind;

pub use self::act::{Failure, Outcome};
pub use self::report::{CleanOutcome, CleanReport, CleanStep, CleanSummary};
use self::steps::take_each;
use crate::classify::{Classified, Judged, Key, classify};
use crate::collect::{Collector, Options};
use crate::plan::{Step, removal, steps};
use crate::snapshot::Snapshot;

/// Removes what a scan found.
pub struct Cleaner {
    collector: Collector,
    act: act::Act,
}

/// What became of one step, or of a leak for which there is none any more.
#[derive(Debug)]
pub struct Done {
    /// What it was about, for people: the leak as the scan had it.
    pub leak: String,
    /// The step; none where the leak is no longer one.
    pub step: Option<Step>,
    /// What became of it.
    pub outcome: Outcome,
}

impl Cleaner {
    /// Finds out what the kernel can do.
    ///
    /// # Errors
    /// As [`crate::collect::collect`]; `Denied` without the rights to remove anything.
    pub fn new(options: &Options) -> anyhow::Result<Self> {
        let collector = Collector::new(options)?;
        let support = bpf::probe::support()?;
        let act = act::Act::new(collector.mount(), support);
        Ok(Self { collector, act })
    }

    /// As [`crate::collect::collect`].
    ///
    /// # Errors
    /// When the cgroup where the scope begins has gone.
    pub fn scan(&self, settle: std::time::Duration) -> anyhow::Result<Snapshot> {
        self.collector.snapshot(settle)
    }

    /// Removes the leaks that the scan confirmed and that still are leaks, and tells of each as it goes.
    /// Needs the rights of a scan, and `CAP_BPF`. Whatever fails, it goes on with the rest.
    pub fn clean(&self, scanned: &Classified<'_>, mut tell: impl FnMut(Done)) {
        // A place at a time: the fresher the look, the better. What has no place comes last; what is
        // attached nowhere can be judged only by a look at everywhere.
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
        // Below a cgroup no devices are judged.
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
    /// Looks at a place right before something is done there; none, and told, where that cannot be.
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

/// Of a leak that nobody can end from here the pins are removed all the same.
fn is_failed(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Failed(_))
}

/// A cgroup, or none, which is ordered last.
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
    use crate::classify::Finding;
    use crate::plan::{Action, Premise};

    /// Of three steps against one thing, of which one has that outcome and the others work: those that are taken, and of
    /// which somebody is told.
    fn taken(at: usize, outcome: &Outcome, ends: fn(&Outcome) -> bool) -> Vec<(usize, Outcome)> {
        let step = |number: usize| Step {
            finding: Finding::Unowned,
            program: None,
            premise: Premise::Unowned,
            action: Action::Cannot { why: number.to_string(), holders: Vec::new() },
            note: None,
        };
        let number = |step: &Step| match &step.action {
            Action::Cannot { why, .. } => why.parse::<usize>().unwrap(),
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
            (Outcome::Left(why()), false, true),
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
