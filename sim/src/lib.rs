//! Simulates in memory, without root, what Linux does with BPF programs on cgroups.
//!
//! [`Model`] is a simulated kernel as one process sees it. Code that is generic over [`bpf::CgroupBpf`] runs on it
//! unchanged. It opens cgroups, loads and attaches programs, and pins links. Any number of processes share one kernel,
//! and a test can kill each of them at any point. So a test sees in microseconds what a crash leaves attached.
//!
//! # Map of the crate
//! | item | what it does |
//! | --- | --- |
//! | [`Model`] | boots a simulated kernel; starts and kills processes; counts packets |
//! | [`Version`] | says which kernel's rules apply, from 5.12 on |
//! | [`World`] | extends [`bpf::CgroupBpf`] by what happens around a program: cgroups come and go, processes start, move and send, sockets stay open. [`Model`] and the running kernel ([`bpf::LinuxBpf`]) implement it |
//! | [`Census`] | lists the programs, links, pins and maps of throttles that are left |
//! | [`differential`] | makes the same random calls on two worlds and compares every answer: this is how the model is held to real kernels |
//!
//! The rules are those of `kernel/bpf/cgroup.c` and of the calls' entry points in `kernel/bpf/syscall.c`. The tests in
//! `tests/differential.rs` compare them with the kernel that runs. `regressions` keeps the calls that once differed.
//!
//! # Not simulated
//! The model has no `BPF_F_BEFORE` and `BPF_F_AFTER` with a neighbour (6.17), LSM programs, capabilities, memory limits
//! or time. Some work the kernel does a little later, such as freeing a removed cgroup. The model does it at once.
//!
//! # Example
//! A process attaches a program without a link and is killed. The program stays attached:
//! ```
//! use std::path::Path;
//!
//! use kernel::AttachType;
//! use kernel::boundary::{Cgroups, Programs};
//! use kernel::list::{AttachFlags, Scope};
//! use sim::{Model, Version, World};
//!
//! let kernel = Model::boot(Version::NEWEST, Path::new("/cgroup"), Path::new("/bpf"));
//! let app = Path::new("/cgroup/app");
//! kernel.create_cgroup(app).unwrap();
//!
//! let process = kernel.new_process();
//! let cgroup = process.open_cgroup(app)?;
//! let program = process.load_pass("pass", AttachType::INET_EGRESS)?;
//! process.attach(&program, &cgroup, AttachType::INET_EGRESS, AttachFlags::MULTI, None)?;
//! process.kill();
//!
//! let list = kernel.query(&kernel.open_cgroup(app)?, AttachType::INET_EGRESS, Scope::Local)?;
//! assert_eq!(list.programs.len(), 1);
//! # Ok::<(), kernel::Error>(())
//! ```
#![forbid(unsafe_code)]

pub mod differential;
mod model;
mod world;

pub use model::{
    Model, ModelCgroup, ModelLink, ModelProcess, ModelProgram, ModelQueue, ModelSocket, Version,
};
pub use world::{Attach, Census, LinuxProcess, LinuxSocket, World};
