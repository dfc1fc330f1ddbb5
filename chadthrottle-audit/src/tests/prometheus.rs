//! Tests the numbers for Prometheus.

use auditor::baseline::Baseline;
use auditor::facts::{Snapshot, Subject};
use auditor::judge::{Finding, classify};
use auditor::report::report;
use terminal::Medium;

use super::hostile::hostile;
use crate::formats::Format;
use crate::formats::render;
use crate::story::made;
use crate::story::*;

fn text(host: &Snapshot) -> String {
    render(&made(host), Format::Prometheus, Medium::FILE).unwrap()
}

/// Returns the value of a metric. `metric` has its name and labels, without the prefix.
fn value<'a>(text: &'a str, metric: &str) -> &'a str {
    let line = text.lines().find_map(|line| {
        line.strip_prefix("chadthrottle_audit_")?.strip_prefix(metric)?.strip_prefix(' ')
    });
    line.unwrap_or_else(|| panic!("no {metric} in {text}"))
}

fn leaked(finding: Finding) -> String {
    format!("leaked{{finding=\"{finding}\"}}")
}

fn judged(finding: Finding) -> String {
    format!("judged{{finding=\"{finding}\"}}")
}

#[test]
fn every_leak_has_its_number_also_where_there_is_none() {
    let text = text(&whole(orphan()));
    for finding in Finding::ALL {
        let of_this = text.contains(&leaked(finding));
        assert_eq!(of_this, finding.is_leak(), "{finding}");
        if finding.is_leak() {
            let expected = if finding == Finding::OrphanedAttachment { "1" } else { "0" };
            assert_eq!(value(&text, &leaked(finding)), expected, "{finding}");
            assert_eq!(value(&text, &judged(finding)), "1");
        }
    }
}

#[test]
fn the_numbers_are_those_of_the_report() {
    let mut host = whole(orphan());
    host.program(42, Some(&owner(4712)));
    host.owner_lives(&owner(4712), Some(true));
    host.attach(42, 77, EG).slots_used = 12;
    // Slots that other tools use count as well.
    host.look().attachments[0].slots_used = 63;
    host.look().coverage.cgroups_vanished = 5;
    let text = text(&host);
    for (metric, expected) in [
        ("active", "1"),
        ("pinned", "0"),
        ("foreign", "3"),
        ("devices", "0"),
        ("unowned", "0"),
        ("slots_used_max", "63"),
        ("full_places", "1"),
        ("cgroups_visited", "212"),
        ("cgroups_vanished", "5"),
        ("cgroups_denied", "0"),
        ("gaps", "0"),
        ("incomplete", "0"),
        ("duration_seconds", "0.02125"),
        ("last_scan_timestamp_seconds", "1795455000.25"),
    ] {
        assert_eq!(value(&text, metric), expected, "{metric}");
    }
    assert!(
        text.contains("info{kernel=\"6.18.44\",method=\"query\",version=\"0.1.0\"} 1\n"),
        "{text}"
    );
    assert!(text.ends_with('\n'));
}

#[test]
fn what_the_baseline_has_is_known_and_not_leaked() {
    let host = whole(orphan());
    let classified = classify(&host);
    let mut report = report(&host, &classified, false);
    Baseline::new(&host, "old.json".to_owned()).apply(&mut report, &host, &classified);
    let text = render(&report, Format::Prometheus, Medium::FILE).unwrap();
    assert_eq!(value(&text, &leaked(Finding::OrphanedAttachment)), "0");
    assert_eq!(value(&text, "known{finding=\"orphaned_attachment\"}"), "1");
}

#[test]
fn what_could_not_be_seen_is_never_nothing() {
    let mut gap = whole(host());
    gap.gap(Subject::Links);
    let mut blind = whole(host());
    blind.looks.clear();
    // With a leak and a gap the verdict is a leak, but the audit is still incomplete.
    let mut leaking = whole(orphan());
    leaking.gap(Subject::Pins);
    for host in [gap, blind, leaking] {
        let text = text(&host);
        assert_eq!(value(&text, "incomplete"), "1", "{text}");
        assert_ne!(value(&text, "gaps"), "0");
        assert_eq!(value(&text, &judged(Finding::OrphanedPin)), "0");
    }
}

#[test]
fn what_is_out_of_scope_is_not_judged_though_the_audit_is_complete() {
    let mut host = whole(host());
    host.scope.root = "/system.slice".into();
    let text = text(&host);
    assert_eq!(value(&text, "incomplete"), "0");
    assert_eq!(value(&text, &judged(Finding::UnattachedProgram)), "0");
    assert_eq!(value(&text, &judged(Finding::OrphanedAttachment)), "1");
}

#[test]
fn no_id_is_a_label_and_no_name_breaks_a_line() {
    for host in [hostile(), crate::story::recorded("unreachable_program")] {
        for line in text(&host).lines().filter(|line| !line.starts_with('#')) {
            let (series, number) = line.rsplit_once(' ').unwrap();
            number.parse::<f64>().unwrap();
            let labels = series.split_once('{').map(|(_, labels)| labels);
            let is_known = labels.is_none_or(|labels| {
                ["finding=\"", "kernel=\""].iter().any(|first| labels.starts_with(first))
            });
            assert!(series.starts_with("chadthrottle_audit_") && is_known, "{line:?}");
        }
    }
}
