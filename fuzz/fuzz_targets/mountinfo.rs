//! See `kernel::fuzzing::mountinfo`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| kernel::fuzzing::mountinfo(input));
