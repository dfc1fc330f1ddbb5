//! The caller's request to the engine.

use std::fmt;
use std::path::PathBuf;

use bpf::limits::{Burst, Departures, FqDevices, Limits, Rate, Traffic};
use kernel::{AttachType, CgroupId};

use crate::mode::{TcpWish, Wish};

/// The direction of packets, as seen by the cgroup's processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Received packets (ingress).
    Download,
    /// Sent packets (egress).
    Upload,
}

impl Direction {
    /// Both directions.
    pub const BOTH: [Self; 2] = [Direction::Download, Direction::Upload];

    /// Returns the attach type of the direction's program.
    pub fn attach_type(self) -> AttachType {
        match self {
            Direction::Download => AttachType::INET_INGRESS,
            Direction::Upload => AttachType::INET_EGRESS,
        }
    }

    /// Returns the direction of an attach type. `None` for a type that has no limits of its own.
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

/// The request to add a throttle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// The cgroup's directory. The throttle limits all processes in the cgroup and its descendants together.
    pub cgroup: PathBuf,
    /// The cgroup's id, if known. The engine then refuses another cgroup at the path.
    pub cgroup_id: Option<CgroupId>,
    /// The download limit, if any.
    pub download: Option<Rate>,
    /// The upload limit, if any.
    pub upload: Option<Rate>,
    /// The burst, for each direction.
    pub burst: Burst,
    /// The class of traffic to limit.
    pub traffic: Traffic,
    /// The way to attach the programs.
    pub attach: Wish,
    /// The way to limit TCP.
    pub tcp: TcpWish,
    /// The devices where sent packets above the limit wait in `fq`; see [`Departures::Fq`].
    pub departures: FqDevices,
    /// Received packets above the limit wait in a queue of their own ([`bpf::queue`]), which ends with this process.
    /// Needs a download limit and [`Mode::Link`](crate::mode::Mode::Link).
    pub queue: bool,
    /// Add the throttle even if that puts somebody else's program out of force. Such a program is attached to an
    /// ancestor with `BPF_F_ALLOW_OVERRIDE`.
    pub displace: bool,
}

impl Spec {
    /// Returns the limits of each limited direction.
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

/// The request to change a throttle. A field that is `None` stays as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Change {
    /// The new download limit.
    pub download: Option<Rate>,
    /// The new upload limit.
    pub upload: Option<Rate>,
    /// The new burst.
    pub burst: Option<Burst>,
    /// The new class of traffic.
    pub traffic: Option<Traffic>,
}

impl Change {
    /// Returns the new rate of a direction, if the request has one.
    pub fn rate(&self, direction: Direction) -> Option<Rate> {
        match direction {
            Direction::Download => self.download,
            Direction::Upload => self.upload,
        }
    }

    /// Returns a direction's limits after the change.
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
