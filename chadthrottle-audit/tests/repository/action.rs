//! What the GitHub action runs, with programs that write down how they were called in the place of the auditor and sudo.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

const ACTION: &str = include_str!("../../../.github/actions/chadthrottle-gate/action.yml");

/// The script of the last step.
fn script() -> String {
    let (_, script) = ACTION.rsplit_once("      run: |\n").expect("the last step runs a script");
    let lines = script.lines().map(|line| line.strip_prefix("        ").unwrap_or(line));
    lines.collect::<Vec<_>>().join("\n")
}

fn executable(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}

/// Runs it with these inputs; what the auditor was called with, a word a line, and how it ended.
fn run(program: &str, junit: &str, status: u8) -> (Vec<String>, Output) {
    let folder = TempDir::new().unwrap();
    let called = folder.path().join("called");
    let auditor = folder.path().join("chadthrottle-audit");
    let note = format!("#!/bin/sh\nprintf '%s\\n' \"$@\" >'{}'\n", called.display());
    let junit = if junit.is_empty() { String::new() } else { at(&folder, junit) };
    let write = if junit.is_empty() { String::new() } else { format!("echo '<x/>' >'{junit}'\n") };
    let annotate = "echo '::error::left' >\"$RUNNER_TEMP/chadthrottle-gate-annotations\"\n";
    executable(&auditor, &format!("{note}{write}{annotate}exit {status}\n"));
    // `sudo -E COMMAND`
    executable(&folder.path().join("sudo"), "#!/bin/sh\nshift\nexec \"$@\"\n");
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let output = Command::new("bash")
        .args(["--noprofile", "--norc", "-eo", "pipefail", "-c", &script()])
        .env("PATH", path)
        .env("RUNNER_TEMP", folder.path())
        .env("AUDITOR", auditor)
        .env("RUN", "make check; echo \"$HOME\"")
        .env("PROGRAM", program)
        .env("SETTLE", "3s")
        .env("JUNIT", &junit)
        .env("SARIF", "")
        .output()
        .unwrap();
    let called = fs::read_to_string(called).unwrap_or_default();
    (called.lines().map(str::to_owned).collect(), output)
}

fn at(folder: &TempDir, name: &str) -> String {
    folder.path().join(name).into_os_string().into_string().unwrap()
}

/// The values of an option.
fn values<'a>(called: &'a [String], option: &str) -> Vec<&'a str> {
    let pairs = called.windows(2).filter(|pair| pair[0] == option);
    pairs.map(|pair| pair[1].as_str()).collect()
}

#[test]
fn the_command_is_run_by_the_gate_as_it_was_written() {
    let (called, output) = run("mine_*\n\nyours\n", "", 0);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(called[0], "gate");
    assert_eq!(values(&called, "--program"), ["mine_*", "yours"]);
    assert_eq!(values(&called, "--settle"), ["3s"]);
    let command = ["--", "bash", "-eo", "pipefail", "-c", "make check; echo \"$HOME\""];
    assert_eq!(called[called.len() - command.len()..], command);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "::error::left\n");
}

#[test]
fn where_no_program_is_named_everything_is_looked_for() {
    for program in ["", "\n", "*"] {
        assert_eq!(values(&run(program, "", 0).0, "--program"), ["*"], "{program:?}");
    }
}

#[test]
fn the_status_is_the_gates_and_the_files_are_there() {
    let (called, output) = run("*", "gate.xml", 1);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let outputs = values(&called, "--output");
    assert!(outputs.iter().any(|it| it.starts_with("github=")), "{outputs:?}");
    assert!(outputs.iter().any(|it| it.starts_with("junit=") && it.ends_with("gate.xml")));
}

/// `actions/cache` alone would save nothing when a later step fails.
#[test]
fn the_auditor_is_kept_before_the_command_has_a_chance_to_fail() {
    let at = |text: &str| ACTION.find(text).unwrap_or_else(|| panic!("there is no {text:?}"));
    let steps = ["actions/cache/restore@", "cargo build", "actions/cache/save@", "$AUDITOR"];
    assert!(steps.map(at).is_sorted(), "{:?}", steps.map(at));
    assert!(!ACTION.contains("actions/cache@"));
}
