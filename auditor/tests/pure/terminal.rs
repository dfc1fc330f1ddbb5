//! What reaches a terminal, whatever the names are.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use auditor::classify::classify;
use auditor::formats::{Medium, Rendition};
use auditor::report::{Report, report};
use auditor::snapshot::{Note, Snapshot, Subject};
use auditor::text::render;
use proptest::prelude::*;
use serde_json::Value;

use crate::common::*;

/// A host with something in every part of the report.
fn everything() -> Snapshot {
    let mut host = orphan();
    host.hold(99, &[program(41)]);
    host.link(11, 41, 0, IN);
    host.pin("/sys/fs/bpf/pin", link(11));
    host.device(&owner(4713));
    host.owner_lives(&owner(4713), Some(false));
    host.device_program(43, &owner(4714));
    host.owner_lives(&owner(4714), Some(false));
    host.device_link(12, 43, 7);
    host.gap(Subject::Pins);
    let note = Note { what: "what".into(), why: "why".into() };
    host.look().coverage.notes.push(note);
    host
}

/// The places of the report, as JSON pointers, where any text may stand.
fn free_texts(report: &Report) -> Vec<String> {
    fn texts(at: &str, value: &Value, found: &mut Vec<String>) {
        match value {
            Value::String(_) => found.push(at.to_owned()),
            Value::Array(all) => {
                all.iter().enumerate().for_each(|(n, it)| texts(&format!("{at}/{n}"), it, found));
            }
            Value::Object(all) => {
                all.iter().for_each(|(name, it)| texts(&format!("{at}/{name}"), it, found));
            }
            _ => {}
        }
    }
    let json = serde_json::to_value(report).unwrap();
    let mut found = Vec::new();
    texts("", &json, &mut found);
    found.retain(|at| {
        let mut changed = json.clone();
        *changed.pointer_mut(at).unwrap() = "a name".into();
        serde_json::from_value::<Report>(changed).is_ok()
    });
    found
}

fn with_texts(report: &Report, places: &[String], texts: &[String]) -> Report {
    let mut json = serde_json::to_value(report).unwrap();
    for (at, text) in places.iter().zip(texts) {
        *json.pointer_mut(at).unwrap() = text.clone().into();
    }
    let (root, options) = (&texts[0], &texts[1]);
    let report: Report = serde_json::from_value(json).unwrap();
    Report { root: root.clone(), scope_options: options.clone(), ..report }
}

/// Any characters, and those often that a terminal obeys.
fn text() -> impl Strategy<Value = String> {
    let evil = proptest::sample::select(vec![
        '\x1b', '\n', '\r', '\x07', '\x08', '\u{9b}', '\u{202e}', '\t',
    ]);
    proptest::collection::vec(prop_oneof![any::<char>(), evil, Just('a')], 0..12)
        .prop_map(|characters| characters.into_iter().collect())
}

#[test]
fn whatever_the_names_are_no_terminal_obeys_them() {
    let host = everything();
    let report = report(&host, &classify(&host), true);
    let places = free_texts(&report);
    assert!(places.len() > 40, "{places:?}");
    let lines = |report: &Report| render(report, false, None).lines().count();
    let plain: Vec<String> = (0..places.len()).map(|n| format!("name{n}")).collect();
    let expected = lines(&with_texts(&report, &places, &plain));
    let number = places.len();
    proptest!(|(texts in proptest::collection::vec(text(), number), width in proptest::option::of(20..200_u16))| {
        let mut texts = texts;
        // Leaks with the same remedy stand together: each has one of its own.
        for (n, text) in texts.iter_mut().enumerate() {
            *text = format!("{n}{text}");
        }
        let hostile = with_texts(&report, &places, &texts);
        let text = render(&hostile, false, width);
        prop_assert!(text.chars().all(|it| it == '\n' || !it.is_control()), "{text:?}");
        prop_assert!(!text.contains('\u{202e}'), "{text:?}");
        // No name makes a line of its own, which could pass for one of ours.
        prop_assert_eq!(lines(&hostile), expected);
    });
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
            let output = Command::new(env!("CARGO_BIN_EXE_chadthrottle-audit"))
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
    let from = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/snapshots-in/active.json");
    let output = Command::new(env!("CARGO_BIN_EXE_chadthrottle-audit"))
        .args(["scan", "--from", from, "--output", &format!("text=/nowhere/{evil}")])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.lines().count(), 1, "{said:?}");
    assert!(said.contains(r"/nowhere/\x1b[31m\x07[\nclean: no leak"), "{said:?}");
}

/// Paths may be longer, and are never cut.
#[test]
fn where_there_is_no_terminal_80_columns_suffice() {
    let mut host = orphan();
    host.look().attachments.last_mut().unwrap().cgroup =
        "/system.slice/a-service-with-a-long-name.service".into();
    let report = report(&host, &classify(&host), true);
    let text = report.text(Medium::FILE);
    let overview = text.split("\n\n").next().unwrap();
    assert!(overview.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert!(overview.starts_with("orphaned_attachment  /system.slice/a-service-with"), "{text}");
    let wide = report.text(Medium { width: Some(200), ..Medium::FILE });
    assert!(wide.starts_with("FINDING "), "{wide}");
}

#[test]
fn who_holds_a_program_is_not_called_its_owner_in_a_narrow_list() {
    let recorded = include_str!("../snapshots-in/unattached_program.json");
    let host: auditor::snapshot::Snapshot = serde_json::from_str(recorded).unwrap();
    let report = report(&host, &classify(&host), true);
    let text = report.text(Medium { width: Some(40), ..Medium::FILE });
    assert!(text.contains("held by 4711") && !text.contains("owner held"), "{text}");
}
