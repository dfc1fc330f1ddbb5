//! A throttle whose cgroup was removed, until nothing of it is left.

use std::time::{Duration, Instant};

use throttle_core::{Result, ThrottleId};

/// The kernel takes a moment to let go of a removed cgroup's programs, also if there is no socket.
const MOMENT: Duration = Duration::from_millis(50);

/// What is still open after this time is so because sockets are.
const OLD: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Former {
    pub(crate) id: ThrottleId,
    removed_at: Instant,
    /// It is said why it is still there.
    is_told: bool,
}

impl Former {
    /// It was seen just now that the cgroup was removed.
    pub(crate) fn new(id: ThrottleId) -> Self {
        Self { id, removed_at: Instant::now(), is_told: false }
    }

    /// It is too early to ask whether the kernel has let go of it.
    pub(crate) fn is_fresh(&self) -> bool {
        is_fresh(self.removed_at.elapsed())
    }

    /// Whether it is known why it is still there.
    pub(crate) fn is_told(&self) -> bool {
        self.is_told
    }

    /// What to say of a look at it, once. `looked`: whether sockets are still open; nothing if it has gone.
    pub(crate) fn news(&mut self, looked: &Result<Option<bool>>) -> Option<String> {
        self.news_after(looked, self.removed_at.elapsed())
    }

    fn news_after(&mut self, looked: &Result<Option<bool>>, after: Duration) -> Option<String> {
        let news = match looked {
            Ok(Some(true)) if after > OLD => {
                "sockets that were made in the removed cgroup are still open: they stay limited"
                    .to_owned()
            }
            Err(error) => format!("the throttle of the removed cgroup: {error}"),
            Ok(_) => return None,
        };
        (!std::mem::replace(&mut self.is_told, true)).then_some(news)
    }
}

fn is_fresh(after: Duration) -> bool {
    after < MOMENT
}

#[cfg(test)]
mod tests {
    use throttle_core::Error;

    use super::*;

    /// What is said of three such looks, one after the other.
    fn said(looked: impl Fn() -> Result<Option<bool>>, after: Duration) -> Vec<Option<String>> {
        let mut former = Former::new(ThrottleId(1));
        (0..3).map(|_| former.news_after(&looked(), after)).collect()
    }

    #[test]
    fn the_kernel_has_a_moment_before_it_is_asked() {
        let fresh = [Duration::ZERO, MOMENT / 2, MOMENT, OLD].map(is_fresh);
        assert_eq!(fresh, [true, true, false, false]);
        let removed_at = Instant::now().checked_sub(MOMENT).unwrap();
        assert!(!Former { removed_at, ..Former::new(ThrottleId(1)) }.is_fresh());
    }

    #[test]
    fn why_it_is_still_there_is_said_once_and_sockets_only_after_a_while() {
        let late = OLD + Duration::from_millis(1);
        for after in [MOMENT, OLD, late] {
            let error = || Err(Error::NothingToLimit);
            let text = format!("the throttle of the removed cgroup: {}", Error::NothingToLimit);
            assert_eq!(said(error, after), [Some(text), None, None]);
            for nothing in [None, Some(false)] {
                assert_eq!(said(|| Ok(nothing), after), [None, None, None]);
            }
        }
        assert_eq!(said(|| Ok(Some(true)), OLD), [None, None, None]);
        let mut former = Former::new(ThrottleId(1));
        assert!(!former.is_told());
        assert!(former.news(&Err(Error::NothingToLimit)).is_some_and(|it| it.ends_with("both")));
        assert!(former.is_told());
        let open = said(|| Ok(Some(true)), late);
        assert!(open[0].as_ref().is_some_and(|it| it.contains("still open")), "{open:?}");
        assert_eq!(open[1..], [None, None]);
    }
}
