//! Runs `vmtests` as a user types it.

use std::path::PathBuf;

use assert_cmd::Command;
use predicates::str::contains;

fn vmtests() -> Command {
    Command::new(env!("CARGO_BIN_EXE_vmtests"))
}

/// A file with these steps, and the folder that it lies in.
fn sequence(steps: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sequence.json");
    std::fs::write(&file, format!(r#"{{"why": "", "steps": {steps}}}"#)).unwrap();
    (dir, file)
}

#[test]
fn a_sequence_is_replayed_on_the_model() {
    let (_dir, file) =
        sequence(r#"[{"create_cgroup": "a"}, {"start": {"owner": 0, "fault": null}}]"#);
    let assert = vmtests().arg("replay").arg(file).assert();
    assert.success().stdout(contains("it holds: 2 steps"));
}

#[test]
fn what_cannot_be_replayed_is_no_success() {
    let (_dir, file) = sequence("[]");
    let assert = vmtests().arg("replay").arg(&file).assert();
    assert.code(2).stderr(contains("nothing would be tried"));
    let assert = vmtests().arg("replay").arg(file.with_extension("none")).assert();
    assert.code(2).stderr(contains("sequence.none"));
    let (_dir, file) = sequence(r#"[{"remove_cgroup": "a"}]"#);
    let assert = vmtests().arg("replay").arg(&file).assert();
    assert.code(2).stderr(contains("nothing was tried"));
    let (_dir, file) = sequence(r#"[{"create_cgroup": "a"}]"#);
    let assert = vmtests().arg("replay").arg(&file).args(["--system", "program"]).assert();
    assert.code(2).stderr(contains("--on kernel"));
}

#[test]
fn a_sequence_of_calls_is_replayed_on_two_models() {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../sim/regressions");
    let mut files = std::fs::read_dir(file).unwrap();
    let file = files.next().expect("one is kept").unwrap().path();
    let assert = vmtests().arg("replay").arg(&file).args(["--rules", "6.12"]).assert();
    assert.success().stdout(contains("calls, the same answers"));
    let assert = vmtests().arg("replay").arg(&file).args(["--system", "engine"]).assert();
    assert.code(2).stderr(contains("leave out --system"));
}
