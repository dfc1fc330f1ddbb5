//! Removing something unowned, because somebody insists on it.

use std::collections::BTreeMap;

use bpf::AttachType;
use bpf::cgroup::Cgroup;
use bpf::list::ProgramList;

use super::act::Stop;
use super::steps::take_each;
use super::{Cleaner, Done, Outcome, Place};
use crate::classify::{Judged, Key, classify};
use crate::plan::forced;

impl Cleaner {
    /// Removes what is unowned and was chosen, if it is still that, and tells of each step as it goes. Whatever
    /// fails, it goes on with the rest. At one place it begins with what was attached first.
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

/// What was refused stays as it is: without its pin it would go.
pub(super) fn is_over(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Failed(_) | Outcome::Left(_))
}

/// The program may go: others stay at its place, or nobody is in the cgroup, or below it, for them to guard.
pub(super) fn may_go(
    cgroup: &Cgroup,
    attach_type: AttachType,
    list: &ProgramList,
) -> Result<(), Stop> {
    let Some(why) = guards(attach_type, list.programs.len()) else { return Ok(()) };
    if cgroup.is_populated()? {
        return Err(Stop::Left(format!(
            "{why}, and the cgroup has processes, which it may guard: end them first, or remove it with the tool \
             that made it"
        )));
    }
    Ok(())
}

/// Why one of so many programs at a place may be what guards it; none where others do.
fn guards(attach_type: AttachType, count: usize) -> Option<&'static str> {
    match (attach_type == AttachType::LSM, count) {
        // Each hook has a list of its own, and the kernel gives them as one.
        (true, _) => Some("whether another program is on its hook cannot be told"),
        (false, 0 | 1) => Some("it is the last program at this place"),
        (false, _) => None,
    }
}

#[cfg(test)]
#[path = "forced_tests.rs"]
mod tests;
