//! The host apart from BPF: processes, capabilities, clocks and the kernel release.

pub mod clocks;
pub mod process;
pub mod release;
pub mod rights;
