//! The throttle engine: adds, changes and removes rate limits on cgroups without leaking BPF programs.
//!
//! [`Engine`] holds the attachments of this process. It forgets an attachment only after a query has shown that the
//! program is gone.
//!
//! Some attachments outlive the process. The engine records them in the ledger before it makes them. After a crash, the
//! next start reads the ledger and removes what is left.
//!
//! The crate makes no system call itself. It reaches the kernel through [`bpf::CgroupBpf`] and files through
//! [`files::Files`]. To find a target, it asks the host through [`target::Places`].
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
