//! Checks whether a limit covers what its processes send and receive. It looks when the limit is armed. It warns again
//! if more traffic bypasses the limit than passes through it.

mod judge;
mod tally;
mod words;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use bpf::advice::explained;
use kernel::CgroupId;
use kernel::cgroup::{self, Cgroup, ROOT_CGROUP_ID, cgroup2_mount};
use kernel::error::{Call, Kind};
use kernel::sockets::{Open, OpenFile, Sockets};
use throttle_core::{Direction, Removed};

use self::judge::{Past, is_outside, judge};
use self::tally::{Missed, Tally};
use self::words::{About, Home, Place};
use crate::words::warn;

/// Watches the sockets of a limited cgroup's processes.
#[derive(Debug)]
pub(crate) struct Watch {
    cgroup: PathBuf,
    /// The process that the user named.
    first: Option<u32>,
    seen: Seen,
    looking: Option<Looking>,
}

/// What was seen across all cgroups that had the path.
#[derive(Debug, Default)]
struct Seen {
    tally: Tally,
    /// Sockets of other cgroups that have no byte counters.
    uncounted: BTreeSet<u64>,
}

/// The state of looking at one cgroup. `None` stands in its place if looking is impossible.
#[derive(Debug)]
struct Looking {
    sockets: Sockets,
    past: Past,
    next: Instant,
    /// The topics that were reported already.
    told: BTreeSet<About>,
    /// The user knows that more traffic bypasses the limit than passes through it.
    has_told: bool,
}

impl Watch {
    /// Looks for the first time, right after the limit was armed, and prints what the limit does not cover. `first` is
    /// the process that the user named.
    pub(crate) fn start(cgroup: &Path, first: Option<u32>) -> Self {
        let (cgroup, seen) = (cgroup.to_owned(), Seen::default());
        let mut watch = Self { cgroup, first, seen, looking: None };
        watch.begin();
        watch
    }

    /// Looks at the next cgroup that has the path. What bypassed the limit before still counts.
    pub(crate) fn start_again(&mut self) {
        self.first = None;
        self.looking = None;
        self.begin();
    }

    fn begin(&mut self) {
        let Self { cgroup, first, seen, .. } = self;
        let looking = Cgroup::open(cgroup).and_then(|open| {
            let sockets = Sockets::load(&open)?;
            let is_blind = sockets.is_blind()?;
            let mut looking = Looking {
                sockets,
                past: Past::default(),
                next: Instant::now(),
                told: BTreeSet::new(),
                has_told: false,
            };
            looking.look(seen)?;
            Ok((looking, is_blind))
        });
        match looking {
            Ok((mut looking, is_blind)) => {
                looking.tell(cgroup, *first);
                if is_blind {
                    warn(
                        "some processes of the cgroup are outside of this pid namespace: whether all of their sockets \
                         are limited is unknown",
                    );
                }
                self.looking = Some(looking);
            }
            // The cgroup has disappeared. `follow` reports that.
            Err(error) if error.call() == Call::OpenCgroup && error.kind() == Kind::Vanished => {}
            Err(error) => warn(&format!(
                "whether the sockets of its processes belong to this cgroup is unknown, and those of other cgroups are \
                 not limited: {}",
                explained(&error)
            )),
        }
    }

    /// Looks again if it is time to, and prints what is new. It warns once if more traffic bypassed the limit than
    /// passed through it. `total` is what the limit has counted so far.
    pub(crate) fn look(&mut self, total: &Removed) {
        let Some(looking) = self.looking.as_mut().filter(|it| it.next <= Instant::now()) else {
            return;
        };
        if let Err(error) = looking.look(&mut self.seen) {
            warn(&format!(
                "whether anything goes past this limit cannot be seen any more: {error}"
            ));
            self.looking = None;
            return;
        }
        looking.tell(&self.cgroup, self.first);
        if looking.has_told {
            return;
        }
        let counted = counted_by(total);
        let finder = Finder::new();
        let directions: Vec<_> = counted.iter().map(|(direction, _)| *direction).collect();
        let missed = self.seen.tally.missed(&directions);
        let told = words::while_waiting(&counted, &missed, self.first, |id| finder.place(id));
        if let Some(told) = told {
            warn(&told);
            looking.has_told = true;
        }
    }

    /// Looks for the last time, before the limit is removed.
    pub(crate) fn finish(&mut self) {
        if let Some(looking) = &mut self.looking
            && let Err(error) = looking.look(&mut self.seen)
        {
            warn(&format!("what went past this limit in the end cannot be seen: {error}"));
        }
    }

    /// Tells whether all traffic known in these directions bypassed the limit.
    pub(crate) fn has_held_nothing(&self, removed: &Removed) -> bool {
        is_nothing(&counted_by(removed)) && self.missed(removed).is_any()
    }

    /// Returns the lines of the summary about bypassing traffic, or an empty string.
    pub(crate) fn summary(&self, removed: &Removed) -> String {
        let finder = Finder::new();
        let text = words::at_the_end(&self.missed(removed), |id| finder.place(id));
        if let Some(looking) = &self.looking
            && text.is_empty()
            && is_nothing(&counted_by(removed))
        {
            return words::unknown_at_the_end(&looking.told, self.seen.uncounted.len());
        }
        text
    }

    fn missed(&self, removed: &Removed) -> Missed {
        let directions: Vec<_> = removed.directions.keys().copied().collect();
        self.seen.tally.missed(&directions)
    }
}

