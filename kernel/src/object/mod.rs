//! BPF objects with ids, and their holders: pins and processes.

pub(crate) mod again;
pub mod holders;
pub(crate) mod ids;
pub mod iterator;
pub mod link;
pub mod map;
pub mod objects;
pub mod pins;
pub mod program;
pub mod run_time;
