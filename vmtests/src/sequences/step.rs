//! Defines the events of a test sequence as values. A value can be drawn, enumerated, stored in a file and replayed.

use std::fmt;
use std::path::{Path, PathBuf};

use kernel::AttachType;
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

/// One of a few nested cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Place {
    A,
    AB,
    ABC,
    D,
}

impl Place {
    /// All places, parents first.
    pub const ALL: [Self; 4] = [Self::A, Self::AB, Self::ABC, Self::D];

    /// Returns the place's path below the top cgroup of the sequence.
    pub fn below(self, top: &Path) -> PathBuf {
        top.join(match self {
            Self::A => "a",
            Self::AB => "a/b",
            Self::ABC => "a/b/c",
            Self::D => "d",
        })
    }
}

/// A direction of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Way {
    Download,
    Upload,
}

impl Way {
    /// Both directions.
    pub const BOTH: [Self; 2] = [Self::Download, Self::Upload];

    /// Returns the attach type of this direction.
    pub fn attach_type(self) -> AttachType {
        match self {
            Self::Download => AttachType::INET_INGRESS,
            Self::Upload => AttachType::INET_EGRESS,
        }
    }
}

/// The attach types that our throttles use.
pub const ATTACH_TYPES: [AttachType; 3] =
    [AttachType::INET_INGRESS, AttachType::INET_EGRESS, AttachType::SOCK_OPS];

/// The directions that a throttle limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Ways {
    Download,
    Upload,
    Both,
}

impl Ways {
    /// Tells whether this direction is among them.
    pub fn has(self, way: Way) -> bool {
        match self {
            Self::Download => way == Way::Download,
            Self::Upload => way == Way::Upload,
            Self::Both => true,
        }
    }
}

/// The requested way to attach a throttle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum How {
    Link,
    Pinned,
    Legacy,
}

/// The way in which other people attach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Kind {
    None,
    Override,
    Multi,
    Link,
}

/// The target of a throttle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// A cgroup.
    Cgroup(Place),
    /// The nth existing process.
    Process(u8),
}

/// An injected failure of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mishap {
    /// The process is killed right before the call.
    DieBefore,
    /// The process is killed right after the call.
    DieAfter,
    /// The call does not happen, and fails with this errno.
    Fail(Fail),
}

impl Mishap {
    /// Tells whether the process dies.
    pub fn is_death(self) -> bool {
        matches!(self, Self::DieBefore | Self::DieAfter)
    }
}

/// The injected errnos.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs, clippy::upper_case_acronyms)]
pub enum Fail {
    EPERM,
    ENOMEM,
    E2BIG,
    EBUSY,
    ENOENT,
    EINTR,
}

impl Fail {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::EPERM, Self::ENOMEM, Self::E2BIG, Self::EBUSY, Self::ENOENT, Self::EINTR];

    /// Returns the kernel's errno.
    pub fn errno(self) -> Errno {
        match self {
            Self::EPERM => Errno::EPERM,
            Self::ENOMEM => Errno::ENOMEM,
            Self::E2BIG => Errno::E2BIG,
            Self::EBUSY => Errno::EBUSY,
            Self::ENOENT => Errno::ENOENT,
            Self::EINTR => Errno::EINTR,
        }
    }
}

/// A failure injected at the nth call (from 1) of the owner during a step. A call goes to the kernel or to a file of
/// the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fault {
    /// The number of the call.
    pub nth: u16,
    /// The failure.
    pub mishap: Mishap,
}

/// Damage that somebody does to the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Damage {
    /// A file that is no entry appears.
    Junk,
    /// A draft appears, as if the writer died while writing an entry.
    Draft,
    /// An entry of another boot appears.
    OtherBoot,
    /// The entry of the nth recorded throttle is overwritten.
    Torn(u8),
}

