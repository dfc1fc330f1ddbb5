//! Tests the checks that a report becomes.

use auditor::facts::{Snapshot, Subject};
use auditor::judge::{Finding, classify};
use auditor::report::report;

use crate::formats::Rendition;
use crate::results::{COVERAGE, NOTED, Outcome, Place, Problem, Results};
use crate::story::recorded;
use crate::story::*;

pub(crate) fn results(host: &Snapshot) -> Results {
    report(host, &classify(host), false).results()
}

fn outcome<'a>(results: &'a Results, rule: &str) -> &'a Outcome {
    &results.checks.iter().find(|check| check.rule == rule).unwrap().outcome
}

/// Returns each rule with its outcome, in order.
fn words(results: &Results) -> Vec<String> {
    let word = |outcome: &Outcome| match outcome {
        Outcome::Passed => "passed".to_owned(),
        Outcome::Failed(problems) => format!("failed {}", problems.len()),
        Outcome::Unseen(problems) => format!("unseen {}", problems.len()),
        Outcome::Noted(problems) => format!("noted {}", problems.len()),
    };
    results.checks.iter().map(|check| format!("{} {}", check.rule, word(&check.outcome))).collect()
}

#[test]
fn every_leak_is_a_rule_and_so_is_what_people_should_look_at_and_coverage() {
    let leaks = Finding::ALL.into_iter().filter(|finding| finding.is_leak());
    let rules: Vec<_> = leaks.map(Finding::name).chain(NOTED).chain([COVERAGE]).collect();
    let results = results(&whole(host()));
    assert_eq!(results.checks.iter().map(|check| check.rule).collect::<Vec<_>>(), rules);
    assert!(words(&results).iter().all(|word| word.ends_with(" passed")), "{results:?}");
    assert!(results.conclusion.starts_with("clean: no leaked program in 212 cgroups"));
}

#[test]
fn every_recorded_leak_fails_its_rule_and_says_what_to_do() {
    for finding in Finding::ALL.into_iter().filter(|finding| finding.is_leak()) {
        let Outcome::Failed(problems) =
            outcome(&results(&recorded(finding.name())), finding.name()).clone()
        else {
            panic!("{finding} did not fail");
        };
        for problem in problems {
            assert!(problem.remedy.is_some() && !problem.why.is_empty(), "{problem:?}");
            // A program that is only loaded has no place.
            if finding.name().starts_with("orphaned") {
                assert!(problem.place.is_some(), "{problem:?}");
            }
        }
    }
}

#[test]
fn with_a_gap_a_rule_has_leaks_or_is_unseen_and_never_passes() {
    let mut host = whole(orphan());
    host.gap(Subject::Cgroups);
    let results = results(&host);
    let words = words(&results);
    assert!(words.iter().all(|word| !word.ends_with("passed")), "{words:?}");
    assert_eq!(
        outcome(&results, "orphaned_attachment"),
        outcome(&self::results(&orphan()), "orphaned_attachment")
    );
    let Outcome::Unseen(unseen) = outcome(&results, "stacked_duplicate") else {
        panic!("{words:?}")
    };
    assert_eq!((unseen[0].what.as_str(), unseen[0].why.as_str()), ("/x", "denied"));
    assert_eq!(outcome(&results, COVERAGE), &Outcome::Failed(unseen.clone()));
}

#[test]
fn what_nobody_asked_to_be_looked_at_does_not_pass_and_is_no_gap() {
    let unjudged =
        ["orphaned_pin", "defunct_link", "unattached_program", "unreachable_program", "unowned"];
    let check = |host: &Snapshot, rules: &[&str]| {
        let results = results(host);
        for check in &results.checks {
            let is_unseen = matches!(check.outcome, Outcome::Unseen(_));
            assert_eq!(is_unseen, rules.contains(&check.rule), "{check:?}");
        }
        assert_eq!(results.verdict.name(), "clean");
    };
    let mut below = whole(host());
    below.scope.root = "/system.slice".into();
    check(&below, &unjudged);
    let mut types = host();
    types.scope.attach_types = vec![IN];
    check(&types, &unjudged);
    let mut devices = whole(host());
    devices.look().coverage.network_namespaces = None;
    check(&devices, &["orphaned_device"]);
}

#[test]
fn a_problem_is_at_its_cgroup_or_its_device_or_its_pin() {
    let places = |host: &Snapshot| -> Vec<Option<Place>> {
        let found = results(host).checks.into_iter().map(|check| check.outcome);
        let problems = found.filter_map(|it| match it {
            Outcome::Failed(problems) | Outcome::Noted(problems) => Some(problems),
            Outcome::Passed | Outcome::Unseen(_) => None,
        });
        problems.flatten().map(|it| it.place).collect()
    };
    let cgroup = Some(Place::Cgroup("/cgroup-9310".into()));
    let pin = Some(Place::Pin("/sys/fs/bpf/x".into()));
    for mut host in [whole(orphan()), whole(unowned())] {
        host.pin("/sys/fs/bpf/x", program(41));
        host.pin("/sys/fs/bpf/y", program(41));
        assert_eq!(places(&host), std::slice::from_ref(&cgroup));
        host.look().attachments.pop();
        assert_eq!(places(&host), std::slice::from_ref(&pin));
        host.look().pins.clear();
        assert_eq!(places(&host), [None]);
    }
    let mut device = whole(host());
    device.owner_lives(&owner(4711), Some(false));
    device.device(&owner(4711));
    assert_eq!(places(&device), [Some(Place::Device("chadq4711a".into()))]);
}

#[test]
fn a_problem_is_the_same_one_after_a_restart_of_the_leak() {
    let problem = |program: u32| -> Problem {
        let mut host = host();
        let owner = owner(4711);
        host.program(program, Some(&owner));
        host.owner_lives(&owner, Some(false));
        host.attach(program, A, IN);
        let Outcome::Failed(problems) = outcome(&results(&host), "orphaned_attachment").clone()
        else {
            panic!("no leak");
        };
        problems[0].clone()
    };
    let (one, other) = (problem(41), problem(42));
    assert_ne!(one.what, other.what);
    assert_eq!(one.identity, other.identity);
    assert_eq!(one.identity, "chadthrottle_in /cgroup-9310 cgroup_inet_ingress");
    assert_eq!(one.what, "program 41 (chadthrottle_in) on /cgroup-9310, cgroup_inet_ingress");
    assert_eq!(one.place, Some(Place::Cgroup("/cgroup-9310".into())));
}
