//! What all throttles of one limit have counted: each cgroup that had the path has counters of its own, which go with it.

use std::collections::BTreeMap;

use bpf::state::Counters;
use throttle_core::{Detached, Direction, Removed, ThrottleId, ThrottleStatus};

/// What each throttle has counted, as far as it was read.
#[derive(Debug, Default)]
pub(crate) struct Sum {
    read: BTreeMap<(Direction, ThrottleId), bpf::Result<Option<Counters>>>,
}

impl Sum {
    /// Takes note of what a throttle has counted so far. What was read stays when the counters go.
    pub(crate) fn note(&mut self, status: &ThrottleStatus) {
        for it in &status.directions {
            if let Ok(Some(counters)) = &it.counters {
                self.read.insert((it.direction, status.id), Ok(Some(*counters)));
            }
        }
    }

    /// Takes note of what a throttle had counted when it was removed.
    pub(crate) fn end(&mut self, id: ThrottleId, removed: &Removed) {
        for (direction, detached) in &removed.directions {
            let known = self.read.entry((*direction, id)).or_insert(Ok(None));
            if !matches!((&known, &detached.counters), (Ok(Some(_)), Ok(None) | Err(_))) {
                known.clone_from(&detached.counters);
            }
        }
    }

    /// All of it, as if it were one throttle's.
    pub(crate) fn total(&self) -> Removed {
        let mut directions: BTreeMap<Direction, Detached> = BTreeMap::new();
        for ((direction, _), read) in &self.read {
            let nothing = Detached { cgroup_vanished: false, counters: Ok(None) };
            let total = directions.entry(*direction).or_insert(nothing);
            match (&mut total.counters, read) {
                (Ok(Some(total)), Ok(Some(more))) => *total = *total + *more,
                // What is known counts, beside what is not.
                (Ok(Some(_)), _) | (Err(_), Ok(None)) => {}
                (unknown, read) => unknown.clone_from(read),
            }
        }
        Removed { directions }
    }
}

#[cfg(test)]
mod tests {
    use bpf::error::{Call, Error};
    use bpf::state::Count;
    use nix::errno::Errno;

    use super::*;

    fn passed(packets: u64) -> Counters {
        let passed = Count { packets, bytes: packets * 100 };
        Counters { passed, ..Counters::default() }
    }

    fn removed(counters: bpf::Result<Option<Counters>>) -> Removed {
        let detached = Detached { cgroup_vanished: true, counters };
        Removed { directions: [(Direction::Upload, detached)].into() }
    }

    fn total(sum: &Sum) -> bpf::Result<Option<Counters>> {
        sum.total().directions[&Direction::Upload].counters.clone()
    }

    #[test]
    fn what_all_throttles_have_counted_is_added() {
        let mut sum = Sum::default();
        for (id, packets) in [(1, 3), (2, 4)] {
            sum.end(ThrottleId(id), &removed(Ok(Some(passed(packets)))));
        }
        assert_eq!(total(&sum), Ok(Some(passed(7))));
        assert_eq!(sum.total().directions.len(), 1);
    }

    #[test]
    fn what_was_read_before_the_counters_went_counts_and_the_last_reading_alone() {
        let mut sum = Sum::default();
        let failed = Error::new(Call::MapLookup, "the counters", Errno::ENOMEM);
        sum.end(ThrottleId(1), &removed(Ok(Some(passed(3)))));
        sum.end(ThrottleId(1), &removed(Ok(Some(passed(5)))));
        sum.end(ThrottleId(1), &removed(Ok(None)));
        sum.end(ThrottleId(1), &removed(Err(failed.clone())));
        assert_eq!(total(&sum), Ok(Some(passed(5))));
        sum.end(ThrottleId(2), &removed(Err(failed.clone())));
        sum.end(ThrottleId(3), &removed(Ok(None)));
        assert_eq!(total(&sum), Ok(Some(passed(5))));
        let mut sum = Sum::default();
        sum.end(ThrottleId(1), &removed(Ok(None)));
        assert_eq!(total(&sum), Ok(None));
        sum.end(ThrottleId(2), &removed(Err(failed.clone())));
        assert_eq!(total(&sum), Err(failed));
    }
}