impl Looking {
    /// Prints what is new.
    fn tell(&mut self, cgroup: &Path, first: Option<u32>) {
        let finder = Finder::new();
        let home = |pid| finder.home(pid, cgroup);
        let said = words::all(&self.past, first, |id| finder.place(id), home);
        for line in words::news(said, &mut self.told) {
            warn(&line);
        }
    }

    fn look(&mut self, seen: &mut Seen) -> kernel::Result<()> {
        let begin = Instant::now();
        let files = self.sockets.look()?;
        seen.tally.note(&files);
        seen.uncounted.extend(files.iter().filter_map(counts_nothing));
        self.past = judge(&files);
        let pause = seen.tally.pause(begin.elapsed(), !self.past.outside.is_empty());
        self.next = Instant::now() + pause;
        Ok(())
    }
}

/// Returns the inode of another cgroup's socket, if the socket has no byte counters.
fn counts_nothing(file: &OpenFile) -> Option<u64> {
    match &file.what {
        Open::Socket(it) if is_outside(it) && it.traffic.is_none() => Some(it.inode),
        _ => None,
    }
}

/// Returns the bytes that a limit has counted, for each direction where that is known.
fn counted_by(total: &Removed) -> Vec<(Direction, u64)> {
    let counted = total.directions.iter().filter_map(|(direction, detached)| {
        let counters = detached.counters.as_ref().ok()?.as_ref()?;
        Some((*direction, counters.seen().bytes))
    });
    counted.collect()
}

/// Tells whether it is known that the limit counted nothing.
fn is_nothing(counted: &[(Direction, u64)]) -> bool {
    !counted.is_empty() && counted.iter().all(|(_, bytes)| *bytes == 0)
}

/// Finds cgroups by their ids, and the cgroups of processes.
struct Finder {
    mount: Option<(PathBuf, Cgroup)>,
}

impl Finder {
    fn new() -> Self {
        let mount = cgroup2_mount().and_then(|path| Ok((path.clone(), Cgroup::open(&path)?)));
        Self { mount: mount.ok() }
    }

    fn place(&self, id: CgroupId) -> Place {
        if id == ROOT_CGROUP_ID {
            return Place::Root;
        }
        let Some((path, mount)) = &self.mount else { return Place::Hidden };
        match Cgroup::open_by_id(mount, id) {
            Ok(found) => match found.path().strip_prefix(path) {
                Ok(below) => Place::At(Path::new("/").join(below)),
                Err(_) => Place::Hidden,
            },
            Err(error) if error.kind() == Kind::Vanished => Place::Removed,
            Err(_) => Place::Hidden,
        }
    }

    fn home(&self, pid: u32, limited: &Path) -> Option<Home> {
        let (mount, _) = self.mount.as_ref()?;
        let path = cgroup::of_process(pid).ok()?;
        let folder = cgroup::below(mount, &path);
        Some(Home { is_below: folder != limited && folder.starts_with(limited), path })
    }
}

#[cfg(test)]
mod tests {
    use bpf::state::{Count, Counters};
    use kernel::error::Error;
    use nix::errno::Errno;
    use throttle_core::Detached;

    use super::judge::tests::{open, outside, socket};
    use super::*;

    type Read = kernel::Result<Option<Counters>>;

    /// Creates counters that each hold this many bytes.
    fn counters(bytes: u64) -> Counters {
        let count = Count { packets: 1, bytes };
        Counters { passed: count, dropped: count, held_back: count, exempt: count }
    }

    fn total(download: Read, upload: Read) -> Removed {
        let directions = Direction::BOTH.into_iter().zip([download, upload]);
        let detached = |counters| Detached { cgroup_vanished: false, counters };
        Removed { directions: directions.map(|(at, it)| (at, detached(it))).collect() }
    }

    #[test]
    fn nothing_was_held_only_where_every_direction_that_is_known_counted_nothing() {
        let counted = |bytes| Ok(Some(counters(bytes)));
        let unread = || Err(Error::new(Call::MapLookup, "the counters", Errno::EPERM));
        for (download, upload, known, nothing) in [
            (counted(0), counted(0), 2, true),
            (counted(5), counted(0), 2, false),
            (counted(0), counted(5), 2, false),
            (counted(0), Ok(None), 1, true),
            (unread(), counted(0), 1, true),
            (unread(), counted(5), 1, false),
            // The counts are unknown.
            (unread(), Ok(None), 0, false),
        ] {
            let of_both = counted_by(&total(download, upload));
            assert_eq!((of_both.len(), is_nothing(&of_both)), (known, nothing), "{of_both:?}");
        }
    }

    #[test]
    fn what_a_limit_has_seen_is_told_by_direction() {
        let seen = counted_by(&total(Ok(Some(counters(3))), Ok(Some(counters(5)))));
        assert!(seen[0].0 == Direction::Download && seen[1].0 == Direction::Upload, "{seen:?}");
        assert!(seen[0].1 > 0 && seen[0].1 * 5 == seen[1].1 * 3, "{seen:?}");
    }

    #[test]
    fn only_a_socket_of_another_cgroup_may_carry_what_nobody_counts() {
        let traffic = Some(kernel::sockets::Traffic::default());
        let told = |it| counts_nothing(&open(1, it));
        let uncounted = kernel::sockets::Socket { traffic: None, ..outside(10) };
        assert_eq!(told(uncounted), Some(10));
        assert_eq!(told(kernel::sockets::Socket { traffic, ..outside(11) }), None);
        assert_eq!(told(kernel::sockets::Socket { traffic: None, ..socket(12) }), None);
    }
}
