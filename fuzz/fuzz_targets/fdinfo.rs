//! See `bpf::fuzzing::fdinfo`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bpf::fuzzing::fdinfo(input));