/// One event. Small numbers name the nth existing object, modulo their number. A step without an object is skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Somebody makes a cgroup.
    CreateCgroup(Place),
    /// Somebody removes a cgroup.
    RemoveCgroup(Place),
    /// A process starts, with an open socket.
    Spawn(Place),
    /// A process moves. Its socket stays in the old cgroup.
    Move(u8, Place),
    /// Somebody kills a process.
    End(u8),
    /// Somebody opens a socket in a cgroup that no process of the cgroup holds.
    HoldSocket(Place),
    /// Somebody closes such a socket.
    CloseSocket(u8),
    /// A process sends itself a packet.
    Send(u8),
    /// An owner (0 or 1) starts.
    Start {
        /// The owner.
        owner: u8,
        /// The injected failure, if any.
        fault: Option<Fault>,
    },
    /// An owner adds a throttle.
    Add {
        /// The owner.
        owner: u8,
        /// The target.
        target: Target,
        /// The directions.
        ways: Ways,
        /// How to attach.
        how: How,
        /// The injected failure, if any.
        fault: Option<Fault>,
    },
    /// An owner changes the rates of a throttle.
    Change {
        /// The owner.
        owner: u8,
        /// The number of its throttle.
        throttle: u8,
        /// The injected failure, if any.
        fault: Option<Fault>,
    },
    /// An owner removes a throttle.
    Remove {
        /// The owner.
        owner: u8,
        /// The number of its throttle.
        throttle: u8,
        /// The injected failure, if any.
        fault: Option<Fault>,
    },
    /// Somebody removes the nth pinned throttle by its name.
    RemovePinned {
        /// The number of the pinned throttle.
        throttle: u8,
        /// The injected failure, if any.
        fault: Option<Fault>,
    },
    /// An owner removes all of its throttles and ends.
    ShutDown {
        /// The owner.
        owner: u8,
        /// The injected failure, if any.
        fault: Option<Fault>,
    },
    /// Somebody kills an owner between two calls.
    Kill {
        /// The owner.
        owner: u8,
    },
    /// Other people attach a program.
    OthersAttach {
        /// The cgroup.
        place: Place,
        /// The direction.
        way: Way,
        /// How they attach.
        kind: Kind,
    },
    /// Other people detach one of their programs.
    OthersDetach(u8),
    /// Other people attach programs until the list is full.
    Fill {
        /// The cgroup.
        place: Place,
        /// The direction.
        way: Way,
    },
    /// A stranger detaches our nth program that was attached the legacy way.
    Stranger(u8),
    /// Somebody damages the ledger.
    Damage(Damage),
}

impl Step {
    /// Returns the injected failure of the step, if any.
    pub fn fault(&self) -> Option<Fault> {
        match self {
            Self::Start { fault, .. }
            | Self::Add { fault, .. }
            | Self::Change { fault, .. }
            | Self::Remove { fault, .. }
            | Self::RemovePinned { fault, .. }
            | Self::ShutDown { fault, .. } => *fault,
            _ => None,
        }
    }

    /// Tells whether the kernel finishes the step after the call returned. It closes files after a process ends, and
    /// releases a removed cgroup a moment later. What an owner reports as done must be done at once.
    pub fn is_finished_later(&self) -> bool {
        let dies = self.fault().is_some_and(|fault| fault.mishap.is_death());
        dies || matches!(
            self,
            Self::RemoveCgroup(_) | Self::End(_) | Self::CloseSocket(_) | Self::Kill { .. }
        )
    }

    /// Returns the step with this failure injected. Steps that cannot fail stay as they are.
    #[must_use]
    pub fn with_fault(mut self, new: Option<Fault>) -> Self {
        match &mut self {
            Self::Start { fault, .. }
            | Self::Add { fault, .. }
            | Self::Change { fault, .. }
            | Self::Remove { fault, .. }
            | Self::RemovePinned { fault, .. }
            | Self::ShutDown { fault, .. } => *fault = new,
            _ => {}
        }
        self
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateCgroup(place) => write!(f, "create cgroup {place:?}"),
            Self::RemoveCgroup(place) => write!(f, "remove cgroup {place:?}"),
            Self::Spawn(place) => write!(f, "start a process in {place:?}"),
            Self::Move(nth, place) => write!(f, "move process {nth} to {place:?}"),
            Self::End(nth) => write!(f, "kill process {nth}"),
            Self::HoldSocket(place) => write!(f, "hold a socket of {place:?}"),
            Self::CloseSocket(nth) => write!(f, "close held socket {nth}"),
            Self::Send(nth) => write!(f, "process {nth} sends a packet"),
            Self::Start { owner, .. } => write!(f, "owner {owner} starts"),
            Self::Add { owner, target, ways, how, .. } => {
                write!(f, "owner {owner} adds a throttle: {target:?}, {ways:?}, {how:?}")
            }
            Self::Change { owner, throttle, .. } => {
                write!(f, "owner {owner} changes throttle {throttle}")
            }
            Self::Remove { owner, throttle, .. } => {
                write!(f, "owner {owner} removes throttle {throttle}")
            }
            Self::RemovePinned { throttle, .. } => write!(f, "remove pinned throttle {throttle}"),
            Self::ShutDown { owner, .. } => write!(f, "owner {owner} shuts down"),
            Self::Kill { owner } => write!(f, "owner {owner} is killed"),
            Self::OthersAttach { place, way, kind } => {
                write!(f, "others attach to {place:?}, {way:?}, {kind:?}")
            }
            Self::OthersDetach(nth) => write!(f, "others detach their program {nth}"),
            Self::Fill { place, way } => write!(f, "others fill the list of {place:?}, {way:?}"),
            Self::Stranger(nth) => write!(f, "others detach our legacy program {nth}"),
            Self::Damage(damage) => write!(f, "the ledger is damaged: {damage:?}"),
        }?;
        match self.fault() {
            None => Ok(()),
            Some(Fault { nth, mishap: Mishap::DieBefore }) => {
                write!(f, ", and is killed before call {nth}")
            }
            Some(Fault { nth, mishap: Mishap::DieAfter }) => {
                write!(f, ", and is killed after call {nth}")
            }
            Some(Fault { nth, mishap: Mishap::Fail(errno) }) => {
                write!(f, ", and call {nth} fails: {errno:?}")
            }
        }
    }
}
