//! Traces which process asks the kernel for what: loads, forks, and calls of `bpf(2)`.

mod calls;
pub mod loads;
