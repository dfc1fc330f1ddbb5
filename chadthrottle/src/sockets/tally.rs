//! Counts the bytes that bypassed a limit. It reads TCP's own counters of the sockets at each look.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kernel::CgroupId;
use kernel::sockets::{Open, OpenFile, Process, Traffic};
use throttle_core::Direction;

use super::judge::is_outside;

/// The longest pause between two looks.
const LONGEST: Duration = Duration::from_secs(64);

/// The pause after a look lasts at least this many times as long as the look, up to [`LONGEST`].
const SHARE: u32 = 50;

/// What the looks have found so far.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    sockets: BTreeMap<u64, Counted>,
    /// Processes seen at an earlier look.
    known: BTreeSet<u32>,
    looks: u32,
}

#[derive(Debug)]
struct Counted {
    first: Traffic,
    last: Traffic,
    process: Process,
    cgroup: CgroupId,
}

/// What bypassed the limit.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Missed {
    /// A lower bound, because the bytes that a socket carried after its last look are unknown.
    pub(crate) traffic: Traffic,
    pub(crate) processes: BTreeSet<Process>,
    pub(crate) cgroups: BTreeSet<CgroupId>,
}

impl Missed {
    /// Tells whether anything bypassed the limit.
    pub(crate) fn is_any(&self) -> bool {
        self.traffic != Traffic::default()
    }
}

impl Tally {
    /// Adds a look. It counts a socket from its first byte if its process was known before the socket appeared.
    /// Otherwise it counts from this look on, because the process may have brought the socket along.
    pub(crate) fn note(&mut self, files: &[OpenFile]) {
        for file in files {
            let Open::Socket(socket) = &file.what else { continue };
            let Some(now) = socket.traffic.filter(|_| is_outside(socket)) else { continue };
            let came_since = self.known.contains(&file.process.pid);
            let first = if came_since { Traffic::default() } else { now };
            let counted = self.sockets.entry(socket.inode).or_insert_with(|| Counted {
                first,
                last: first,
                process: file.process.clone(),
                cgroup: socket.cgroup,
            });
            counted.last = now;
        }
        self.known.extend(files.iter().map(|file| file.process.pid));
        self.looks = self.looks.saturating_add(1);
    }

    /// Returns what bypassed the limit in these directions since the first look.
    pub(crate) fn missed(&self, directions: &[Direction]) -> Missed {
        let mut missed = Missed::default();
        let since = |direction, now: u64, first: u64| {
            if directions.contains(&direction) { now.saturating_sub(first) } else { 0 }
        };
        for it in self.sockets.values() {
            let sent = since(Direction::Upload, it.last.sent, it.first.sent);
            let received = since(Direction::Download, it.last.received, it.first.received);
            if sent > 0 || received > 0 {
                missed.traffic.sent = missed.traffic.sent.saturating_add(sent);
                missed.traffic.received = missed.traffic.received.saturating_add(received);
                missed.processes.insert(it.process.clone());
                missed.cgroups.insert(it.cgroup);
            }
        }
        missed
    }

    /// Returns the pause after a look that took this long. It stays short if there are sockets of other cgroups,
    /// because bytes of a socket that closes between two looks are lost. Otherwise it doubles each time, up to
    /// [`LONGEST`].
    pub(crate) fn pause(&self, took: Duration, is_any_outside: bool) -> Duration {
        let doublings = if is_any_outside { 0 } else { self.looks.saturating_sub(1).min(6) };
        let pause = Duration::from_secs(1 << doublings);
        pause.max(took.saturating_mul(SHARE)).min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use kernel::sockets::Socket;

    use super::super::judge::tests::{ELSEWHERE, open, outside, process, socket};
    use super::*;

    fn with(socket: Socket, sent: u64, received: u64) -> Socket {
        Socket { traffic: Some(Traffic { sent, received }), ..socket }
    }

    #[test]
    fn what_goes_through_sockets_of_other_cgroups_is_counted_from_the_first_look_on() {
        let mut tally = Tally::default();
        tally.note(&[open(1, with(outside(10), 100, 7)), open(1, with(socket(11), 5, 5))]);
        assert_eq!(tally.missed(&Direction::BOTH), Missed::default());
        tally.note(&[open(1, with(outside(10), 350, 7)), open(1, with(socket(11), 900, 900))]);
        let expected = Missed {
            traffic: Traffic { sent: 250, received: 0 },
            processes: [process(1)].into(),
            cgroups: [ELSEWHERE].into(),
        };
        assert_eq!(tally.missed(&Direction::BOTH), expected);
    }

    #[test]
    fn a_socket_that_was_closed_keeps_what_was_seen_of_it() {
        let mut tally = Tally::default();
        tally.note(&[open(1, with(outside(10), 0, 0))]);
        tally.note(&[open(1, with(outside(10), 40, 2))]);
        tally.note(&[]);
        assert_eq!(tally.missed(&Direction::BOTH).traffic, Traffic { sent: 40, received: 2 });
        let download = tally.missed(&[Direction::Download]);
        assert_eq!(download.traffic, Traffic { sent: 0, received: 2 });
        assert_eq!(tally.missed(&[]), Missed::default());
    }

    #[test]
    fn a_new_socket_counts_from_its_beginning_unless_its_process_is_new_as_well() {
        let mut tally = Tally::default();
        tally.note(&[open(1, socket(10))]);
        tally.note(&[open(1, with(outside(11), 30, 0)), open(2, with(outside(12), 5_000, 0))]);
        assert_eq!(tally.missed(&Direction::BOTH).traffic.sent, 30);
        tally.note(&[open(2, with(outside(12), 5_001, 0)), open(2, with(outside(13), 8, 0))]);
        assert_eq!(tally.missed(&Direction::BOTH).traffic.sent, 39);
    }

    #[test]
    fn of_several_sockets_all_that_they_carried_counts_and_all_who_have_them_are_named() {
        let mut tally = Tally::default();
        for sent in [0, 10, 25, 40] {
            let sockets = [(1, 10), (2, 11), (2, 12)];
            let file = |(pid, inode)| open(pid, with(outside(inode), sent, 2 * sent));
            tally.note(&sockets.map(file));
        }
        tally.note(&[open(3, with(outside(13), 7, 7))]);
        let expected = Missed {
            traffic: Traffic { sent: 120, received: 240 },
            processes: [process(1), process(2)].into(),
            cgroups: [ELSEWHERE].into(),
        };
        assert_eq!(tally.missed(&Direction::BOTH), expected);
    }

    #[test]
    fn a_socket_that_several_processes_have_counts_once() {
        let mut tally = Tally::default();
        for sent in [0, 10] {
            tally.note(&[1, 2].map(|pid| open(pid, with(outside(10), sent, 0))));
        }
        assert_eq!(tally.missed(&Direction::BOTH).traffic.sent, 10);
    }

    #[test]
    fn looks_are_seldom_where_nothing_is_outside_and_never_take_much_of_the_time() {
        let mut tally = Tally::default();
        let ms = Duration::from_millis;
        let mut pauses = Vec::new();
        for _ in 0..9 {
            tally.note(&[]);
            pauses.push(tally.pause(ms(1), false).as_secs());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 64, 64]);
        assert_eq!(tally.pause(ms(1), true), ms(1_000));
        assert_eq!(tally.pause(ms(100), true), ms(5_000));
        assert_eq!(tally.pause(ms(10_000), true), LONGEST);
    }
}
