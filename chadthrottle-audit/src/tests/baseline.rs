//! Tests how people and programs read about known leaks.

use auditor::judge::Verdict;
use terminal::Medium;

use crate::formats::Rendition;
use crate::results::Outcome;
use crate::story::*;

#[test]
fn a_leak_that_was_there_already_is_listed_and_does_not_count() {
    let report = against(&orphan(), &orphan());
    assert_eq!((report.verdict, known(&report)), (Verdict::Clean, vec![true]));
    assert_eq!((report.summary.leaked, report.summary.known), (0, 1));
    let text = report.text(Medium::FILE);
    let expected = "clean: no new leak; 1 known from the baseline old.json (taken 2026-11-23T17:30:00.250Z); 0 active";
    assert!(text.contains(expected), "{text}");
    let listed =
        "Known from the baseline (1):\n  orphaned_attachment: program 41 chadthrottle_in on";
    assert!(text.contains(listed), "{text}");
    assert!(report.results().checks.iter().all(|check| check.outcome == Outcome::Passed));
}

#[test]
fn a_new_leak_beside_a_known_one_counts_alone() {
    let report = against(&orphan(), &two_orphans());
    assert_eq!((report.verdict, known(&report)), (Verdict::Leaks, vec![true, false]));
    let text = report.text(Medium::FILE);
    assert!(text.contains("\nleaks: 1 leaked attachment on 1 cgroup; 1 known from"), "{text}");
    assert!(text.contains("orphaned_attachment (1):\n  program 42"), "{text}");
    let Outcome::Failed(problems) = report.results().checks[0].outcome.clone() else { panic!() };
    assert_eq!(problems.len(), 1);
}

#[test]
fn advice_is_about_what_is_new_alone() {
    // The known leak cannot be removed from here, and it has another finding.
    let mut before = orphan();
    before.link(11, 41, A, IN);
    let mut now = two_orphans();
    now.link(11, 41, A, IN);
    let text = against(&before, &now).text(Medium::FILE);
    assert!(text.contains("\nRemove what is leaked: chadthrottle-audit clean"), "{text}");
    assert!(text.contains("explain orphaned_attachment"), "{text}");
    let text = against(&now, &now).text(Medium::FILE);
    assert!(!text.contains("Remove what") && !text.contains("Explain a finding"), "{text}");
    let all = against(&host(), &now).text(Medium::FILE);
    assert!(all.contains("\nRemove what can be removed: chadthrottle-audit clean"), "{all}");
    assert!(all.contains("explain unreachable_program"), "{all}");
}

#[test]
fn json_has_known_only_where_it_is_so_and_the_time_of_the_baseline() {
    let json: serde_json::Value =
        serde_json::from_str(&against(&orphan(), &two_orphans()).json().unwrap()).unwrap();
    assert_eq!(json["baseline"], serde_json::json!({"taken_at": "2026-11-23T17:30:00.250Z"}));
    assert_eq!((&json["leaks"][0]["known"], &json["leaks"][1].get("known")), (&true.into(), &None));
    assert_eq!((&json["summary"]["known"], &json["summary"]["leaked"]), (&1.into(), &1.into()));
}
