//! See `bpf::fuzzing::mountinfo`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bpf::fuzzing::mountinfo(input));
