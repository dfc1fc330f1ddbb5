//! Makes the kernel hold back the packets of a new cgroup until it is limited (`--guard`).

mod look;

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use bpf::Owner;
use bpf::advice::explained;
use bpf::follow::{Follower, Held, Most};
use bpf::limits::Rate;
use kernel::cgroup::Cgroup;
use kernel::{AttachType, CgroupId};
use throttle_core::Spec;

use crate::in_force::Pace;
use crate::mount::Mount;
use crate::words::{say, warn};

/// The kernel's part in following a path, where that is possible. Without it, a new cgroup stays unlimited for some 100
/// µs.
pub(crate) struct Holder {
    spec: Spec,
    mount: Mount,
    following: Option<Following>,
    /// The cgroup above on which following the path failed or had to stop.
    refused: Option<CgroupId>,
}

struct Following {
    follower: Follower,
    /// When to look again whether all other programs are in force.
    pace: Pace,
}

impl Holder {
    pub(crate) fn new(spec: &Spec, mount: Mount) -> Self {
        Self { spec: spec.clone(), mount, following: None, refused: None }
    }

    /// Follows the path from the cgroup that is above it now. `armed` is the limited cgroup. It stops if the guard puts
    /// somebody else's program out of force.
    pub(crate) fn renew(&mut self, armed: Option<CgroupId>) {
        let Some(above) = self.spec.cgroup.parent().and_then(|above| Cgroup::open(above).ok())
        else {
            return self.stop();
        };
        let parent = self.following.as_ref().map(|following| following.follower.parent());
        if parent == Some(above.id()) {
            return self.look_again(&above);
        }
        if self.refused == Some(above.id()) {
            return;
        }
        self.stop();
        match follow(&self.spec, self.mount, &above) {
            Ok(follower) => self.following = Some(Following { follower, pace: Pace::new() }),
            Err(why) => {
                warn(&format!("a new cgroup's first packets will not be held (--guard): {why}"));
                self.refused = Some(above.id());
            }
        }
        self.armed(armed);
        self.look_again(&above);
    }

    /// Looks again if it is time to. Somebody may have attached a program further up.
    fn look_again(&mut self, above: &Cgroup) {
        let began = Instant::now();
        let Some(following) = self.following.as_mut().filter(|it| it.pace.is_due()) else {
            return;
        };
        let ours: Vec<_> = following.follower.programs().collect();
        let Err(why) = look::after(above, &attach_types(&self.spec), &ours) else {
            following.pace.note(began);
            return;
        };
        self.refused = Some(above.id());
        self.tell();
        let detached = self.following.take().map(|following| following.follower.detach());
        let became = match detached {
            Some(Err(error)) => format!("they cannot be taken off: {}", explained(&error)),
            _ => "they were taken off again".to_owned(),
        };
        warn(&format!(
            "a new cgroup's first packets are not held any more (--guard): {why}; {became}"
        ));
    }

    /// Looks at once. Tells whether it had to detach the programs.
    pub(crate) fn had_to_go(&mut self) -> bool {
        let Some(above) = self.spec.cgroup.parent().and_then(|above| Cgroup::open(above).ok())
        else {
            return false;
        };
        let Some(following) = &mut self.following else { return false };
        following.pace = Pace::new();
        self.look_again(&above);
        self.following.is_none()
    }

    fn stop(&mut self) {
        self.tell();
        self.following = None;
    }

    /// Lets the packets of this cgroup pass.
    pub(crate) fn armed(&self, cgroup: Option<CgroupId>) {
        if let (Some(following), Some(cgroup)) = (&self.following, cgroup)
            && let Err(error) = following.follower.armed(cgroup)
        {
            // The programs let the packets pass one second after the cgroup was made.
            say(&format!(
                "packets of the new cgroup may be lost for a second: {}",
                explained(&error)
            ));
        }
    }

    /// Prints how many packets were held back, if any.
    pub(crate) fn tell(&self) {
        let Some(Following { follower, .. }) = &self.following else { return };
        match follower.held() {
            Ok(held) if held == Held::default() => {}
            Ok(Held { passed, dropped }) => say(&format!(
                "before a new cgroup was limited, {} received and {} sent packets above one burst were held back; within \
                 it {} received and {} sent passed",
                dropped.download, dropped.upload, passed.download, passed.upload
            )),
            Err(error) => say(&format!("how much was held cannot be read: {}", explained(&error))),
        }
    }

