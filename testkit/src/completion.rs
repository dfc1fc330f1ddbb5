//! Asks a shell for completions.

use std::process::Command;

/// What bash offers for the last of these words, with a script of `clap_complete`'s.
///
/// # Panics
/// bash cannot be run.
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
