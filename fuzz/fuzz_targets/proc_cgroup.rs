//! See `bpf::fuzzing::proc_cgroup`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bpf::fuzzing::proc_cgroup(input));
