//! What somebody asks the engine for.

use std::fmt;
use std::path::PathBuf;

use bpf::limits::{Burst, Departures, FqDevices, Limits, Rate, Traffic};
use kernel::{AttachType, CgroupId};

use crate::mode::{TcpWish, Wish};

/// Which way packets go, seen from the processes of the cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Received: ingress.
    Download,
    /// Sent: egress.
    Upload,
}

impl Direction {
    /// Both.
    pub const BOTH: [Self; 2] = [Direction::Download, Direction::Upload];

    /// Where on a cgroup its program is attached.
    pub fn attach_type(self) -> AttachType {
        match self {
            Direction::Download => AttachType::INET_INGRESS,
            Direction::Upload => AttachType::INET_EGRESS,
        }
    }

    /// The direction of an attach type. `None` for one that no throttle uses.
    pub fn of(attach_type: AttachType) -> Option<Self> {
        Self::BOTH.into_iter().find(|direction| direction.attach_type() == attach_type)
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Direction::Download => "download",
            Direction::Upload => "upload",
        })
    }
}

/// A throttle to add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// The cgroup's directory. Every process in it and below it is limited, together.
    pub cgroup: PathBuf,
    /// Its id, where it was looked up before: another cgroup at that path is not limited instead.
    pub cgroup_id: Option<CgroupId>,
    /// The limit on what is received, if any.
    pub download: Option<Rate>,
    /// The limit on what is sent, if any.
    pub upload: Option<Rate>,
    /// How much may pass at once.
    pub burst: Burst,
    /// Whose packets.
    pub traffic: Traffic,
    /// How to attach.
    pub attach: Wish,
    /// How to hold TCP to the limits.
    pub tcp: TcpWish,
    /// Through which devices what is sent above the limit waits in `fq`: see [`Departures::Fq`].
    pub departures: FqDevices,
    /// What is received above the limit waits in a queue of its own ([`bpf::queue`]), which goes with this process: only
    /// with [`Mode::Link`](crate::mode::Mode::Link), and where the download is limited.
    pub queue: bool,
    /// Limit also where that puts somebody else's program out of force, which was attached above with
    /// `BPF_F_ALLOW_OVERRIDE`.
    pub displace: bool,
}

impl Spec {
    /// The limits of each direction that has one.
    pub fn limits(&self) -> Vec<(Direction, Limits)> {
        let limits = |rate, departures| Limits {
            rate,
            burst: self.burst,
            traffic: self.traffic,
            departures,
        };
        let queue = if self.queue { Departures::Queue } else { Departures::Never };
        [
            (Direction::Download, self.download, queue),
            (Direction::Upload, self.upload, Departures::Fq(self.departures)),
        ]
        .into_iter()
        .filter_map(|(direction, rate, waits)| Some((direction, limits(rate?, waits))))
        .collect()
    }
}

/// New limits for a throttle that is there. Whatever is `None` stays as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Change {
    /// The limit on what is received.
    pub download: Option<Rate>,
    /// The limit on what is sent.
    pub upload: Option<Rate>,
    /// How much may pass at once.
    pub burst: Option<Burst>,
    /// Whose packets.
    pub traffic: Option<Traffic>,
}

impl Change {
    /// The new rate of a direction, if it changes.
    pub fn rate(&self, direction: Direction) -> Option<Rate> {
        match direction {
            Direction::Download => self.download,
            Direction::Upload => self.upload,
        }
    }

    /// What the limits of a direction become.
    #[must_use]
    pub fn apply(&self, direction: Direction, limits: &Limits) -> Limits {
        Limits {
            rate: self.rate(direction).unwrap_or(limits.rate),
            burst: self.burst.unwrap_or(limits.burst),
            traffic: self.traffic.unwrap_or(limits.traffic),
            departures: limits.departures,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_direction_waits_where_that_was_asked_for_it() {
        let spec = Spec {
            cgroup: PathBuf::new(),
            cgroup_id: None,
            download: Some(Rate::MIN),
            upload: Some(Rate::MAX),
            burst: Burst::DEFAULT,
            traffic: Traffic::All,
            attach: Wish::default(),
            tcp: TcpWish::Auto,
            departures: FqDevices::NONE,
            queue: true,
            displace: false,
        };
        let waits = |spec: &Spec| -> Vec<_> {
            spec.limits().iter().map(|(direction, it)| (*direction, it.departures.wait())).collect()
        };
        let (download, upload) = (Direction::Download, Direction::Upload);
        assert_eq!(waits(&spec), [(download, true), (upload, false)]);
        let devices = [2].into_iter().collect();
        let other = Spec { departures: devices, queue: false, ..spec };
        assert_eq!(waits(&other), [(download, false), (upload, true)]);
    }

    #[test]
    fn a_direction_is_that_of_its_attach_type_alone() {
        for direction in [Direction::Download, Direction::Upload] {
            assert_eq!(Direction::of(direction.attach_type()), Some(direction));
        }
        assert_eq!(Direction::of(AttachType::from_kernel(2).unwrap()), None);
    }

    #[test]
    fn a_direction_is_called_as_its_option_is() {
        let names = [Direction::Download, Direction::Upload].map(|it| format!("{it:<9}"));
        assert_eq!(names, ["download ", "upload   "]);
    }
}
