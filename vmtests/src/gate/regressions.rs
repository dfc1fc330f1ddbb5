//! Sequences that failed once: kept as files, and run again before anything new is tried.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::random::Failure;
use super::step::Step;

/// A sequence, and why it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Regression {
    /// What it found.
    pub why: String,
    /// The sequence.
    pub steps: Vec<Step>,
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

/// Writes down a sequence that failed, so that it is run again first from now on. Where the sources cannot be
/// written (in a virtual machine, say), it goes to the folder for temporary files.
///
/// # Errors
/// When it cannot be written even there.
pub fn keep(failure: &Failure, system: &str, seed: u64) -> io::Result<PathBuf> {
    let temporary = std::env::temp_dir();
    keep_in(&folder(), failure, system, seed)
        .or_else(|_| keep_in(&temporary, failure, system, seed))
}

fn keep_in(folder: &Path, failure: &Failure, system: &str, seed: u64) -> io::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let why = failure.violation.to_string();
    let mut text = serde_json::to_string_pretty(&Regression { why, steps: failure.steps.clone() })?;
    text.push('\n');
    let name = format!("{system} {} {seed}.json", failure.violation.property).replace(' ', "-");
    let path = folder.join(name);
    fs::write(&path, text)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::plan::PRELUDE;
    use crate::gate::trial::{Property, Violation};

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
        let path = keep_in(dir.path(), &failure, "the engine", 7).unwrap();
        let why = "nothing left: a pin".to_owned();
        let kept = Regression { why, steps: PRELUDE.to_vec() };
        assert_eq!(all(dir.path()).unwrap(), [(path, kept)]);
        fs::write(dir.path().join("x.json"), "[]").unwrap();
        assert!(all(dir.path()).is_err());
    }
}
