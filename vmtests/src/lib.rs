//! The harness: what proves that throttles leave nothing behind, on a model of the kernel and on real ones.
//!
//! A test on a real kernel needs root and carries `root_` in its name, and runs in a process of its own
//! (as cargo-nextest does): it may enter namespaces and cgroups.
#![forbid(unsafe_code)]

pub mod again;
pub mod cgroup;
pub mod completion;
pub mod corpus;
pub mod differential;
pub mod env;
pub mod gate;
pub mod isolation;
pub mod iterator;
pub mod lab;
pub mod leak;
pub mod model;
pub mod neighbour;
pub mod process;
pub mod tcx;
pub mod traffic;
pub mod tun;
pub mod vm;
