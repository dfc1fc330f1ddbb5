//! See `kernel::fuzzing::fdinfo`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| kernel::fuzzing::fdinfo(input));
