//! See `bpf::fuzzing::metadata`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bpf::fuzzing::metadata(input));
