//! The command line, as far as it goes without root.

use std::ffi::OsStr;
use std::io::{Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command as StdCommand, Stdio};

use assert_cmd::Command;
use predicates::prelude::*;
use predicates::str::{contains, is_empty, starts_with};

fn audit(args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("chadthrottle-audit").unwrap();
    command.args(args);
    command
}

fn recorded(name: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../auditor/tests/snapshots-in");
    folder.join(format!("{name}.json")).into_os_string().into_string().unwrap()
}

#[test]
fn bad_usage_ends_with_64_and_says_what_is_wrong() {
    let usages: [(&[&str], &str); 23] = [
        (&[], "Usage:"),
        (&["scam"], "unrecognized subcommand 'scam'"),
        (&["scan", "--attach-type", "xdp"], "'xdp' is no cgroup attach type"),
        (&["scan", "--program", "a[b"], "invalid value 'a[b' for '--program <GLOB>'"),
        (&["scan", "--settle", "soon"], "'soon' for '--settle <TIME>'"),
        (&["scan", "--from", "x", "--root", "/a"], "cannot be used with"),
        (&["scan", "--from", "x", "--program", "a"], "cannot be used with"),
        (&["scan", "--format", "yaml"], "invalid value 'yaml' for '--format <FORMAT>'"),
        (&["scan", "--output", "report.json"], "write FORMAT=FILE, as in json=report.json"),
        (&["scan", "--output", "yaml=x"], "'yaml' is no format here; there are text, json"),
        (&["scan", "--output", "json="], "it names no file: write json=FILE"),
        (&["clean", "--yes", "--dry-run"], "cannot be used with"),
        // Who insists has to say what the program is called as well.
        (&["clean", "--yes", "--force", "41"], "--program <GLOB>"),
        (
            &["clean", "--yes", "--program", "a", "--force", "a"],
            "invalid value 'a' for '--force <ID>': this is no program id",
        ),
        (&["clean", "--program", "a", "--force", "-3"], "this is no program id"),
        (&["diff", "a"], "<AFTER>"),
        (&["diff", "a", "b", "--format", "prometheus"], "[possible values: text, json"),
        (&["diff", "a", "b", "--output", "prometheus=x"], "'prometheus' is no format here"),
        (&["gate"], "<COMMAND>"),
        (&["gate", "true"], "unexpected argument 'true'"),
        (&["gate", "--format", "prometheus", "--", "true"], "[possible values: text, json"),
        (&["gate", "--output", "prometheus=x", "--", "true"], "'prometheus' is no format here"),
        (&["explain", "leak"], "'leak' is no finding; there are active, pinned"),
    ];
    for (args, message) in usages {
        audit(args).assert().code(64).stdout(is_empty()).stderr(contains(message));
    }
}

#[test]
fn help_and_version_tell_the_exit_status_and_the_version() {
    audit(&["--help"]).assert().code(0).stdout(contains("Exit status:"));
    audit(&["scan", "--help"]).assert().code(0).stdout(contains("Exit status:"));
    audit(&["gate", "--help"]).assert().code(0).stdout(contains("\n  0   nothing is left behind"));
    audit(&["--version"]).assert().code(0).stdout(starts_with("chadthrottle-audit "));
}

#[test]
fn every_command_takes_q_and_v_and_tells_its_exit_statuses() {
    let commands = ["scan", "clean", "snapshot", "diff", "gate", "explain", "generate"];
    for command in commands {
        let statuses = contains("Exit status:").and(contains("  64  ")).and(contains("  70  "));
        let options = contains("-q, --quiet...").and(contains("-v, --verbose..."));
        audit(&[command, "--help"]).assert().code(0).stdout(statuses.and(options));
    }
}

#[test]
fn explain_lists_the_findings_and_explains_one() {
    let list = contains("orphaned_attachment").and(contains("active"));
    audit(&["explain"]).assert().code(0).stdout(list).stderr(is_empty());
    audit(&["explain", "orphaned_pin"])
        .assert()
        .code(0)
        .stdout(starts_with("orphaned_pin: a leak\n"));
}

#[test]
fn a_recorded_snapshot_is_judged_without_root() {
    audit(&["scan", "--from", &recorded("active")])
        .assert()
        .code(0)
        .stdout(contains("clean: no leaked program"));
    audit(&["scan", "--from", &recorded("orphaned_attachment")])
        .assert()
        .code(1)
        .stdout(contains("orphaned_attachment"));
}

#[test]
fn json_is_one_object_with_the_verdict() {
    let output =
        audit(&["scan", "--format", "json", "--from", &recorded("stacked_duplicate")]).output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["schema_version"], 1);
    assert_eq!(report["verdict"], "leaks");
}

