//! See `chadthrottle_audit::fuzzing::snapshot`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| chadthrottle_audit::fuzzing::snapshot(input));
