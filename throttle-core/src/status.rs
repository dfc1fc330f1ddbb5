//! What the engine says of its throttles.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bpf::limits::Limits;
use bpf::state::Counters;

use crate::attachment::Detached;
use crate::error::{Error, Result};
use crate::id::ThrottleId;
use crate::mode::{Mode, Tcp};
use crate::neighbour::Neighbour;
use crate::spec::Direction;

/// A throttle was added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// Its number in this engine.
    pub id: ThrottleId,
    /// Its name on this host, for one that outlives a crash.
    pub name: Option<String>,
    /// How it is attached.
    pub mode: Mode,
    /// How TCP is held to the limits.
    pub tcp: Tcp,
    /// What the user should know of that.
    pub notes: Vec<&'static str>,
    /// Other people's programs that are out of force while it lasts; none unless [`Spec::displace`] allows it.
    ///
    /// [`Spec::displace`]: crate::Spec::displace
    pub displaced: Vec<Neighbour>,
}

/// A throttle was armed again.
#[derive(Debug)]
pub struct Rearmed {
    /// The throttle as it is now.
    pub started: Started,
    /// Whether what it was before could be let go of. If not, the next start on this host tries again.
    pub forgotten: Result<()>,
}

/// A throttle was removed, and seen to be gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// For each direction what it did.
    pub directions: BTreeMap<Direction, Detached>,
}

/// How a direction of a throttle is.
#[derive(Debug)]
pub enum Health {
    /// Attached.
    Attached,
    /// The cgroup was removed; removing the throttle tidies up.
    CgroupVanished,
    /// The cgroup was removed, but sockets that were made in it are still open, and limited.
    SocketsRemain,
    /// Somebody else detached it.
    DetachedByOthers,
    /// The kernel could not be asked.
    Unknown(Error),
}

/// One direction of a throttle, as it is now.
#[derive(Debug)]
pub struct DirectionStatus {
    /// Which.
    pub direction: Direction,
    /// What it allows.
    pub limits: Limits,
    /// How it is.
    pub health: Health,
    /// What it did so far. `None` when the cgroup is gone.
    pub counters: Result<Option<Counters>>,
}

/// A throttle, as it is now.
#[derive(Debug)]
pub struct ThrottleStatus {
    /// Its number.
    pub id: ThrottleId,
    /// Its name on this host, if it has one.
    pub name: Option<String>,
    /// The cgroup's directory, when it was added.
    pub cgroup: PathBuf,
    /// How it is attached.
    pub mode: Mode,
    /// How TCP is held to the limits.
    pub tcp: Tcp,
    /// How the program for TCP is; `None` where there is none.
    pub tcp_health: Option<Health>,
    /// Its directions. One that is missing here was removed when removing the other failed.
    pub directions: Vec<DirectionStatus>,
}
