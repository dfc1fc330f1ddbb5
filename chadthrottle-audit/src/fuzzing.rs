//! Checks the auditor against snapshots that anybody may have written.
//!
//! The program must refuse a snapshot with a message, or judge and show it, each time with the same result. A gap must
//! never count as clean. No step may target anything that is not ours, and no output may control a terminal. The fuzzer
//! (`fuzz/`) calls [`snapshot`] with generated input. The tests below call it with kept inputs.
// Panicking is the purpose of this function.
#![allow(clippy::missing_panics_doc)]

mod edit;

use auditor::actions::{Action, Premise, forced, is_in_our_folder, plan};
use auditor::facts::{Gap, Snapshot, Subject};
use auditor::judge::{Classified, Finding, Ours, Verdict, classify};
use auditor::report::{Report, report};
use terminal::Medium;
use terminal::escape;

use crate::commands::scan::parse;
use crate::formats::Format;
use crate::formats::{Rendition, render as render_as};
use crate::text::render;

/// Checks one input. The first byte selects a recorded snapshot, and the rest are edits of it. If there is no such
/// snapshot, the rest is the text of a file.
pub fn snapshot(input: &[u8]) {
    let Some((&first, rest)) = input.split_first() else { return };
    let text = edit::recorded(first, rest).unwrap_or_else(|| rest.to_vec());
    match parse(&text) {
        Ok(snapshot) => holds(snapshot),
        Err(error) => {
            let shown = format!("{error:#}");
            assert!(!shown.is_empty() && is_harmless(&shown), "{shown:?}");
        }
    }
}

fn holds(mut snapshot: Snapshot) {
    let written = serde_json::to_vec(&snapshot).unwrap();
    assert_eq!(parse(&written).unwrap(), snapshot, "it is written as another one");

    let classified = classify(&snapshot);
    assert_eq!(classified, classify(&snapshot), "it is judged in two ways");
    verdict_is_of_what_was_found(&classified);
    steps_are_against_leaks_of_ours_alone(&snapshot, &classified);
    forced_steps_are_against_what_is_unowned_alone(&classified);
    for all in [false, true] {
        let made = report(&snapshot, &classified, all);
        assert_eq!(made, report(&snapshot, &classified, all), "it is reported in two ways");
        report_is_of_the_judgement(&made, &classified, all);
        text_is_harmless(&made);
        formats_are_what_their_readers_expect(&made);
    }

    // Whatever else the snapshot says, a gap prevents a clean verdict.
    if let Some(last) = snapshot.looks.last_mut() {
        let unseen = Gap { about: Subject::Links, what: "links".into(), why: "denied".into() };
        last.coverage.gaps.push(unseen);
        assert_ne!(classify(&snapshot).verdict, Verdict::Clean, "a gap is taken for none");
    }
}

fn verdict_is_of_what_was_found(classified: &Classified<'_>) {
    let leaks = classified.leaks().count() + classified.leaked_devices().count();
    let expected = match (leaks, classified.gaps.len()) {
        (0, 0) => Verdict::Clean,
        (0, _) => Verdict::Incomplete,
        _ => Verdict::Leaks,
    };
    assert_eq!(classified.verdict, expected);
}

fn steps_are_against_leaks_of_ours_alone(snapshot: &Snapshot, classified: &Classified<'_>) {
    let ours = Ours::new(&snapshot.scope.programs).0;
    for step in plan(classified) {
        assert!(step.finding.is_leak(), "{step:?}");
        match (&step.program, &step.action) {
            (Some(program), _) => {
                assert!(ours.has(&program.name), "{step:?} is against what is not ours");
                assert!(
                    classified.leaks().any(|leak| leak.program_id == program.identity.id),
                    "{step:?}"
                );
            }
            (None, Action::RemoveDevice(device)) => {
                assert!(device.owner().is_some(), "{step:?} is against what is not ours");
                assert!(classified.leaked_devices().any(|leak| leak.device == device), "{step:?}");
            }
            (None, _) => panic!("{step:?} is against nothing"),
        }
    }
}

/// Checks that the user cannot force a step against anything but unowned programs.
fn forced_steps_are_against_what_is_unowned_alone(classified: &Classified<'_>) {
    for judged in classified.unowned() {
        for step in forced(judged, classified) {
            assert_eq!((step.finding, step.premise), (Finding::Unowned, Premise::Unowned));
            match &step.action {
                Action::Unpin { path, .. } => assert!(is_in_our_folder(path), "{step:?}"),
                Action::DetachLegacy { .. } | Action::DetachLink { .. } => {
                    assert!(judged.holders.is_empty(), "{step:?}");
                }
                Action::Cannot(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

fn report_is_of_the_judgement(made: &Report, classified: &Classified<'_>, all: bool) {
    assert_eq!(made.verdict, classified.verdict);
    assert_eq!(made.summary.leaked, made.leaks.len());
    assert_eq!(made.summary.attachments, classified.attachments.len());
    assert_eq!(made.coverage.gaps.len(), classified.gaps.len());
    if all {
        assert_eq!(made.attachments.len(), classified.attachments.len());
    }
    let written = made.json().unwrap();
    let read: Report<String> = serde_json::from_str(&written).unwrap();
    assert_eq!(
        serde_json::to_string_pretty(&read).unwrap() + "\n",
        written,
        "the report is written as another one"
    );
}

fn text_is_harmless(made: &Report) {
    for width in [None, Some(80)] {
        let text = render(made, false, width);
        assert_eq!(text, render(made, false, width), "it is shown in two ways");
        assert!(text.ends_with('\n'));
        for line in text.lines() {
            assert!(is_harmless(line), "{line:?}");
        }
        let mut plain = render(made, true, width);
        for style in ["\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[1m", "\x1b[0m"] {
            plain = plain.replace(style, "");
        }
        assert_eq!(plain, text, "colour changes more than the colour");
    }
}

fn formats_are_what_their_readers_expect(made: &Report) {
    let github = rendered(made, Format::Github);
    for line in github.lines() {
        let is_command =
            ["::error ", "::warning ", "::notice "].iter().any(|it| line.starts_with(it));
        assert!(is_command && is_harmless(line), "{line:?}");
    }
    for line in rendered(made, Format::Prometheus).lines() {
        let is_metric = line.starts_with("# ") || line.starts_with("chadthrottle_audit_");
        assert!(is_metric && is_harmless(line), "{line:?}");
    }
    assert!(rendered(made, Format::Junit).lines().all(|line| !line.contains(char::is_control)));
}

fn rendered(made: &Report, format: Format) -> String {
    let text = render_as(made, format, Medium::FILE).unwrap();
    assert_eq!(text, render_as(made, format, Medium::FILE).unwrap(), "it is written in two ways");
    text
}

/// Tells whether a terminal shows the whole text and obeys nothing in it.
fn is_harmless(text: &str) -> bool {
    // Escaping leaves an escaped text unchanged.
    escape(text) == text && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_holds_of_snapshots_holds_of_all_that_is_kept() {
        testkit::corpus::replay("snapshot", super::snapshot);
    }
}
