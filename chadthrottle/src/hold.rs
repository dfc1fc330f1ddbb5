//! Having the kernel hold the packets of a new cgroup until it is limited.

use std::os::fd::{AsFd, BorrowedFd};

use bpf::cgroup::Cgroup;
use bpf::follow::{Follower, Held, Most};
use bpf::limits::Rate;
use bpf::{CgroupId, Owner};
use throttle_core::Spec;

use crate::words::{say, warn};

/// The kernel's part in following a path, where it can have one. Without it a new cgroup is limited some 100 µs later.
pub(crate) struct Holder {
    spec: Spec,
    follower: Option<Follower>,
    /// The cgroup above with which it was tried in vain.
    refused: Option<CgroupId>,
}

impl Holder {
    pub(crate) fn new(spec: &Spec) -> Self {
        Self { spec: spec.clone(), follower: None, refused: None }
    }

    /// Follows the path in the cgroup that is above it now; `armed` is limited.
    pub(crate) fn renew(&mut self, armed: Option<CgroupId>) {
        let (Some(above), Some(name)) = (self.spec.cgroup.parent(), self.spec.cgroup.file_name())
        else {
            return;
        };
        let Ok(above) = Cgroup::open(above) else {
            self.follower = None;
            return;
        };
        let is_known = |known: Option<CgroupId>| known == Some(above.id());
        if is_known(self.follower.as_ref().map(Follower::parent)) || is_known(self.refused) {
            return;
        }
        self.follower = None;
        let made = Owner::this_process(env!("CARGO_PKG_VERSION"))
            .and_then(|owner| Follower::new(&owner, &above, name, most(&self.spec)));
        match made {
            Ok(follower) => self.follower = Some(follower),
            Err(error) => {
                warn(&format!("a new cgroup's first packets will not be held: {}", error.why()));
                self.refused = Some(above.id());
            }
        }
        self.armed(armed);
    }

    /// Lets that cgroup's packets pass.
    pub(crate) fn armed(&self, cgroup: Option<CgroupId>) {
        if let (Some(follower), Some(cgroup)) = (&self.follower, cgroup)
            && let Err(error) = follower.armed(cgroup)
        {
            // The kernel lets them pass by itself a second after the cgroup was made.
            say(&format!("packets of the new cgroup may be lost for a second: {error}"));
        }
    }

    /// Says what was held, if anything was.
    pub(crate) fn tell(&self) {
        let Some(follower) = &self.follower else { return };
        match follower.held() {
            Ok(held) if held == Held::default() => {}
            Ok(held) => say(&format!(
                "packets of new cgroups that came before the limit was attached, and were held to one burst: {} received, {} sent",
                held.download, held.upload
            )),
            Err(error) => say(&format!("how much was held cannot be read: {error}")),
        }
    }

    /// Takes note of what was told.
    pub(crate) fn heard(&self) {
        if let Some(follower) = &self.follower {
            follower.heard();
        }
    }

    /// What can be read when there is another cgroup.
    pub(crate) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.follower.as_ref().map(AsFd::as_fd)
    }
}

/// One burst in each direction that is limited.
fn most(spec: &Spec) -> Most {
    // A burst of zero lets one packet pass; 0 would be no limit.
    let bytes = |rate: Rate| {
        let bytes = u128::from(rate.bytes_per_second()) * spec.burst.as_duration().as_nanos();
        u64::try_from(bytes / 1_000_000_000).unwrap_or(u64::MAX).max(1)
    };
    Most { download: spec.download.map_or(0, bytes), upload: spec.upload.map_or(0, bytes) }
}
