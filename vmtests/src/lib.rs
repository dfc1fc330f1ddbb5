//! What tests on a real kernel stand on: scratch cgroups, private namespaces, and the historical leak.
//!
//! A test that uses this needs root and carries `root_` in its name, and runs in a process of its own
//! (as cargo-nextest does): it may enter namespaces and cgroups.
#![forbid(unsafe_code)]

pub mod cgroup;
pub mod isolation;
pub mod leak;
pub mod traffic;
