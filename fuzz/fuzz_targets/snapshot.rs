//! See `auditor::fuzzing::snapshot`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| auditor::fuzzing::snapshot(input));
