//! Records whether a limit held for as long as its cgroup existed, and what the user was told.

use anyhow::Error;
use terminal::exit::not_done;

/// The state of one limit across the cgroups that have had its path.
#[derive(Debug, Default)]
pub(crate) struct Course {
    /// Why the current cgroup cannot be limited.
    refused: Option<String>,
    /// An earlier cgroup at the path stayed unlimited for a while.
    has_failed: bool,
    /// The user was told that somebody detached programs of the current throttle.
    told_of_packets: bool,
    told_of_tcp: bool,
    /// Why the last attempt to look at the queue or to close it failed.
    queue_failed: Option<String>,
}

impl Course {
    /// Notes that the current cgroup is limited.
    pub(crate) fn armed(&mut self) {
        *self = Self { has_failed: self.has_failed, ..Self::default() };
    }

    /// Notes that no cgroup has the path.
    pub(crate) fn gone(&mut self) {
        self.refused = None;
    }

    /// Notes that the current cgroup cannot be limited. Each look tries again. Returns whether to tell the user why.
    pub(crate) fn refused(&mut self, why: &str) -> bool {
        // A cgroup that disappears while the throttle is armed is refused once. That is no failure.
        self.has_failed |= self.refused.is_some();
        let is_new = self.refused.as_deref() != Some(why);
        self.refused = Some(why.to_owned());
        is_new
    }

    /// Notes that somebody detached a program that limits. Returns whether to tell the user.
    pub(crate) fn lost_packets(&mut self) -> bool {
        self.has_failed = true;
        !std::mem::replace(&mut self.told_of_packets, true)
    }

    /// Notes that somebody detached the program that shapes TCP. The limit still holds, because it drops packets above
    /// the rate. Returns whether to tell the user.
    pub(crate) fn lost_tcp(&mut self) -> bool {
        !std::mem::replace(&mut self.told_of_tcp, true)
    }

    /// Notes that the queue works or is closed.
    pub(crate) fn queue_is_well(&mut self) {
        self.queue_failed = None;
    }

    /// Notes that looking at the queue or closing it failed. Each look tries again. Returns whether to tell the user
    /// why.
    pub(crate) fn queue_failed(&mut self, why: &str) -> bool {
        let is_new = self.queue_failed.as_deref() != Some(why);
        self.queue_failed = Some(why.to_owned());
        is_new
    }

    /// Returns why the limit fell short of the request, if it did.
    pub(crate) fn short(&self) -> Option<Error> {
        let not_always = || not_done("the limit did not hold all the time").into();
        (self.has_failed || self.refused.is_some()).then(not_always)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, Copy)]
    enum Event {
        Armed,
        Gone,
        Refused(&'static str),
        LostPackets,
        LostTcp,
        QueueIsWell,
        QueueFailed(&'static str),
    }
    use Event::{Armed, Gone, LostPackets, LostTcp, QueueFailed, QueueIsWell, Refused};

    /// Returns whether each event is told, and whether the limit ever failed to hold.
    fn run(events: &[Event]) -> (Vec<bool>, bool) {
        let mut course = Course::default();
        let told = events.iter().map(|event| match event {
            Armed => {
                course.armed();
                false
            }
            Gone => {
                course.gone();
                false
            }
            Refused(why) => course.refused(why),
            LostPackets => course.lost_packets(),
            LostTcp => course.lost_tcp(),
            QueueIsWell => {
                course.queue_is_well();
                false
            }
            QueueFailed(why) => course.queue_failed(why),
        });
        let told = told.collect();
        (told, course.short().is_some())
    }

    #[test]
    fn a_limit_that_was_off_for_a_while_did_not_hold_all_the_time_whatever_came_later() {
        let more: [&[Event]; 5] = [
            &[],
            &[Armed],
            &[Gone],
            &[QueueFailed("a"), Gone],
            &[Armed, Gone, Armed, LostTcp, Armed],
        ];
        let failed: [&[Event]; 4] = [
            &[Refused("a"), Refused("a")],
            &[Refused("a"), Refused("b")],
            &[LostPackets],
            &[Armed, LostTcp, LostPackets, Refused("a")],
        ];
        for later in more {
            for failed in failed {
                for before in more {
                    let events = [before, failed, later].concat();
                    assert!(run(&events).1, "{events:?}");
                }
            }
            assert!(!run(later).1, "{later:?}");
            // The cgroup disappeared while the throttle was being armed.
            let events = [later, &[Refused("a"), Gone], later].concat();
            assert!(!run(&events).1, "{events:?}");
            let events = [later, &[Refused("a"), Armed], later].concat();
            assert!(!run(&events).1, "{events:?}");
            let events = [later, &[Refused("a")]].concat();
            assert!(run(&events).1, "it ends so: {events:?}");
        }
        let short = Course { has_failed: true, ..Course::default() }.short().unwrap();
        assert_eq!(crate::words::exit_status(&short), 1);
    }

    #[test]
    fn what_is_not_new_of_a_throttle_is_not_told_again_and_of_the_next_one_it_is() {
        let told = |events: &[Event]| run(events).0;
        assert_eq!(told(&[Refused("a"), Refused("a"), Refused("b")]), [true, false, true]);
        assert_eq!(told(&[Refused("a"), Gone, Refused("a")]), [true, false, true]);
        assert_eq!(told(&[Refused("a"), Armed, Refused("a")]), [true, false, true]);
        assert_eq!(told(&[LostTcp, LostPackets, LostTcp]), [true, true, false]);
        let (failed, other) = (QueueFailed("a"), QueueFailed("b"));
        assert_eq!(told(&[failed, failed, other, failed]), [true, false, true, true]);
        assert_eq!(told(&[failed, QueueIsWell, failed]), [true, false, true]);
        assert_eq!(told(&[failed, Armed, failed]), [true, false, true]);
        for lost in [LostTcp, LostPackets] {
            assert_eq!(told(&[lost, lost, Gone, lost]), [true, false, false, false]);
            assert_eq!(told(&[lost, Armed, lost]), [true, false, true]);
        }
    }
}
