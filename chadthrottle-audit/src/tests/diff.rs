//! Tests comparisons in every format.

use auditor::compare::{Kind, compare};
use auditor::facts::{Object, Snapshot, Subject};
use kernel::MapId;
use terminal::Medium;

use crate::documents::{DiffReport, diff_report};
use crate::formats::Rendition;
use crate::results::{COVERAGE, Outcome, rule};
use crate::story::*;

#[test]
fn each_kind_of_thing_is_a_check_and_so_is_whether_everything_was_seen() {
    let (before, mut after) = (everything(), everything());
    let checks = |after: &Snapshot| {
        let found = compare(&before, after, &all()).unwrap();
        let results = diff_report(&before, after, &all(), found).results();
        assert_eq!(
            results.checks.iter().map(|check| check.rule).collect::<Vec<_>>(),
            ["left_attachment", "left_link", "left_pin", "left_program", "left_map", COVERAGE,]
        );
        results.checks
    };
    assert!(checks(&after).iter().all(|check| check.outcome == Outcome::Passed));
    after.map(9, "counts");
    after.gap(Subject::Pins);
    let checks = checks(&after);
    let of = |kind: &str| &checks.iter().find(|check| check.rule == kind).unwrap().outcome;
    let Outcome::Failed(problems) = of(rule(Kind::Map)) else { panic!("{checks:?}") };
    assert_eq!(problems[0].identity, "map counts hash");
    assert!(matches!(of(rule(Kind::Pin)), Outcome::Unseen(_)));
    assert!(matches!(of(COVERAGE), Outcome::Failed(_)));
}

#[test]
fn the_text_has_no_control_characters_whatever_names_there_are() {
    let mut after = one_of_each();
    after.pin("/sys/fs/bpf/a\n\x1b[31m", Object::Map(MapId(9)));
    let before = everything();
    let found = compare(&before, &after, &all()).unwrap();
    let text = diff_report(&before, &after, &all(), found).text(Medium::FILE);
    assert!(text.contains("pin /sys/fs/bpf/a\\n\\x1b[31m of map 9 (counts)"), "{text}");
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
}

/// Returns a report with something in every part.
pub(crate) fn reported() -> DiffReport {
    let (mut before, mut after) = (everything(), one_of_each());
    before.load(40, "sd_devices", &[]);
    before.attach(40, 12, IN);
    after.gap(Subject::Pins);
    let found = compare(&before, &after, &all()).unwrap();
    let mut report = diff_report(&before, &after, &all(), found);
    report.tool.version = "0.0.0".into();
    report
}

#[test]
fn the_report_reads_as_it_should() {
    insta::assert_snapshot!("diff-text", reported().text(Medium::FILE));
    insta::assert_json_snapshot!("diff-json", reported());
}
