//! Reports when a cgroup is made or removed.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use kernel::cgroup::Cgroup;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// Watches the directories above a cgroup for cgroups that are made or removed in them.
///
/// Cgroups further up may be removed and made again too, so it watches each that exists. The kernel does not report a
/// cgroup that is made through a mount of another cgroup namespace. So the caller has to look from time to time.
#[derive(Debug)]
pub(crate) struct Watch {
    cgroup: PathBuf,
    inotify: Inotify,
}

impl Watch {
    /// Starts to watch.
    ///
    /// # Errors
    /// Fails if the kernel gives no inotify instance, because their number is limited for each user.
    pub(crate) fn new(cgroup: &Path) -> nix::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let watch = Self { cgroup: cgroup.to_owned(), inotify };
        watch.renew();
        Ok(watch)
    }

    /// Watches the directories that exist now. Call it before looking at the cgroup.
    fn renew(&self) {
        let what = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_DELETE | AddWatchFlags::IN_ONLYDIR;
        for above in self.cgroup.ancestors().skip(1) {
            match Cgroup::open(above) {
                // Without a watch, the next look finds the change a little later.
                Ok(_) => drop(self.inotify.add_watch(above, what)),
                Err(error) if error.kind() == kernel::error::Kind::Vanished => {}
                // This directory is above the mount.
                Err(_) => break,
            }
        }
    }

    /// Drains the kernel's notices.
    pub(crate) fn heard(&self) {
        // The notice itself does not matter, because the caller looks at the cgroup anyway.
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

    /// Tells whether a cgroup of this name has come or gone since the last look. The kernel reports it before the
    /// system call returns. Other tests use other names.
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
