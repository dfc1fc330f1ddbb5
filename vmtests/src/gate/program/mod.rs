//! The `chadthrottle` program as its users run it: each throttle a process of its own, faults and death made by
//! strace.

mod process;
mod skip;
mod strace;
mod system;

pub use system::ProgramSystem;
