//! See `kernel::fuzzing::stat`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| kernel::fuzzing::stat(input));
