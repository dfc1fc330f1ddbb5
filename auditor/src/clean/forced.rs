//! Removes something unowned because the user insists.

use std::collections::BTreeMap;

use kernel::AttachType;
use kernel::cgroup::Cgroup;
use kernel::list::ProgramList;

use super::act::Stop;
use super::steps::take_each;
use super::{Cleaner, Done, Outcome, Place};
use crate::actions::{Obstacle, forced};
use crate::judge::{Judged, Key, classify};

impl Cleaner {
    /// Removes the chosen unowned programs, unless they have changed since, and reports each step. Continues after
    /// failures. At one place it starts with the program that was attached first.
    pub fn force(&self, chosen: &[&Judged<'_>], mut tell: impl FnMut(Done)) {
        let mut places: BTreeMap<Place, BTreeMap<Key, String>> = BTreeMap::new();
        for judged in chosen {
            let cgroup = judged.place.map(|place| place.cgroup.clone());
            places.entry(Place::of(cgroup)).or_default().insert(judged.key(), judged.to_string());
        }
        for (place, chosen) in places {
            self.force_place(&place, chosen, &mut tell);
        }
    }

    fn force_place(
        &self,
        place: &Place,
        mut chosen: BTreeMap<Key, String>,
        tell: &mut impl FnMut(Done),
    ) {
        let Some(snapshot) = self.look_again(place, &chosen, tell) else { return };
        let fresh = classify(&snapshot);
        let is_here = |judged: &&Judged<'_>| judged.place.is_some() == place.cgroup().is_some();
        let still = fresh.unowned().filter(is_here).filter_map(|judged| {
            chosen.remove(&judged.key()).map(|name| (name, forced(judged, &fresh)))
        });
        take_each(still, is_over, |step| self.act.take(step), tell);
        for leak in chosen.into_values() {
            let why = "it has gone, or is not what it was: left alone".to_owned();
            tell(Done { leak, step: None, outcome: Outcome::Gone(why) });
        }
    }
}

/// Tells whether to stop with a thing. A refused step must not lead to the removal of the thing's pin.
pub(super) fn is_over(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Failed(_) | Outcome::Left(_))
}

/// Allows a program to go if others stay at its place, or if the cgroup and its descendants have no processes to guard.
pub(super) fn may_go(
    cgroup: &Cgroup,
    attach_type: AttachType,
    list: &ProgramList,
) -> Result<(), Stop> {
    match guards(attach_type, list.programs.len()) {
        Some(obstacle) if cgroup.is_populated()? => Err(Stop::Left(obstacle)),
        _ => Ok(()),
    }
}

/// Says why one of that many programs at a place may be what guards it; `None` if others guard it as well.
fn guards(attach_type: AttachType, count: usize) -> Option<Obstacle> {
    match (attach_type == AttachType::LSM, count) {
        // Each hook has its own list, but the kernel reports them as one.
        (true, _) => Some(Obstacle::MayBeLastOnHook),
        (false, 0 | 1) => Some(Obstacle::LastProgram),
        (false, _) => None,
    }
}

#[cfg(test)]
#[path = "forced_tests.rs"]
mod tests;