#[test]
fn the_report_goes_to_every_file_in_its_format_and_to_standard_output() {
    let folder = tempfile::tempdir().unwrap();
    let [json, text] = ["report.json", "report.txt"].map(|name| folder.path().join(name));
    let output = |format: &str, file: &Path| format!("--output={format}={}", file.display());
    let from = recorded("orphaned_pin");
    audit(&["scan", "--from", &from, &output("json", &json), &output("text", &text)])
        .env("CLICOLOR_FORCE", "1")
        .assert()
        .code(1)
        .stdout(contains("\x1b[").and(contains("leaks: ")));
    let [json, text] = [json, text].map(|file| std::fs::read_to_string(file).unwrap());
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["leaks"][0]["finding"], "orphaned_pin");
    assert!(text.contains("leaks: ") && !text.contains('\x1b'), "{text}");
}

#[test]
fn a_file_that_cannot_be_written_is_named_and_the_others_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report.json");
    let output = format!("json={}", file.display());
    let from = recorded("active");
    audit(&["scan", "--from", &from, "--output", "text=/dev/full", "--output", &output])
        .assert()
        .code(70)
        .stdout(contains("clean: "))
        .stderr(contains(
            "error: cannot write to /dev/full: No space left on device (write: ENOSPC)\n",
        ));
    assert!(file.exists());
}

#[test]
fn standard_output_that_cannot_be_written_is_told_with_the_call() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = StdCommand::new(env!("CARGO_BIN_EXE_chadthrottle-audit"))
        .args(["generate", "schema", "report"])
        .stdout(full)
        .output()
        .unwrap();
    let expected =
        "error: cannot write to standard output: No space left on device (write: ENOSPC)\n";
    assert_eq!(
        (output.status.code(), &*String::from_utf8_lossy(&output.stderr)),
        (Some(70), expected)
    );
}

#[test]
fn a_file_that_could_not_be_written_is_refused_before_anything_is_done() {
    let from = recorded("active");
    audit(&["scan", "--from", &from, "--output", "json=/no/where/a"])
        .assert()
        .code(64)
        .stdout("")
        .stderr(starts_with("error: cannot write to /no/where/a: /no/where: No such file"));
    audit(&["snapshot", "--output", "/no/where/a"]).assert().code(64).stdout("").stderr(
        "error: cannot write to /no/where/a: /no/where: No such file or directory (access: ENOENT)\n",
    );
}

#[test]
fn what_would_find_nothing_or_wait_for_ever_is_refused() {
    for (args, why) in [
        (["--program", "l*_that_is_much_too_long"], "no program is named so"),
        (["--settle", "500000000000years"], "more than a day"),
        (["--settle", "5"], "write a number with a unit"),
        (["--settle", "-1s"], "'-1s' for '--settle <TIME>': a time has no sign"),
        (["--settle", "0s"], "too short for anything to go away by itself"),
        (["--settle", "1ns"], "give at least 1ms"),
    ] {
        audit(&["scan", args[0], args[1]]).assert().code(64).stdout("").stderr(contains(why));
        audit(&["gate", args[0], args[1], "--", "true"])
            .assert()
            .code(64)
            .stdout("")
            .stderr(contains(why));
    }
}

/// In `target/tools/bin` where `scripts/promtool` has put it.
fn promtool() -> StdCommand {
    let ours = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/tools/bin/promtool");
    StdCommand::new(if ours.exists() { ours } else { "promtool".into() })
}

#[test]
fn promtool_takes_the_numbers_and_has_nothing_to_remark() {
    for name in ["active", "orphaned_attachment", "unreachable_program"] {
        let output = audit(&["scan", "--format", "prometheus", "--from", &recorded(name)]).output();
        let text = tempfile::tempfile().unwrap();
        (&text).write_all(&output.unwrap().stdout).unwrap();
        (&text).rewind().unwrap();
        let checked = promtool()
            .args(["check", "metrics"])
            .stdin(text)
            .output()
            .expect("promtool has to be here: run scripts/setup test");
        let said = [checked.stdout, checked.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(checked.status.success() && said.is_empty(), "{}: {said}", checked.status);
    }
}

#[test]
fn man_pages_are_written_to_a_directory_that_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("share/man/man8");
    audit(&["generate", "man", pages.to_str().unwrap()])
        .assert()
        .code(0)
        .stdout(contains("chadthrottle-audit-scan.8\n"))
        .stderr(is_empty());
    let page = std::fs::read_to_string(pages.join("chadthrottle-audit-scan.8")).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    let title = format!(
        ".TH chadthrottle-audit-scan 8 \" \" \"chadthrottle-audit {version}\" chadthrottle\n"
    );
    assert!(page.contains(&title), "{page}");
    audit(&["generate", "man", "/dev/null/x"])
        .assert()
        .code(70)
        .stdout(is_empty())
        .stderr(starts_with("error: cannot make the directory /dev/null/x: "));
}

