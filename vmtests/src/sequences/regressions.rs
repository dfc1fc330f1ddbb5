//! Keeps sequences that failed as files, and reads them, so that they run before anything new.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use testkit::replay;

use super::random::Failure;
use super::step::Step;
use super::trial::Violation;

/// A kept sequence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Regression {
    /// What it found when it failed.
    pub why: String,
    /// The sequence.
    pub steps: Vec<Step>,
}

impl Regression {
    /// Returns what to keep of a failure.
    pub fn of(failure: &Failure) -> Self {
        Self { why: failure.violation.to_string(), steps: failure.steps.clone() }
    }

    /// Makes a failure of a kept sequence that fails again.
    pub fn failed(&self, violation: Violation) -> Failure {
        Failure { violation, steps: self.steps.clone(), cases: 1, again: None }
    }
}

/// Returns the folder of the kept sequences.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions/sequences")
}

/// Reads a kept sequence.
///
/// # Errors
/// Fails if the file cannot be read or has no sequence.
pub fn read(file: &Path) -> Result<Regression> {
    let text = fs::read(file).with_context(|| file.display().to_string())?;
    serde_json::from_slice(&text).with_context(|| format!("{}: no sequence", file.display()))
}

/// Reads all kept sequences of a folder, in the order of their files' names.
///
/// # Errors
/// Fails if the folder or a file cannot be read, or a file has no sequence.
pub fn all(folder: &Path) -> Result<Vec<(PathBuf, Regression)>> {
    let mut files = Vec::new();
    for file in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = file?.path();
        if path.extension().is_some_and(|it| it == "json") {
            files.push(path);
        }
    }
    files.sort();
    files.into_iter().map(|path| Ok((path.clone(), read(&path)?))).collect()
}

/// Keeps a sequence that failed (see [`replay::keep`]).
///
/// # Errors
/// Fails if it cannot be written to a place that outlives this machine.
pub fn keep(failure: &Failure, system: &str, seed: u64) -> io::Result<PathBuf> {
    let (name, text) = as_file(failure, system, seed)?;
    replay::keep(&folder(), &name, &text)
}

/// Returns the name and the text of its file.
fn as_file(failure: &Failure, system: &str, seed: u64) -> io::Result<(String, String)> {
    let mut text = serde_json::to_string_pretty(&Regression::of(failure))?;
    text.push('\n');
    let name = format!("{system} {} {seed}.json", failure.violation.property).replace(' ', "-");
    Ok((name, text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sequences::plan::PRELUDE;
    use crate::sequences::trial::Property;

    #[test]
    fn what_is_kept_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(all(dir.path()).unwrap(), []);
        assert!(
            all(&dir.path().join("none")).is_err(),
            "where nothing is looked at, nothing is found"
        );
        let violation = Violation { property: Property::NothingLeft, what: "a pin".to_owned() };
        let failure = Failure { violation, steps: PRELUDE.to_vec(), cases: 3, again: None };
        let (name, text) = as_file(&failure, "the engine", 7).unwrap();
        let path = replay::keep_in(&[dir.path().to_owned()], &name, &text).unwrap();
        let why = "nothing left: a pin".to_owned();
        let kept = Regression { why, steps: PRELUDE.to_vec() };
        assert_eq!(all(dir.path()).unwrap(), [(path, kept)]);
        fs::write(dir.path().join("x.json"), "[]").unwrap();
        assert!(all(dir.path()).is_err());
    }
}
