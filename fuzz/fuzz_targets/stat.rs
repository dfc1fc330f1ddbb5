//! See `bpf::fuzzing::stat`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bpf::fuzzing::stat(input));