#[test]
fn completions_and_schemas_are_printed() {
    audit(&["generate", "completions", "bash"]).assert().code(0).stdout(contains("--attach-type"));
    audit(&["generate", "completions", "dos"]).assert().code(64).stderr(contains("'dos'"));
    audit(&["generate", "schema", "report"])
        .assert()
        .code(0)
        .stdout(contains("\"orphaned_attachment\""));
    audit(&["generate", "schema", "snapshot"]).assert().code(0).stdout(contains("\"looks\""));
}

#[test]
fn two_outputs_to_one_file_are_refused_before_anything_is_looked_at() {
    audit(&["scan", "--from", "/no/where", "--output", "json=a", "--output", "text=./a"])
        .assert()
        .code(64)
        .stdout(is_empty())
        .stderr(contains("--output names ./a more than once"));
}

#[test]
fn what_is_no_snapshot_is_refused_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("snapshot");
    let old = std::fs::read_to_string(recorded("active")).unwrap().replacen(
        "\"schema_version\": 1",
        "\"schema_version\": 9",
        1,
    );
    let report = audit(&["scan", "--format", "json", "--from", &recorded("active")]).output();
    let report = String::from_utf8(report.unwrap().stdout).unwrap();
    for (text, message) in [
        ("", "it is not a snapshot"),
        ("{}", "it is not a snapshot"),
        ("{\"schema_version\": 1, \"looks\": 3}", "it is not a snapshot"),
        (&report, "it is not a snapshot"),
        (&old, "it is a snapshot of version 9, and this program reads version 1"),
    ] {
        std::fs::write(&file, text).unwrap();
        audit(&["scan", "--from", file.to_str().unwrap()])
            .assert()
            .code(64)
            .stdout(is_empty())
            .stderr(contains(message).and(contains(file.to_str().unwrap())));
    }
    audit(&["scan", "--from", "/nowhere/x"])
        .assert()
        .code(64)
        .stderr(contains("cannot read the snapshot /nowhere/x").and(contains("No such file")));
}

#[test]
fn a_cgroup_that_is_not_there_is_named() {
    audit(&["scan", "--root", "/no/such/cgroup"])
        .assert()
        .code(64)
        .stdout(is_empty())
        .stderr(starts_with("error: ").and(contains("/no/such/cgroup")));
    audit(&["scan", "--root", "../../../../../../../../../tmp"])
        .assert()
        .code(64)
        .stderr(contains("it is a directory, but of no cgroup"));
}

#[test]
fn clean_without_yes_and_without_a_terminal_refuses() {
    let said = "error: not a terminal: pass --yes to proceed, or --dry-run to preview\n";
    audit(&["clean"]).assert().code(64).stdout(is_empty()).stderr(said);
}

#[test]
fn a_reader_that_goes_away_is_no_failure_and_the_verdict_stays() {
    let mut child = StdCommand::new(env!("CARGO_BIN_EXE_chadthrottle-audit"))
        .args(["scan", "--format", "json", "--from", &recorded("orphaned_attachment")])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let mut talk = String::new();
    child.stderr.unwrap().read_to_string(&mut talk).unwrap();
    assert_eq!(talk, "");
}

#[test]
fn colour_is_for_terminals_and_for_those_who_do_not_refuse_it() {
    let from = recorded("orphaned_attachment");
    let plain = || contains("\x1b[").not();
    audit(&["scan", "--from", &from]).assert().stdout(plain());
    audit(&["scan", "--from", &from]).env("CLICOLOR_FORCE", "1").assert().stdout(contains("\x1b["));
    audit(&["scan", "--from", &from])
        .env("CLICOLOR_FORCE", "1")
        .env("NO_COLOR", "1")
        .assert()
        .stdout(plain());
}

