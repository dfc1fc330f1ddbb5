//! Finds leaked cgroup BPF programs, says why they are leaked, and removes just those.
#![forbid(unsafe_code)]

pub mod snapshot;
