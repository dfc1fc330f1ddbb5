//! Sequences that failed once: kept as files, and run again before anything new is tried.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::random::Failure;
use super::step::Step;
use super::trial::Violation;
use crate::again;

/// A sequence, and why it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Regression {
    /// What it found.
    pub why: String,
    /// The sequence.
    pub steps: Vec<Step>,
}

impl Regression {
    /// What is kept of a failure.
    pub fn of(failure: &Failure) -> Self {
        Self { why: failure.violation.to_string(), steps: failure.steps.clone() }
    }

    /// It was kept, and fails.
    pub fn failed(&self, violation: Violation) -> Failure {
        Failure { violation, steps: self.steps.clone(), cases: 1, again: None }
    }
}

/// Where they are kept.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions/gate")
}

/// One that is kept in that file.
///
/// # Errors
/// When it cannot be read, or is none.
pub fn read(file: &Path) -> Result<Regression> {
    let text = fs::read(file).with_context(|| file.display().to_string())?;
    serde_json::from_slice(&text).with_context(|| format!("{}: no sequence", file.display()))
}

/// All that are kept in a folder, by the names of their files.
///
/// # Errors
/// When the folder or one of them cannot be read, or one is none.
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

/// Writes down a sequence that failed (see [`again::keep`]).
///
/// # Errors
/// When it cannot be written where it stays.
pub fn keep(failure: &Failure, system: &str, seed: u64) -> io::Result<PathBuf> {
    let (name, text) = as_file(failure, system, seed)?;
    again::keep(&folder(), &name, &text)
}

/// Name and text.
fn as_file(failure: &Failure, system: &str, seed: u64) -> io::Result<(String, String)> {
    let mut text = serde_json::to_string_pretty(&Regression::of(failure))?;
    text.push('\n');
    let name = format!("{system} {} {seed}.json", failure.violation.property).replace(' ', "-");
    Ok((name, text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::plan::PRELUDE;
    use crate::gate::trial::Property;

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
        let path = again::keep_in(&[dir.path().to_owned()], &name, &text).unwrap();
        let why = "nothing left: a pin".to_owned();
        let kept = Regression { why, steps: PRELUDE.to_vec() };
        assert_eq!(all(dir.path()).unwrap(), [(path, kept)]);
        fs::write(dir.path().join("x.json"), "[]").unwrap();
        assert!(all(dir.path()).is_err());
    }
}
