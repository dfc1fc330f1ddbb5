//! Runs the inputs that the fuzzer keeps without the fuzzer: `fuzz/seeds` (by hand) and `fuzz/corpus` (its own). A bug
//! that it found once stays found.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// Calls `check` with every kept input of a target.
///
/// # Panics
/// Panics if `check` panics for an input, or if a target has no inputs. The message names all failed inputs.
pub fn replay(target: &str, check: impl Fn(&[u8])) {
    let files = files(target);
    let fails = |path: &PathBuf| {
        let input = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        catch_unwind(AssertUnwindSafe(|| check(&input))).is_err()
    };
    let failed: Vec<_> = files.iter().filter(|path| fails(path)).collect();
    assert!(failed.is_empty(), "{target} fails for {failed:?}; above is why");
}

fn files(target: &str) -> Vec<PathBuf> {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let in_folder = |kind: &str| {
        let folder = fuzz.join(kind).join(target);
        let listing =
            fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut files: Vec<_> = listing.map(|file| file.unwrap().path()).collect();
        files.sort();
        assert!(!files.is_empty(), "{} is empty", folder.display());
        files
    };
    ["seeds", "corpus"].into_iter().flat_map(in_folder).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "stat fails for [")]
    fn an_input_that_fails_is_named() {
        replay("stat", |input| assert!(input.is_empty()));
    }

    #[test]
    #[should_panic(expected = "no-such-target")]
    fn a_target_for_which_nothing_is_kept_fails() {
        replay("no-such-target", |_| {});
    }
}
