//! What these tests share.

use std::path::PathBuf;
use std::process::{Command, Output};

/// A program of another crate of the workspace, built with it: beside the directory of this test.
pub(crate) fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(|deps| deps.parent()).unwrap().join(name);
    assert!(path.is_file(), "{} was not built", path.display());
    path
}

/// Runs a command, which has to succeed, and returns what it printed.
pub(crate) fn run(words: &[&str]) -> String {
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", shown(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// All of what a command said, for messages.
pub(crate) fn shown(output: &Output) -> String {
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
