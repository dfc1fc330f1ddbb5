//! Adds up what all throttles of one limit have counted. Each cgroup that had the path has its own counters, which
//! disappear with the cgroup.

use std::collections::BTreeMap;

use bpf::CgroupBpf;
use bpf::state::Counters;
use throttle_core::{
    Detached, Direction, Engine, Error, Removed, Result, ThrottleId, ThrottleStatus,
};

/// The last known counters of each throttle.
#[derive(Debug, Default)]
pub(crate) struct Sum {
    read: BTreeMap<(Direction, ThrottleId), kernel::Result<Option<Counters>>>,
}

impl Sum {
    /// Notes what a throttle has counted so far. Counts that were read stay when the counters disappear.
    pub(crate) fn note(&mut self, status: &ThrottleStatus) {
        for it in &status.directions {
            if let Ok(Some(counters)) = &it.counters {
                self.read.insert((it.direction, status.id), Ok(Some(*counters)));
            }
        }
    }

    /// Notes what a throttle had counted when it was removed.
    pub(crate) fn end(&mut self, id: ThrottleId, removed: &Removed) {
        for (direction, detached) in &removed.directions {
            let known = self.read.entry((*direction, id)).or_insert(Ok(None));
            if !matches!((&known, &detached.counters), (Ok(Some(_)), Ok(None) | Err(_))) {
                known.clone_from(&detached.counters);
            }
        }
    }

    /// Removes these throttles and notes what each had counted. A failure does not stop it.
    ///
    /// # Errors
    /// Returns the errors of all throttles that could not be removed.
    pub(crate) fn end_all<B: CgroupBpf>(
        &mut self,
        engine: &mut Engine<B>,
        ids: impl Iterator<Item = ThrottleId>,
    ) -> Result<()> {
        let mut errors = Vec::new();
        for id in ids {
            match engine.remove(id) {
                Ok(removed) => self.end(id, &removed),
                Err(error) => errors.push(error),
            }
        }
        Error::collect(errors)
    }

    /// Returns the sum, as if it came from one throttle.
    pub(crate) fn total(&self) -> Removed {
        let mut directions: BTreeMap<Direction, Detached> = BTreeMap::new();
        for ((direction, _), read) in &self.read {
            let nothing = Detached { cgroup_vanished: false, counters: Ok(None) };
            let total = directions.entry(*direction).or_insert(nothing);
            match (&mut total.counters, read) {
                (Ok(Some(total)), Ok(Some(more))) => *total = *total + *more,
                // A known count stands even if another one is unknown.
                (Ok(Some(_)), _) | (Err(_), Ok(None)) => {}
                (unknown, read) => unknown.clone_from(read),
            }
        }
        Removed { directions }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::rc::Rc;

    use bpf::Owner;
    use bpf::limits::{Burst, FqDevices, Traffic};
    use bpf::state::Count;
    use kernel::Error;
    use kernel::error::Call;
    use nix::errno::Errno;
    use sim::{Model, Version, World};
    use throttle_core::ledger::LedgerDir;
    use throttle_core::mode::{TcpWish, Wish};
    use throttle_core::{Config, Spec};
    use vmtests::sequences::faulty::{Control, Faulty};
    use vmtests::sequences::memory::MemoryFiles;
    use vmtests::sequences::step::{Fail, Fault, Mishap};

    use super::*;

    fn passed(packets: u64) -> Counters {
        let passed = Count { packets, bytes: packets * 100 };
        Counters { passed, ..Counters::default() }
    }

    fn removed(counters: kernel::Result<Option<Counters>>) -> Removed {
        let detached = Detached { cgroup_vanished: true, counters };
        Removed { directions: [(Direction::Upload, detached)].into() }
    }

    fn total(sum: &Sum) -> kernel::Result<Option<Counters>> {
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

    fn engine(kernel: Faulty<Model>) -> Engine<Faulty<Model>> {
        let owner = Owner {
            pid: 1,
            start_time: 1,
            pid_namespace: 1,
            boot_id: "this".to_owned(),
            version: "test".to_owned(),
        };
        let ledger = LedgerDir::on(Rc::new(MemoryFiles::default()), "/run/chadthrottle");
        let pins = "/sys/fs/bpf/chadthrottle".into();
        let config = Config { ledger, pins, bpffs: true, owner, mark: 0, cgroup_namespace: 1 };
        Engine::start(kernel, config).unwrap().0
    }

    /// An upload's removal needs each of its calls, except the last one and the reads of the state.
    #[test]
    fn whichever_throttle_cannot_be_removed_the_others_are_and_count() {
        let top = Path::new("/sys/fs/cgroup/x");
        for (nth, fails) in [(2, 1), (6, 2)] {
            let kernel = Model::boot(Version::NEWEST, top, Path::new("/sys/fs/bpf/chadthrottle"));
            let control = Control::new(Box::new(|| unreachable!("nobody dies")));
            let mut engine = engine(Faulty::new(kernel.new_process(), Rc::clone(&control)));
            let sender = kernel.spawn(top).unwrap();
            let spec = Spec {
                cgroup: top.to_owned(),
                cgroup_id: None,
                download: None,
                upload: Some("1M".parse().unwrap()),
                burst: Burst::DEFAULT,
                traffic: Traffic::All,
                attach: Wish::Link,
                tcp: TcpWish::Police,
                departures: FqDevices::NONE,
                queue: false,
                displace: false,
            };
            let ids = [1, 2].map(|_| {
                let id = engine.add(&spec).unwrap().id;
                kernel.send(&sender).unwrap();
                id
            });
            control.plan(Some(Fault { nth, mishap: Mishap::Fail(Fail::EPERM) }));
            let mut sum = Sum::default();
            let error = sum.end_all(&mut engine, ids.into_iter()).unwrap_err();
            assert!(matches!(error, throttle_core::Error::Kernel(_)), "{error}");
            let left: Vec<_> = engine.list().iter().map(|status| status.id).collect();
            assert_eq!(left, [ids[fails - 1]]);
            let seen = if fails == 1 { 1 } else { 2 };
            let passed = Count { packets: seen, bytes: 100 * seen };
            assert_eq!(total(&sum), Ok(Some(Counters { passed, ..Counters::default() })));
        }
    }
}
