//! Properties of this crate's parsers that hold for any input. Each function checks one parser, and panics if a
//! property fails. The fuzzer (`fuzz/`) and the tests below call them.
// These functions panic by design.
#![allow(clippy::missing_panics_doc)]

use std::collections::BTreeMap;

use crate::devices::owner_of;
use crate::ledger::{self, Entry};
use crate::limits::{Burst, Rate, RateError};
use crate::owner::Owner;
use crate::program::parse_owner;

/// Checks the parser of ledger entries. An entry that was read and written again is read as the same entry. A refusal
/// has a message.
pub fn ledger(text: &[u8]) {
    match ledger::parse(text) {
        Ok(entry) => {
            assert_eq!(entry.schema_version, ledger::SCHEMA_VERSION);
            let written = serde_json::to_vec(&entry).unwrap();
            assert_eq!(ledger::parse(&written), Ok(entry.clone()));
            not_torn(&entry, &written);
        }
        Err(why) => assert!(!why.is_empty()),
    }
}

/// A truncated file is never accepted.
fn not_torn(entry: &Entry, written: &[u8]) {
    for end in [0, 1, written.len() / 2, written.len() - 1] {
        assert!(ledger::parse(&written[..end]).is_err(), "{end} bytes of {entry:?}");
    }
}

/// Checks the parsers of rates and bursts. They accept only values within their bounds, and read back what they print.
pub fn limits(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    match text.parse::<Rate>() {
        Ok(rate) => printed_rate_is_read(rate),
        Err(error @ RateError::Malformed { .. }) => assert!(error.to_string().contains("mbit")),
        Err(RateError::OutOfRange(_)) => assert!(text.contains(|c: char| c.is_ascii_digit())),
    }
    if let Ok(burst) = text.parse::<Burst>() {
        assert!(burst <= Burst::MAX);
        assert_eq!(burst.to_string().parse(), Ok(burst));
    }
}

fn printed_rate_is_read(rate: Rate) {
    assert!((Rate::MIN..=Rate::MAX).contains(&rate));
    assert_eq!(rate.bytes_per_second().to_string().parse(), Ok(rate));
    // The printed rate has three decimals, so it may be lower by at most a thousandth, and is never higher.
    let printed = rate.to_string();
    let read: Rate = printed.parse().unwrap();
    assert_eq!(read.to_string(), printed);
    let (rate, read) = (rate.bytes_per_second(), read.bytes_per_second());
    assert!(read <= rate && rate - read <= rate / 1_000, "{printed}: {read} of {rate}");
}

/// Checks the parser of a program's metadata. Five variables of any size give an owner or none, and never one without a
/// pid.
pub fn metadata(bytes: &[u8]) {
    let names = ["owner_pid", "owner_start", "owner_pidns", "owner_boot", "version"];
    let Some((sizes, mut rest)) = bytes.split_first_chunk::<5>() else { return };
    let mut variables = BTreeMap::new();
    for (name, &size) in names.iter().zip(sizes) {
        // A small number is a variable's size. A large number means that the variable is missing.
        if let Some((bytes, others)) = rest.split_at_checked(size.into()) {
            variables.insert((*name).to_owned(), bytes.to_vec());
            rest = others;
        }
    }
    let Some(owner) = parse_owner(&variables) else { return };
    assert_ne!(owner.pid, 0);
    assert!(!owner.boot_id.contains('\0') && !owner.version.contains('\0'));
    assert_eq!(parse_owner(&as_variables(&owner)), Some(owner));
}

fn as_variables(owner: &Owner) -> BTreeMap<String, Vec<u8>> {
    [
        ("owner_pid", owner.pid.to_ne_bytes().to_vec()),
        ("owner_start", owner.start_time.to_ne_bytes().to_vec()),
        ("owner_pidns", owner.pid_namespace.to_ne_bytes().to_vec()),
        ("owner_boot", [owner.boot_id.as_bytes(), b"\0\0"].concat()),
        ("version", [owner.version.as_bytes(), b"\0"].concat()),
    ]
    .map(|(name, bytes)| (name.to_owned(), bytes))
    .into()
}

/// Checks which network device is ours. The first line is its name, the rest its alias. A device is ours only if its
/// name matches the owner that its alias names.
pub fn device(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    let (name, alias) = text.split_once('\n').unwrap_or((text, ""));
    assert_eq!(owner_of(name, false, Some(alias)), None);
    assert_eq!(owner_of(name, true, None), None);
    let Some(owner) = owner_of(name, true, Some(alias)) else { return };
    let mut names = ('a'..='z').map(|last| format!("chadq{}{last}", owner.pid));
    assert!(names.any(|ours| ours == name), "{name:?} is no name that a queue gets");
    let written = serde_json::to_string(&owner).unwrap();
    assert_eq!(owner_of(name, true, Some(&written)), Some(owner));
}

#[cfg(test)]
mod tests {
    use testkit::corpus::replay;

    macro_rules! corpora {
        ($($test:ident: $target:ident,)*) => {
            $(#[test] fn $test() { replay(stringify!($target), super::$target); })*
        };
    }

    corpora! {
        what_holds_of_the_ledger_holds_of_all_that_is_kept: ledger,
        what_holds_of_limits_holds_of_all_that_is_kept: limits,
        what_holds_of_metadata_holds_of_all_that_is_kept: metadata,
        what_holds_of_devices_holds_of_all_that_is_kept: device,
    }
}
