//! chadthrottle's BPF programs, and the one place that talks to `bpf(2)`.

pub mod adopt;
mod again;
mod attach_type;
mod calls;
pub mod cgroup;
pub mod clocks;
mod departures;
pub mod device_programs;
pub mod devices;
pub mod error;
#[cfg(test)]
mod exact;
#[cfg(test)]
mod flow_exact_tests;
#[cfg(test)]
mod flow_tests;
#[cfg(test)]
mod folder;
pub mod follow;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod holders;
mod ids;
mod iterator;
pub mod kernel;
mod layout;
pub mod ledger;
pub mod limits;
pub mod lineage;
pub mod link;
pub mod list;
pub mod loads;
#[cfg(test)]
mod mark_tests;
mod metadata;
#[cfg(test)]
mod native;
mod netns;
pub mod objects;
pub mod offered;
mod owner;
#[cfg(test)]
mod packet_tests;
pub mod pins;
mod populated;
pub mod probe;
pub mod program;
pub mod qdisc;
pub mod queue;
#[cfg(test)]
mod queue_packet_tests;
mod rate;
pub mod release;
pub mod rights;
mod rtnetlink;
pub mod run_time;
pub mod serde_path;
pub mod sockets;
#[cfg(test)]
mod sockops_tests;
pub mod state;
mod sys;
pub mod throttle;
#[cfg(test)]
mod verdict_tests;
pub mod walk;
#[cfg(test)]
mod window_tests;

pub use attach_type::{AttachType, UnknownAttachType};
pub use error::{Error, Result};
pub use ids::{CgroupId, LinkId, MapId, ProgramId};
pub use kernel::{CgroupBpf, LinuxBpf, ProgramIdentity};
pub use owner::{
    Birth, INITIAL_PID_NAMESPACE, Owner, birth, boot_id, is_proc_ours, pid_namespace, start_time,
};
