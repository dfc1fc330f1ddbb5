//! Being told when a cgroup is made or removed.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use bpf::cgroup::Cgroup;
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
                Err(error) if error.kind() == bpf::error::Kind::Vanished => {}
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
