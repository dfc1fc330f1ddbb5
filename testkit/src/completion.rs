//! Asks a shell for completions.

use std::process::Command;

/// Returns what bash offers for the last of these words, given a script of `clap_complete`.
///
/// # Panics
/// Panics if bash cannot be run.
pub fn in_bash(script: &str, words: &[&str]) -> Vec<String> {
    let ask = r#"
eval "$1"; shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
"_${1//-/__}" "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
for each in "${COMPREPLY[@]}"; do printf '%s\n' "$each"; done"#;
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", ask, "bash", script]).args(words);
    let said = bash.output().expect("bash runs");
    String::from_utf8_lossy(&said.stdout).lines().map(str::to_owned).collect()
}
