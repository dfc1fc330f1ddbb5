//! A throttle on a removed cgroup, until nothing is left of it.

use std::time::{Duration, Instant};

use throttle_core::{Result, ThrottleId};

/// The time that the kernel takes to release a removed cgroup's programs, even without a socket.
const MOMENT: Duration = Duration::from_millis(50);

/// After this time, only an open socket can still keep the cgroup.
const OLD: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Former {
    pub(crate) id: ThrottleId,
    removed_at: Instant,
    is_told: bool,
}

impl Former {
    /// Creates the record of a cgroup whose removal was just seen.
    pub(crate) fn new(id: ThrottleId) -> Self {
        Self { id, removed_at: Instant::now(), is_told: false }
    }

    /// Tells whether it is too early to ask whether the kernel has released the cgroup.
    pub(crate) fn is_fresh(&self) -> bool {
        self.removed_at.elapsed() < MOMENT
    }

    /// Tells whether the user knows why the throttle is still there.
    pub(crate) fn is_told(&self) -> bool {
        self.is_told
    }

    /// Returns what to say about a look at the throttle, once. `looked` tells whether sockets are still open; `None`
    /// means that the throttle is gone.
    pub(crate) fn news(&mut self, looked: &Result<Option<bool>>) -> Option<String> {
        let news = match looked {
            Ok(Some(true)) if self.removed_at.elapsed() > OLD => {
                "sockets that were made in the removed cgroup are still open: they stay limited"
                    .to_owned()
            }
            Err(error) => format!("the throttle of the removed cgroup: {error}"),
            Ok(_) => return None,
        };
        (!std::mem::replace(&mut self.is_told, true)).then_some(news)
    }
}

#[cfg(test)]
mod tests {
    use throttle_core::Error;

    use super::*;

    /// Creates a throttle that stays young, however long the test takes.
    fn young() -> Former {
        let removed_at = Instant::now() + Duration::from_secs(3_600);
        Former { removed_at, ..Former::new(ThrottleId(1)) }
    }

    fn removed_before(time: Duration) -> Former {
        let removed_at = Instant::now().checked_sub(time).unwrap();
        Former { removed_at, ..young() }
    }

    /// Returns what three such looks in a row say, and whether the user knows by then.
    fn said(
        mut former: Former,
        looked: impl Fn() -> Result<Option<bool>>,
    ) -> (Vec<Option<String>>, bool) {
        ((0..3).map(|_| former.news(&looked())).collect(), former.is_told())
    }

    #[test]
    fn the_kernel_has_a_moment_before_it_is_asked() {
        assert!(young().is_fresh());
        assert!(!removed_before(MOMENT).is_fresh());
    }

    #[test]
    fn why_it_is_still_there_is_said_once_and_sockets_only_after_a_while() {
        let once = |why: &str| (vec![Some(why.to_owned()), None, None], true);
        let nothing = || (vec![None; 3], false);
        for former in [young, || removed_before(2 * OLD)] {
            let error = Error::NothingToLimit;
            let why = format!("the throttle of the removed cgroup: {error}");
            assert_eq!(said(former(), || Err(Error::NothingToLimit)), once(&why));
            for looked in [None, Some(false)] {
                assert_eq!(said(former(), || Ok(looked)), nothing());
            }
        }
        let open = "sockets that were made in the removed cgroup are still open: they stay limited";
        assert_eq!(said(young(), || Ok(Some(true))), nothing());
        assert_eq!(said(removed_before(2 * OLD), || Ok(Some(true))), once(open));
    }
}
