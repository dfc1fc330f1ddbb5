//! The host beside BPF: processes, capabilities, clocks, and which Linux this is.

pub mod clocks;
pub mod process;
pub mod release;
pub mod rights;
