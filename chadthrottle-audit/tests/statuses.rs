//! How every command that judges what is recorded ends, and what it says: nothing to tell, some of it, all of it leaked
//! or unseen.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

/// A recorded snapshot, as the second command line argument wants it; `unseen`: with a cgroup that could not be read.
fn snapshot(folder: &Path, name: &str, unseen: bool) -> String {
    let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("../auditor/tests/snapshots-in");
    let text = fs::read_to_string(recorded.join(format!("{name}.json"))).unwrap();
    let mut snapshot: Value = serde_json::from_str(&text).unwrap();
    if unseen {
        for look in snapshot["looks"].as_array_mut().unwrap() {
            let gap = json!({"about": "cgroups", "what": "/unseen", "why": "denied"});
            look["coverage"]["gaps"].as_array_mut().unwrap().push(gap);
        }
    }
    let file = folder.join(format!("{name}-{unseen}.json"));
    fs::write(&file, snapshot.to_string()).unwrap();
    file.display().to_string()
}

fn audit(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_chadthrottle-audit")).args(args).output().unwrap()
}

#[test]
fn a_scan_ends_with_its_verdict_and_says_it_in_every_format() {
    let folder = tempfile::tempdir().unwrap();
    // The snapshot, whether a cgroup could not be read, whether leaks are known, the status, the verdict, and words.
    let cases = [
        ("foreign", false, false, 0, "clean", "clean: "),
        ("active", false, false, 0, "clean", "clean: "),
        ("waiting", false, false, 0, "clean", "clean: "),
        ("orphaned_attachment", false, false, 1, "leaks", "leaks: "),
        ("orphaned_device", false, false, 1, "leaks", "leaks: "),
        ("orphaned_attachment", false, true, 0, "clean", "clean: "),
        ("foreign", true, false, 2, "incomplete", "incomplete: "),
        ("active", true, false, 2, "incomplete", "incomplete: "),
        ("orphaned_attachment", true, false, 1, "leaks", "leaks: "),
        ("orphaned_attachment", true, true, 2, "incomplete", "incomplete: "),
    ];
    for (name, unseen, is_known, status, verdict, words) in cases {
        let file = snapshot(folder.path(), name, unseen);
        let mut args = vec!["scan", "--from", &file];
        if is_known {
            args.extend(["--baseline", &file]);
        }
        let case = format!("{name}, unseen: {unseen}, known: {is_known}");
        let text = audit(&args);
        let told = String::from_utf8_lossy(&text.stdout);
        assert_eq!(text.status.code(), Some(status), "{case}: {told}");
        assert!(told.contains(words), "{case}: {told}");
        assert_eq!(told.contains("/unseen"), unseen, "{case}: {told}");
        let json = audit(&[&args[..], &["--format", "json"]].concat());
        let report: Value = serde_json::from_slice(&json.stdout).unwrap();
        assert_eq!((json.status.code(), &report["verdict"]), (Some(status), &verdict.into()));
        assert_eq!(report["coverage"]["gaps"].as_array().unwrap().len(), usize::from(unseen));
        assert!(text.stderr.is_empty() && json.stderr.is_empty(), "{case}");
    }
}

/// A file, standard output, or both are full.
#[test]
fn everything_that_could_not_be_written_is_told_and_the_rest_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let from = snapshot(folder.path(), "orphaned_attachment", false);
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    let good = folder.path().join("good.json");
    let (output, bad) = (format!("json={}", good.display()), "text=/dev/full");
    for (outputs, is_stdout_full, status, told) in [
        (vec![&*output], false, 1, vec![]),
        (vec![&*output, bad], false, 70, vec!["/dev/full"]),
        (vec![bad, &*output], false, 70, vec!["/dev/full"]),
        (vec![&*output], true, 70, vec!["standard output"]),
        (vec![bad, &*output], true, 70, vec!["/dev/full", "standard output"]),
    ] {
        let _ = fs::remove_file(&good);
        let mut command = Command::new(env!("CARGO_BIN_EXE_chadthrottle-audit"));
        command.args(["scan", "--from", &from]);
        for output in &outputs {
            command.args(["--output", output]);
        }
        if is_stdout_full {
            command.stdout(full());
        }
        let ended = command.output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(status), "{outputs:?}: {said}");
        let expected: Vec<_> = told.iter().map(|it| format!("cannot write to {it}: ")).collect();
        assert!(expected.iter().all(|it| said.contains(it)), "{outputs:?}: {said}");
        assert_eq!(said.matches("cannot write").count(), told.len(), "{said}");
        assert!(good.exists() && (is_stdout_full || !ended.stdout.is_empty()), "{outputs:?}");
    }
}
