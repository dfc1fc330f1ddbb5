//! What the root tests of the program share.

#[path = "../../../auditor/tests/root/common.rs"]
mod shared;

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Output, Stdio};

use assert_cmd::Command;
use serde_json::Value;
use tempfile::TempDir;
use testkit::process::Mortal;

pub(crate) use self::shared::*;

pub(crate) fn audit(args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("chadthrottle-audit").unwrap();
    command.args(args);
    command
}

/// The report of a scan, and its exit status.
pub(crate) fn scan(root: &Path, program: &str, more: &[&str]) -> (i32, Value) {
    let mut command = audit(&["scan", "--format", "json", "--all", "--program", program]);
    let output = command.arg("--root").arg(root).args(more).output().unwrap();
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", shown(&output)));
    (output.status.code().unwrap(), report)
}

/// The same, where something happens after its first look. The second one has to be a while later.
pub(crate) fn scan_while(
    root: &Path,
    program: &str,
    settle: &str,
    happens: impl FnOnce(),
) -> (i32, Value) {
    let mut command =
        std::process::Command::new(assert_cmd::cargo::cargo_bin("chadthrottle-audit"));
    command.args(["scan", "-v", "--format", "json", "--all", "--settle", settle]);
    command.args(["--program", program]).arg("--root").arg(root);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut child = Mortal::from(child);
    let mut said = String::new();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    while !said.contains(LOOKS_AGAIN) {
        assert_ne!(stderr.read_line(&mut said).unwrap(), 0, "it looked once: {said}");
    }
    happens();
    // What else is said there fits into the pipe.
    let mut told = String::new();
    child.stdout.take().unwrap().read_to_string(&mut told).unwrap();
    stderr.read_to_string(&mut said).unwrap();
    let report = serde_json::from_str(&told);
    let report = report.unwrap_or_else(|error| panic!("{error}: {told}\n--- stderr\n{said}"));
    (child.wait().unwrap().code().unwrap(), report)
}

pub(crate) fn clean(root: &Path, program: &str) -> Output {
    let mut command = audit(&["clean", "--yes", "--program", program]);
    command.arg("--root").arg(root).output().unwrap()
}

pub(crate) fn shown(output: &Output) -> String {
    format!(
        "{}\n--- stdout\n{}\n--- stderr\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// The findings of a report's attachments that are not foreign, sorted.
pub(crate) fn findings(report: &Value) -> Vec<String> {
    let mut findings: Vec<String> = ["attachments", "programs"]
        .iter()
        .flat_map(|list| report[list].as_array().unwrap())
        .map(|it| it["finding"].as_str().unwrap().to_owned())
        .filter(|finding| finding != "foreign")
        .collect();
    findings.sort();
    findings
}

/// Compiles a program; the folder keeps it.
pub(crate) fn compiled(folder: &TempDir, source: &str) -> String {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
    let program = folder.path().join(source.file_stem().unwrap());
    let cc =
        std::process::Command::new("cc").arg("-o").arg(&program).arg(&source).output().unwrap();
    assert!(cc.status.success(), "{}", shown(&cc));
    program.into_os_string().into_string().unwrap()
}
