//! Being told when a cgroup is made or removed.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use kernel::cgroup::Cgroup;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// Watches the directories above a cgroup for what is made and removed in them.
///
/// Cgroups above may be removed and made again as well, so each that exists is watched. A cgroup that is made through a
/// mount of another cgroup namespace is not told of: who waits has to look from time to time.
#[derive(Debug)]
pub(crate) struct Watch {
    cgroup: PathBuf,
    inotify: Inotify,
}

impl Watch {
    /// Watches.
    ///
    /// # Errors
    /// When the kernel gives no inotify instance: there is a limit for each user.
    pub(crate) fn new(cgroup: &Path) -> nix::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let watch = Self { cgroup: cgroup.to_owned(), inotify };
        watch.renew();
        Ok(watch)
    }

    /// Watches the directories that exist now. Look at the cgroup after this, not before.
    fn renew(&self) {
        let what = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_DELETE | AddWatchFlags::IN_ONLYDIR;
        for above in self.cgroup.ancestors().skip(1) {
            match Cgroup::open(above) {
                // Without a watch the next look finds it, a little later.
                Ok(_) => drop(self.inotify.add_watch(above, what)),
                Err(error) if error.kind() == kernel::error::Kind::Vanished => {}
                // Above the mount.
                Err(_) => break,
            }
        }
    }

    /// Takes note of what was told.
    pub(crate) fn heard(&self) {
        // What happened does not matter: who was woken looks.
        while self.inotify.read_events().is_ok_and(|events| !events.is_empty()) {}
        self.renew();
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use testkit::cgroup::ScratchCgroup;

    use super::*;

    /// Whether something of this name has come or gone, as far as that is not noted yet. The kernel tells it before the
    /// call that did it returns. Others' cgroups have other names.
    fn is_told(watch: &Watch, name: &str) -> bool {
        let mut told = Vec::new();
        while let Ok(events) = watch.inotify.read_events() {
            told.extend(events.into_iter().filter_map(|event| event.name));
        }
        told.iter().any(|it| it == name)
    }

    #[test]
    fn root_whatever_comes_and_goes_above_is_told_also_in_what_was_made_meanwhile() {
        let top = ScratchCgroup::new("watch");
        let above = top.path().join("watched-above");
        let cgroup = above.join("watched");
        let watch = Watch::new(&cgroup).unwrap();
        fs::create_dir(&above).unwrap();
        assert!(is_told(&watch, "watched-above"));
        watch.heard();
        fs::create_dir(&cgroup).unwrap();
        assert!(is_told(&watch, "watched"));
        fs::remove_dir(&cgroup).unwrap();
        watch.heard();
        assert!(!is_told(&watch, "watched"), "it was noted");
        fs::remove_dir(&above).unwrap();
        assert!(is_told(&watch, "watched-above"));
    }
}
