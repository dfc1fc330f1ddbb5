//! The throttle engine: adds, changes and removes rate limits on cgroups, and cannot leak them.
//!
//! [`Engine`] holds what this process has attached. Every attachment is a value that must be detached,
//! and is forgotten only when a query has shown that its program is gone. What the end of the process
//! would not undo is written ahead into the ledger, from which the next start settles what a crash left.
//!
//! It has no system call of its own. The kernel is behind [`bpf::CgroupBpf`], files are behind [`files::Files`], and what
//! finding a target asks of the host is behind [`target::Places`].
#![forbid(unsafe_code)]

mod attachment;
mod engine;
mod error;
pub mod files;
mod id;
pub mod ledger;
mod load;
pub mod mark;
pub mod mode;
mod neighbour;
pub mod neighbours;
pub mod settle;
mod settlement;
mod spec;
mod status;
pub mod target;

pub use attachment::{Attachment, Detached, NotDetached};
pub use engine::{Config, Engine, spec_of};
pub use error::{Action, Error, Result};
pub use id::ThrottleId;
pub use spec::{Change, Direction, Spec};
pub use status::{DirectionStatus, Health, Rearmed, Removed, Started, ThrottleStatus};
