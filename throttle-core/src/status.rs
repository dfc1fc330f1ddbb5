//! The engine's reports about its throttles.

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

/// An added throttle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// The throttle's number in this engine.
    pub id: ThrottleId,
    /// The throttle's name on this host, if the throttle outlives a crash.
    pub name: Option<String>,
    /// The way the programs are attached.
    pub mode: Mode,
    /// The way the throttle limits TCP.
    pub tcp: Tcp,
    /// Notes for the user about these decisions.
    pub notes: Vec<&'static str>,
    /// Other people's programs that are out of force while the throttle lasts. Empty unless [`Spec::displace`] allows
    /// it.
    ///
    /// [`Spec::displace`]: crate::Spec::displace
    pub displaced: Vec<Neighbour>,
}

/// A throttle that was armed again.
#[derive(Debug)]
pub struct Rearmed {
    /// The throttle as added now.
    pub started: Started,
    /// The result of removing the former attachments. After an error the next start on this host tries again.
    pub forgotten: Result<()>,
}

/// A removed throttle. Queries have shown that its programs are gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// The result for each direction.
    pub directions: BTreeMap<Direction, Detached>,
}

/// The health of one of a throttle's programs.
#[derive(Debug)]
pub enum Health {
    /// The program is attached.
    Attached,
    /// The cgroup was removed. Removing the throttle cleans up.
    CgroupVanished,
    /// The cgroup was removed, but sockets made in it are still open, and limited.
    SocketsRemain,
    /// Somebody else has detached the program.
    DetachedByOthers,
    /// The kernel could not be queried.
    Unknown(Error),
}

/// The current status of one direction of a throttle.
#[derive(Debug)]
pub struct DirectionStatus {
    /// The direction.
    pub direction: Direction,
    /// The limits.
    pub limits: Limits,
    /// The health of the direction's program.
    pub health: Health,
    /// The counters since the throttle was added. `None` when the cgroup is gone.
    pub counters: Result<Option<Counters>>,
}

/// The current status of a throttle.
#[derive(Debug)]
pub struct ThrottleStatus {
    /// The throttle's number in this engine.
    pub id: ThrottleId,
    /// The throttle's name on this host, if it has one.
    pub name: Option<String>,
    /// The cgroup's directory when the throttle was added.
    pub cgroup: PathBuf,
    /// The way the programs are attached.
    pub mode: Mode,
    /// The way the throttle limits TCP.
    pub tcp: Tcp,
    /// The health of the program for TCP; `None` without one.
    pub tcp_health: Option<Health>,
    /// The limited directions. A direction is missing if it was removed while removing the other one failed.
    pub directions: Vec<DirectionStatus>,
}
