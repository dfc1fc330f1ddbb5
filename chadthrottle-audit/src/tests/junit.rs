//! Tests JUnit by reading it with the crate that nextest uses for its own files.

use auditor::facts::{Snapshot, Subject};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus};
use terminal::Medium;

use super::hostile::hostile;
use crate::formats::Format;
use crate::formats::render;
use crate::story::made;
use crate::story::*;

fn xml(host: &Snapshot) -> String {
    render(&made(host), Format::Junit, Medium::FILE).unwrap()
}

fn cases(host: &Snapshot) -> Vec<TestCase> {
    let mut report = Report::deserialize_from_str(&xml(host)).unwrap();
    assert_eq!(report.test_suites.len(), 1);
    report.test_suites.remove(0).test_cases
}

/// Returns the rule and the outcome of each case.
fn words(host: &Snapshot) -> Vec<String> {
    let word = |status: &TestCaseStatus| match status {
        TestCaseStatus::Success { .. } => "passed",
        TestCaseStatus::NonSuccess { kind: NonSuccessKind::Failure, .. } => "failed",
        TestCaseStatus::NonSuccess { kind: NonSuccessKind::Error, .. } => "error",
        TestCaseStatus::Skipped { .. } => "skipped",
    };
    let cases = cases(host);
    let rule = |case: &TestCase| case.classname.as_ref().unwrap().as_str().to_owned();
    cases.iter().map(|case| format!("{} {}", rule(case), word(&case.status))).collect()
}

#[test]
fn a_clean_host_passes_every_rule() {
    let words = words(&whole(host()));
    assert_eq!(words.len(), 11);
    assert!(words.iter().all(|word| word.ends_with(" passed")), "{words:?}");
    assert_eq!(words[0], "chadthrottle-audit.orphaned_attachment passed");
}

#[test]
fn a_leak_is_a_failure_with_its_reason_and_what_to_do() {
    let cases = cases(&whole(orphan()));
    assert_eq!(
        cases[0].name.as_str(),
        "program 41 (chadthrottle_in) on /cgroup-9310, cgroup_inet_ingress"
    );
    let TestCaseStatus::NonSuccess { kind, message, ty, description, .. } = &cases[0].status else {
        panic!("{:?}", cases[0]);
    };
    assert_eq!(kind, &NonSuccessKind::Failure);
    assert_eq!(ty.as_ref().unwrap().as_str(), "orphaned_attachment");
    assert!(
        message.as_ref().unwrap().contains("and its owner, process 4711, is dead"),
        "{message:?}"
    );
    assert!(
        description.as_ref().unwrap().contains("-> `chadthrottle-audit clean` detaches it"),
        "{description:?}"
    );
}

#[test]
fn with_a_gap_no_rule_passes_and_the_gap_is_an_error() {
    let mut host = whole(orphan());
    host.gap(Subject::Cgroups);
    host.gap(Subject::Pins);
    let words = words(&host);
    assert_eq!(words[0], "chadthrottle-audit.orphaned_attachment failed");
    assert!(words[1..10].iter().all(|word| word.ends_with(" skipped")), "{words:?}");
    assert_eq!(
        words[10..],
        ["chadthrottle-audit.coverage error", "chadthrottle-audit.coverage error"]
    );
    let TestCaseStatus::Skipped { message, .. } = &cases(&host)[1].status else { panic!() };
    assert_eq!(
        message.as_ref().unwrap().as_str(),
        "not known to have none: /x: denied; and 1 thing more"
    );
}

#[test]
fn the_suite_says_where_when_and_how_long_and_what_it_came_to() {
    let report = Report::deserialize_from_str(&xml(&orphan())).unwrap();
    let suite = &report.test_suites[0];
    assert_eq!(
        (report.name.as_deref().unwrap(), suite.name.as_str()),
        ("chadthrottle-audit", "chadthrottle-audit")
    );
    assert_eq!(suite.extra["hostname"].as_str(), "build-7");
    assert_eq!(suite.timestamp.unwrap().to_rfc3339(), "2026-11-23T17:30:00.250+00:00");
    assert_eq!(suite.time.unwrap().as_millis(), 21);
    let time: f64 = suite.test_cases.iter().map(|case| case.time.unwrap().as_secs_f64()).sum();
    assert!((time - suite.time.unwrap().as_secs_f64()).abs() < 0.001);
    assert!(
        suite.system_out.as_ref().unwrap().starts_with("leaks: 1 leaked attachment on 1 cgroup")
    );
}

#[test]
fn the_outermost_element_has_no_attribute_that_jenkins_schema_forbids() {
    let xml = xml(&whole(host()));
    let root = xml.lines().nth(1).unwrap();
    assert!(root.starts_with("<testsuites ") && !root.contains("skipped="), "{root}");
    assert!(xml.lines().nth(2).unwrap().contains("skipped=\"0\""), "{xml}");
}

#[test]
fn names_that_xml_forbids_are_written_out() {
    let xml = xml(&hostile());
    let is_allowed = |c: char| matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
    assert!(xml.chars().all(is_allowed), "{xml:?}");
    let cases = cases(&hostile());
    let leak = cases.iter().find(|case| case.name.starts_with("program 41")).unwrap();
    for written in [r"\x1b", r"\x00", r"\u{fffe}", r"\n", "]]>&<\"'"] {
        assert!(leak.name.contains(written), "{written} is not in {:?}", leak.name);
    }
}
