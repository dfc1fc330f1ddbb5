//! Leaks that an earlier snapshot knows.

use auditor::baseline::Baseline;
use auditor::classify::{Verdict, classify};
use auditor::formats::{Medium, Rendition};
use auditor::report::{Report, report};
use auditor::results::Outcome;
use auditor::snapshot::{Gap, Snapshot, Subject};

use crate::common::*;

fn against(before: &Snapshot, now: &Snapshot) -> Report {
    let classified = classify(now);
    let mut report = report(now, &classified, false);
    let baseline = Baseline::new(before, "old.json".to_owned());
    baseline.apply(&mut report, now, &classified);
    report
}

/// The orphan, and another one on another cgroup.
fn two_orphans() -> Snapshot {
    let mut host = orphan();
    let owner = owner(4711);
    host.program(42, Some(&owner));
    host.attach(42, A + 1, IN);
    host
}

fn known(report: &Report) -> Vec<bool> {
    report.leaks.iter().map(|leak| leak.known).collect()
}

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
fn what_was_no_leak_then_or_another_program_is_not_known() {
    let mut meant = orphan();
    meant.look().owners.last_mut().unwrap().alive = Some(true);
    assert_eq!(known(&against(&meant, &orphan())), [false]);
    let mut again = orphan();
    again.look().programs.last_mut().unwrap().loaded_at_ns += 1;
    assert_eq!(known(&against(&orphan(), &again)), [false], "its id was given anew");
    let mut elsewhere = orphan();
    elsewhere.look().attachments.last_mut().unwrap().cgroup_id = bpf::CgroupId(1);
    assert_eq!(known(&against(&orphan(), &elsewhere)), [false]);
}

#[test]
fn a_network_device_is_known_by_its_namespace_and_number() {
    let leaked = |index: u32| {
        let (mut host, owner) = (host(), owner(4711));
        host.owner_lives(&owner, Some(false));
        host.device(&owner).index = index;
        host.look().coverage.network_namespaces = Some(1);
        host
    };
    assert_eq!(known(&against(&leaked(7), &leaked(7))), [true]);
    assert_eq!(known(&against(&leaked(7), &leaked(8))), [false]);
}

#[test]
fn a_baseline_of_another_boot_knows_nothing_and_says_so() {
    let mut before = orphan();
    before.host.boot_id = "another".into();
    for owner in &mut before.look().owners {
        owner.owner.boot_id = "another".into();
    }
    let report = against(&before, &orphan());
    assert_eq!((report.verdict, known(&report)), (Verdict::Leaks, vec![false]));
    let note = report.coverage.notes.last().unwrap();
    assert_eq!(note.what, "the baseline old.json");
    assert!(note.why.contains("another boot"), "{}", note.why);
}

#[test]
fn a_scan_that_saw_not_everything_is_incomplete_though_all_it_saw_is_known() {
    let mut now = two_orphans();
    now.gap(Subject::Cgroups);
    let report = against(&two_orphans(), &now);
    assert_eq!((report.verdict, report.summary.leaked), (Verdict::Incomplete, 0));
}

#[test]
fn a_hidden_process_matters_no_more_where_all_leaks_are_known() {
    let mut now = two_orphans();
    now.gap(Subject::HiddenProcesses);
    let report = against(&orphan(), &now);
    assert_eq!((report.verdict, report.coverage.gaps.len()), (Verdict::Leaks, 1));
    let report = against(&two_orphans(), &now);
    assert_eq!((report.verdict, report.coverage.gaps.len()), (Verdict::Clean, 0));
}

#[test]
fn advice_is_about_what_is_new_alone() {
    // What is known nobody can remove from here, and it has another finding.
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
fn of_several_looks_the_last_one_says_what_could_not_be_seen() {
    for hidden_in in [[true, false], [false, true], [true, true]] {
        let mut now = two_orphans();
        now.looks.push(now.looks[0].clone());
        for (look, is_hidden) in now.looks.iter_mut().zip(hidden_in) {
            let gap =
                Gap { about: Subject::HiddenProcesses, what: "/x".into(), why: "denied".into() };
            look.coverage.gaps.extend(is_hidden.then_some(gap));
        }
        let some = against(&orphan(), &now);
        assert_eq!(some.coverage.gaps.len(), usize::from(hidden_in[1]), "{hidden_in:?}");
        let all = against(&two_orphans(), &now);
        assert_eq!((all.verdict, all.coverage.gaps.len()), (Verdict::Clean, 0), "{hidden_in:?}");
    }
}

#[test]
fn json_has_known_only_where_it_is_so_and_the_time_of_the_baseline() {
    let json: serde_json::Value =
        serde_json::from_str(&against(&orphan(), &two_orphans()).json().unwrap()).unwrap();
    assert_eq!(json["baseline"], serde_json::json!({"taken_at": "2026-11-23T17:30:00.250Z"}));
    assert_eq!((&json["leaks"][0]["known"], &json["leaks"][1].get("known")), (&true.into(), &None));
    assert_eq!((&json["summary"]["known"], &json["summary"]["leaked"]), (&1.into(), &1.into()));
}
