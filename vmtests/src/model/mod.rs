//! What the kernel does with programs on cgroups, in memory and without root.
//!
//! The rules are those of `kernel/bpf/cgroup.c` and the calls' entry points in `kernel/bpf/syscall.c`, told
//! again as simply as they can be; what differs between kernels is asked of [`Version`]. That they are
//! right is not a matter of reading: `tests/differential` gives the same random calls to a model and to the
//! kernel that it runs on, and compares results, errnos and queries.
//!
//! [`Model`] is the kernel as one process sees it. It stands wherever [`bpf::CgroupBpf`] or [`crate::lab::Lab`]
//! is asked for; any number of processes may share one [`kernel::Kernel`], and each can be killed.
//!
//! Not modelled: naming a neighbour with `BPF_F_BEFORE` and its relatives (6.17), LSM lists, memory limits, and
//! that the kernel does some of this a little later (closing a pinned link, a cgroup's last breath): here it is
//! done at once. `docs/kernel-model.md` says more.

mod boundary;
mod handles;
pub mod kernel;
mod lab;
pub mod list;
mod queue;
mod tree;
mod version;

pub use handles::{Model, ModelCgroup, ModelLink, ModelProcess, ModelProgram, ModelSocket};
pub use queue::ModelQueue;
pub use version::Version;
