//! See `bpf::fuzzing::limits`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bpf::fuzzing::limits(input));