    /// Drains the kernel's notices.
    pub(crate) fn heard(&self) {
        if let Some(following) = &self.following {
            following.follower.heard();
        }
    }

    /// Returns a descriptor that becomes readable when a new cgroup appears.
    pub(crate) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.following.as_ref().map(|following| following.follower.as_fd())
    }
}

/// Follows the path. It must lead through the same mount as before, and nobody's program may go out of force.
///
/// # Errors
/// Returns why the path cannot be followed.
fn follow(spec: &Spec, mount: Mount, above: &Cgroup) -> Result<Follower, String> {
    mount.check(above)?;
    let name = spec.cgroup.file_name().unwrap_or_default();
    look::before(above, &attach_types(spec))?;
    let owner = Owner::this_process(env!("CARGO_PKG_VERSION"));
    let made = owner.and_then(|owner| Follower::new(&owner, above, name, most(spec)));
    made.map_err(|error| bpf::advice::why(&error))
}

fn attach_types(spec: &Spec) -> Vec<AttachType> {
    spec.limits().iter().map(|(direction, _)| direction.attach_type()).collect()
}

/// Returns how many bytes may pass: one burst in each limited direction.
fn most(spec: &Spec) -> Most {
    // A burst of zero lets one packet pass. 0 would mean no limit.
    let bytes = |rate: Rate| {
        let bytes = u128::from(rate.bytes_per_second()) * spec.burst.as_duration().as_nanos();
        u64::try_from(bytes / 1_000_000_000).unwrap_or(u64::MAX).max(1)
    };
    Most { download: spec.download.map_or(0, bytes), upload: spec.upload.map_or(0, bytes) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bpf::limits::{Burst, FqDevices, Traffic};
    use throttle_core::mode::{TcpWish, Wish};

    use super::*;

    fn spec(download: Option<u64>, upload: Option<u64>, burst: Duration) -> Spec {
        let rate = |rate| Rate::from_bytes_per_second(rate).unwrap();
        Spec {
            cgroup: "/sys/fs/cgroup/a".into(),
            cgroup_id: None,
            download: download.map(rate),
            upload: upload.map(rate),
            burst: Burst::new(burst).unwrap(),
            traffic: Traffic::All,
            attach: Wish::Link,
            tcp: TcpWish::Auto,
            departures: FqDevices::NONE,
            queue: false,
            displace: false,
        }
    }

    #[test]
    fn a_new_cgroup_may_have_one_burst_to_the_byte_and_one_packet_where_there_is_none() {
        const MB: u64 = 1_000_000;
        let (us, ns) = (Duration::from_micros, Duration::from_nanos);
        for (rate, burst, bytes) in [
            (MB, us(1_000), 1_000),
            (MB, us(500), 500),
            (MB, us(1_900), 1_900),
            (MB, us(250_000), 250_000),
            (1_000, us(1_999), 1),
            (1_000, us(2_000), 2),
            (100_000 * MB, ns(1), 100),
            (100_000 * MB, us(1), 100_000),
            (MB, ns(0), 1),
        ] {
            let upload = most(&spec(None, Some(rate), burst));
            assert_eq!((upload.download, upload.upload), (0, bytes), "{rate} {burst:?}");
            let download = most(&spec(Some(rate), None, burst));
            assert_eq!((download.download, download.upload), (bytes, 0), "{rate} {burst:?}");
        }
        let both = most(&spec(Some(MB), Some(2 * MB), us(1_000)));
        assert_eq!((both.download, both.upload), (1_000, 2_000));
    }

    #[test]
    fn a_guard_is_where_something_is_limited() {
        let [down, up] = [AttachType::INET_INGRESS, AttachType::INET_EGRESS];
        let of = |download, upload| attach_types(&spec(download, upload, Duration::ZERO));
        assert_eq!(of(Some(1_000), None), [down]);
        assert_eq!(of(None, Some(1_000)), [up]);
        assert_eq!(of(Some(1_000), Some(1_000)), [down, up]);
    }
}
