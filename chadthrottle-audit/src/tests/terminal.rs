//! Tests what reaches a terminal, whatever the names are.

use auditor::actions::{Action, Obstacle, Premise, Step};
use auditor::facts::{Note, Process, Snapshot, Subject};
use auditor::judge::{Finding, classify};
use auditor::report::{Report, report};
use proptest::prelude::*;
use serde_json::Value;
use terminal::Medium;

use crate::formats::Rendition;
use crate::story::*;
use crate::text::render;

/// Returns a host with something in every part of the report.
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

fn written(report: &Report) -> Value {
    serde_json::from_str(&report.json().unwrap()).unwrap()
}

/// Returns a step that a process prevents.
fn held_by(process: Process) -> Step {
    Step {
        finding: Finding::OrphanedPin,
        program: None,
        premise: Premise::OwnerGone,
        action: Action::Cannot(Obstacle::HeldOpen(vec![process])),
        remains: None,
    }
}

/// Returns the places of free text in the report, as JSON pointers.
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
    let json = written(report);
    let mut found = Vec::new();
    texts("", &json, &mut found);
    found.retain(|at| {
        let mut changed = json.clone();
        *changed.pointer_mut(at).unwrap() = "a name".into();
        serde_json::from_value::<Report<String>>(changed).is_ok()
    });
    found
}

fn with_texts(report: &Report, places: &[String], texts: &[String]) -> Report {
    let mut json = written(report);
    for (at, text) in places.iter().zip(texts) {
        *json.pointer_mut(at).unwrap() = text.clone().into();
    }
    let (root, options) = (&texts[0], &texts[1]);
    let report: Report<String> = serde_json::from_value(json).unwrap();
    // This remedy contains a name, to test its words as well.
    let report = report.map_remedies(|comm| vec![held_by(Process { pid: 7, comm })]);
    Report { root: root.clone(), scope_options: options.clone(), ..report }
}

/// Generates any characters, with many that a terminal obeys.
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
        // The report joins leaks with the same remedy, so give each leak its own.
        for (n, text) in texts.iter_mut().enumerate() {
            *text = format!("{n}{text}");
        }
        let hostile = with_texts(&report, &places, &texts);
        let text = render(&hostile, false, width);
        prop_assert!(text.chars().all(|it| it == '\n' || !it.is_control()), "{text:?}");
        prop_assert!(!text.contains('\u{202e}'), "{text:?}");
        // No name may start a line, which could pass for one of ours.
        prop_assert_eq!(lines(&hostile), expected);
    });
}

/// Paths may be longer, because the text never cuts them.
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
    let recorded = include_str!("../../../auditor/tests/snapshots-in/unattached_program.json");
    let host: auditor::facts::Snapshot = serde_json::from_str(recorded).unwrap();
    let report = report(&host, &classify(&host), true);
    let text = report.text(Medium { width: Some(40), ..Medium::FILE });
    assert!(text.contains("held by 4711") && !text.contains("owner held"), "{text}");
}
