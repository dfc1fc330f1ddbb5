//! See `bpf::fuzzing::device`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bpf::fuzzing::device(input));
