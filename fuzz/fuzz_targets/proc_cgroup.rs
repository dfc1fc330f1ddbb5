//! See `kernel::fuzzing::proc_cgroup`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| kernel::fuzzing::proc_cgroup(input));
