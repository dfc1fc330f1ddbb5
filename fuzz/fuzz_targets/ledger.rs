//! See `bpf::fuzzing::ledger`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bpf::fuzzing::ledger(input));
