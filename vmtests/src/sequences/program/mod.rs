//! Runs the program `chadthrottle` as its users do, with a process for each throttle. strace injects faults and death.

mod process;
mod skip;
mod strace;
mod system;

pub use system::ProgramSystem;
