//! The BPF objects that have ids, and who keeps them: pins and processes.

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