/// A snapshot with an inventory: nothing, and these maps.
fn with_maps(file: &Path, names: &[&str]) -> String {
    let text = std::fs::read_to_string(recorded("foreign")).unwrap();
    let mut snapshot: serde_json::Value = serde_json::from_str(&text).unwrap();
    let maps = names.iter().zip(1..);
    let maps = maps.map(|(name, id)| serde_json::json!({"id": id, "name": name, "type": "hash"}));
    snapshot["looks"][0]["inventory"] = serde_json::json!({
        "programs": [], "links": [], "maps": maps.collect::<Vec<_>>()
    });
    std::fs::write(file, snapshot.to_string()).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn diff_ends_with_1_where_something_is_new_and_with_64_where_two_cannot_be_compared() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let one = with_maps(&file("one"), &["counts"]);
    let two = with_maps(&file("two"), &["counts", "chadthrottle_x", "other"]);
    let chad = contains("map 2 (chadthrottle_x), hash").and(contains("other").not());
    let ours = ["--program", "chadthrottle*"];
    audit(&["diff", &one, &one])
        .args(ours)
        .assert()
        .code(0)
        .stdout(starts_with("nothing new of what is named"));
    audit(&["diff", &one, &one]).assert().code(0).stdout(starts_with("nothing new\n"));
    audit(&["diff", &one, &two]).args(ours).assert().code(1).stdout(chad).stderr(is_empty());
    audit(&["diff", &two, &one]).assert().code(0).stdout(contains("; 2 gone"));
    let json = audit(&["diff", &one, &two, "--format", "json"]).output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((&json["schema_version"], &json["verdict"]), (&1.into(), &"leaks".into()));
    assert_eq!(json["new"][1]["map"]["name"], "other");
    audit(&["diff", &one, &recorded("foreign")]).assert().code(64).stdout(is_empty()).stderr(
        contains("cannot compare")
            .and(contains("second one was taken without --all, so it has only programs that"))
            .and(contains("take both again, with 'chadthrottle-audit snapshot --all'\n")),
    );
    let why = "cannot read the snapshot /nowhere/x: No such file or directory (open: ENOENT)\n";
    audit(&["diff", &one, "/nowhere/x"]).assert().code(64).stderr(contains(why));
    let why = "cannot read the snapshot /: Is a directory (read: EISDIR)\n";
    audit(&["diff", &one, "/"]).assert().code(64).stderr(contains(why));
}

#[test]
fn a_scan_with_a_baseline_ends_with_0_where_all_leaks_are_known() {
    let from = recorded("orphaned_attachment");
    audit(&["scan", "--from", &from, "--baseline", &from])
        .assert()
        .code(0)
        .stdout(contains("known from the baseline ").and(contains("clean: no new leak")));
    audit(&["scan", "--from", &from, "--baseline", &recorded("active")]).assert().code(1);
    // Before it looks at the host, for which it would need rights.
    audit(&["scan", "--baseline", "/nowhere/x"])
        .assert()
        .code(64)
        .stdout(is_empty())
        .stderr(contains("cannot read the snapshot /nowhere/x"));
}

#[test]
fn q_hides_no_error_and_v_says_no_less() {
    for quiet in ["-q", "-qqq", "-v"] {
        audit(&["scan", quiet, "--from", "/nowhere/x"])
            .assert()
            .code(64)
            .stdout(is_empty())
            .stderr(contains("error: cannot read the snapshot /nowhere/x"));
    }
}

#[test]
fn what_is_wrong_with_an_argument_is_quoted_for_a_terminal() {
    let evil = "\x1b[31m\x07[\nclean: no leak";
    let mut names: Vec<&[u8]> = vec![evil.as_bytes()];
    names.push(b"\xff\x1b]0;x\x07");
    for name in names {
        let name = OsStr::from_bytes(name);
        let usages: [&[&OsStr]; 8] = [
            &["scan".as_ref(), "--root".as_ref(), name],
            &["scan".as_ref(), "--program".as_ref(), name],
            &["scan".as_ref(), "--attach-type".as_ref(), name],
            &["scan".as_ref(), "--settle".as_ref(), name],
            &["scan".as_ref(), "--from".as_ref(), name],
            &["clean".as_ref(), name],
            &["explain".as_ref(), name],
            &[name],
        ];
        for usage in usages {
            let output = StdCommand::new(env!("CARGO_BIN_EXE_chadthrottle-audit"))
                .args(usage)
                .output()
                .unwrap();
            assert_eq!(output.status.code(), Some(64), "{usage:?}");
            assert!(output.stdout.is_empty(), "{usage:?}");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(!said.is_empty(), "{usage:?}");
            assert!(said.chars().all(|it| it == '\n' || !it.is_control()), "{usage:?}: {said:?}");
        }
    }
    // A folder that is not there, and a report to write into it.
    let from = concat!(env!("CARGO_MANIFEST_DIR"), "/../auditor/tests/snapshots-in/active.json");
    let output = StdCommand::new(env!("CARGO_BIN_EXE_chadthrottle-audit"))
        .args(["scan", "--from", from, "--output", &format!("text=/nowhere/{evil}")])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.lines().count(), 1, "{said:?}");
    assert!(said.contains(r"/nowhere/\x1b[31m\x07[\nclean: no leak"), "{said:?}");
}
