//! What can happen to a throttle system, as values. They can be drawn, enumerated, stored in a file and replayed.

use std::fmt;
use std::path::{Path, PathBuf};

use kernel::AttachType;
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

/// One of a few cgroups, nested.
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
    /// Each, parents first.
    pub const ALL: [Self; 4] = [Self::A, Self::AB, Self::ABC, Self::D];

    /// Its path below the cgroup that everything happens in.
    pub fn below(self, top: &Path) -> PathBuf {
        top.join(match self {
            Self::A => "a",
            Self::AB => "a/b",
            Self::ABC => "a/b/c",
            Self::D => "d",
        })
    }
}

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Way {
    Download,
    Upload,
}

impl Way {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Download, Self::Upload];

    /// Where on a cgroup.
    pub fn attach_type(self) -> AttachType {
        match self {
            Self::Download => AttachType::INET_INGRESS,
            Self::Upload => AttachType::INET_EGRESS,
        }
    }
}

/// Every place on a cgroup that a throttle of ours has a program at.
pub const ATTACH_TYPES: [AttachType; 3] =
    [AttachType::INET_INGRESS, AttachType::INET_EGRESS, AttachType::SOCK_OPS];

/// Which directions a throttle limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Ways {
    Download,
    Upload,
    Both,
}

impl Ways {
    /// Whether that one is among them.
    pub fn has(self, way: Way) -> bool {
        match self {
            Self::Download => way == Way::Download,
            Self::Upload => way == Way::Upload,
            Self::Both => true,
        }
    }
}

/// How a throttle is to be attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum How {
    Link,
    Pinned,
    Legacy,
}

/// How other people attach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Kind {
    None,
    Override,
    Multi,
    Link,
}

/// Whom a throttle is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// A cgroup.
    Cgroup(Place),
    /// The nth of the processes there are.
    Process(u8),
}

/// What goes wrong at a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mishap {
    /// The process is killed right before it.
    DieBefore,
    /// The process is killed right after it.
    DieAfter,
    /// It is not made, and fails with this errno.
    Fail(Fail),
}

impl Mishap {
    /// Whether the process dies of it.
    pub fn is_death(self) -> bool {
        matches!(self, Self::DieBefore | Self::DieAfter)
    }
}

/// The errnos that are injected.
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
    /// Each.
    pub const ALL: [Self; 6] =
        [Self::EPERM, Self::ENOMEM, Self::E2BIG, Self::EBUSY, Self::ENOENT, Self::EINTR];

    /// As the kernel says it.
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

/// Something goes wrong at the nth call (from 1) that the owner makes during a step: into the kernel, or on a
/// file of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fault {
    /// At which call.
    pub nth: u16,
    /// What.
    pub mishap: Mishap,
}

/// What somebody does to the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Damage {
    /// A file that is no entry.
    Junk,
    /// An entry that was being written when its writer died.
    Draft,
    /// An entry of another boot.
    OtherBoot,
    /// The entry of the nth throttle that has one is overwritten.
    Torn(u8),
}

/// One thing that happens. Small numbers name the nth of what there is, counted round; a step for which there
/// is nothing is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// A cgroup is made.
    CreateCgroup(Place),
    /// A cgroup is removed.
    RemoveCgroup(Place),
    /// A process begins, with an open socket.
    Spawn(Place),
    /// A process is moved; its socket stays where it was made.
    Move(u8, Place),
    /// A process is killed.
    End(u8),
    /// A socket is made that no process of the cgroup holds.
    HoldSocket(Place),
    /// It is closed.
    CloseSocket(u8),
    /// A process sends itself a packet.
    Send(u8),
    /// An owner (0 or 1) starts.
    Start {
        /// Which.
        owner: u8,
        /// What goes wrong.
        fault: Option<Fault>,
    },
    /// An owner adds a throttle.
    Add {
        /// Which.
        owner: u8,
        /// For whom.
        target: Target,
        /// Which directions.
        ways: Ways,
        /// How.
        how: How,
        /// What goes wrong.
        fault: Option<Fault>,
    },
    /// An owner changes the rates of a throttle.
    Change {
        /// Which.
        owner: u8,
        /// Its nth.
        throttle: u8,
        /// What goes wrong.
        fault: Option<Fault>,
    },
    /// An owner removes a throttle.
    Remove {
        /// Which.
        owner: u8,
        /// Its nth.
        throttle: u8,
        /// What goes wrong.
        fault: Option<Fault>,
    },
    /// Somebody removes the nth pinned throttle by its name.
    RemovePinned {
        /// Which.
        throttle: u8,
        /// What goes wrong.
        fault: Option<Fault>,
    },
    /// An owner removes all of its throttles and ends.
    ShutDown {
        /// Which.
        owner: u8,
        /// What goes wrong.
        fault: Option<Fault>,
    },
    /// An owner is killed between two calls.
    Kill {
        /// Which.
        owner: u8,
    },
    /// Other people attach a program of theirs.
    OthersAttach {
        /// Where.
        place: Place,
        /// Where on it.
        way: Way,
        /// How.
        kind: Kind,
    },
    /// Other people detach one of theirs.
    OthersDetach(u8),
    /// Other people attach so many that the list is full.
    Fill {
        /// Where.
        place: Place,
        /// Where on it.
        way: Way,
    },
    /// Somebody detaches the nth program of ours that was attached the legacy way.
    Stranger(u8),
    /// Somebody damages the ledger.
    Damage(Damage),
}

impl Step {
    /// What goes wrong in it.
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

    /// Whether the kernel does a part of it after it has answered: files are closed with a process and a socket,
    /// and what a removed cgroup had ends a moment later. What an owner says is done has to be done.
    pub fn is_finished_later(&self) -> bool {
        let dies = self.fault().is_some_and(|fault| fault.mishap.is_death());
        dies || matches!(
            self,
            Self::RemoveCgroup(_) | Self::End(_) | Self::CloseSocket(_) | Self::Kill { .. }
        )
    }

    /// The same step with this going wrong; as it is where nothing can.
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
