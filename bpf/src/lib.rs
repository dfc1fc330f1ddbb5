//! chadthrottle's BPF programs, and the one place that talks to `bpf(2)`.

mod attach_type;
mod ids;
pub mod ledger;
mod owner;
pub mod serde_path;

pub use attach_type::{AttachType, UnknownAttachType};
pub use ids::{CgroupId, LinkId, MapId, ProgramId};
pub use owner::Owner;
