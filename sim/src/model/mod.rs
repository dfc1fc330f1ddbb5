//! The simulated kernel.
//!
//! `kernel` has the rules, `list` the programs of one cgroup and attach type, `tree` the cgroups, `queue` the devices of
//! download queues. `handles` is what a process holds: descriptors that close when they are dropped. `boundary` implements
//! [`bpf::CgroupBpf`] and `world` implements [`World`](crate::World) on them. Where kernels differ, the rules ask [`Version`].

mod boundary;
mod handles;
pub(crate) mod kernel;
pub(crate) mod list;
mod queue;
mod tree;
mod version;
mod world;

pub use handles::{Model, ModelCgroup, ModelLink, ModelProcess, ModelProgram, ModelSocket};
pub use queue::ModelQueue;
pub use version::Version;
