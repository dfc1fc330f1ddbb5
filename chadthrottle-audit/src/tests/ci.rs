//! Tests that each format for CI systems says the same, whatever the result.

use auditor::baseline::Baseline;
use auditor::facts::{Snapshot, Subject};
use auditor::judge::{Finding, Verdict, classify};
use auditor::report::{Report, report};
use serde_json::Value;
use terminal::Medium;

use crate::formats::Format;
use crate::formats::{Rendition, render};
use crate::results::{COVERAGE, Outcome};
use crate::story::recorded;
use crate::story::*;

/// What a format says: the number of problems that fail a build, and the number of gaps.
type Said = (usize, usize);

fn rendered(what: &impl Rendition, format: Format) -> String {
    render(what, format, Medium::FILE).unwrap()
}

fn junit(what: &impl Rendition) -> Said {
    let text = rendered(what, Format::Junit);
    let count = |name: &str| {
        let attribute = text.split_once(&format!(" {name}=\"")).unwrap().1;
        attribute.split_once('"').unwrap().0.parse().unwrap()
    };
    assert_eq!(count("failures"), text.matches("<failure ").count(), "{text}");
    (count("failures"), count("errors"))
}

fn sarif(what: &impl Rendition) -> Said {
    let log: Value = serde_json::from_str(&rendered(what, Format::Sarif)).unwrap();
    let errors = |at: &str| {
        let all = log.pointer(at).unwrap().as_array().unwrap();
        all.iter().filter(|it| it["level"] == "error").count()
    };
    let invocation = &log["runs"][0]["invocations"][0];
    let unseen = errors("/runs/0/invocations/0/toolExecutionNotifications");
    assert_eq!(invocation["executionSuccessful"], unseen == 0);
    (errors("/runs/0/results"), unseen)
}

fn github(what: &impl Rendition) -> Said {
    let text = rendered(what, Format::Github);
    let count = |level: &str| text.lines().filter(|line| line.starts_with(level)).count();
    (count("::error "), count("::warning "))
}

/// Checks the verdict in the exit status and in every format.
fn check(what: &impl Rendition, verdict: Verdict, said: Said, about: &str) {
    let expected = match said {
        (0, 0) => Verdict::Clean,
        (0, _) => Verdict::Incomplete,
        _ => Verdict::Leaks,
    };
    assert_eq!(verdict, expected, "{about}");
    assert_eq!([junit(what), sarif(what), github(what)], [said; 3], "{about}");
    let json: Value = serde_json::from_str(&rendered(what, Format::Json)).unwrap();
    assert_eq!(json["verdict"], verdict.name(), "{about}");
    let verdict = format!("verdict\" value=\"{}\"", verdict.name());
    assert!(rendered(what, Format::Junit).contains(&verdict), "{about}");
    let text = rendered(what, Format::Text);
    let results = what.results();
    let is_comparison = results.command == "diff" && expected == Verdict::Leaks;
    let word = if is_comparison { "new" } else { expected.name() };
    assert!(
        results.conclusion.starts_with(&format!("{word}: ")),
        "{about}: {}",
        results.conclusion
    );
    assert!(text.lines().any(|line| line.starts_with(&format!("{word}: "))), "{about}: {text}");
    assert_eq!(results.verdict, expected, "{about}");
    check_remedies(what, about);
}

/// Checks that each format with a problem also has its remedy.
fn check_remedies(what: &impl Rendition, about: &str) {
    let count = |is_failed: bool| {
        let checks = what.results().checks.into_iter().filter(|check| check.rule != COVERAGE);
        let problems = checks.flat_map(|check| match check.outcome {
            Outcome::Failed(problems) => problems,
            Outcome::Noted(problems) if !is_failed => problems,
            _ => Vec::new(),
        });
        problems.filter(|it| it.remedy.is_some()).count()
    };
    assert_eq!(rendered(what, Format::Github).matches("%0A-&gt; ").count(), 0);
    assert_eq!(rendered(what, Format::Github).matches("%0A-> ").count(), count(false), "{about}");
    assert_eq!(rendered(what, Format::Junit).matches("\n-&gt; ").count(), count(true), "{about}");
    let log: Value = serde_json::from_str(&rendered(what, Format::Sarif)).unwrap();
    let results = log["runs"][0]["results"].as_array().unwrap();
    let texts = results.iter().filter_map(|it| it["message"]["text"].as_str());
    assert_eq!(texts.filter(|it| it.contains(" -> ")).count(), count(false), "{about}");
}

/// Checks the numbers in the formats that only a scan has.
fn check_numbers(report: &Report, new: usize, known: usize, gaps: usize, about: &str) {
    let text = rendered(report, Format::Prometheus);
    let sum = |name: &str| {
        let values =
            text.lines().filter(|it| it.starts_with(&format!("chadthrottle_audit_{name}")));
        values.map(|it| it.rsplit(' ').next().unwrap().parse::<usize>().unwrap()).sum::<usize>()
    };
    let counted = [sum("leaked{"), sum("known{"), sum("gaps "), sum("incomplete ")];
    assert_eq!(counted, [new, known, gaps, usize::from(gaps > 0)], "{about}: {text}");
    let json: Value = serde_json::from_str(&rendered(report, Format::Json)).unwrap();
    let marked = json["leaks"].as_array().unwrap().iter().filter(|it| it["known"] == true).count();
    let numbers = [&json["summary"]["leaked"], &json["summary"]["known"]];
    assert_eq!(numbers.map(Value::as_u64), [new, known].map(|it| Some(it as u64)), "{about}");
    assert_eq!(marked, known, "{about}");
    assert_eq!(json["coverage"]["gaps"].as_array().unwrap().len(), gaps, "{about}");
}

fn against(before: Option<&Snapshot>, now: &Snapshot) -> Report {
    let classified = classify(now);
    let mut report = report(now, &classified, false);
    if let Some(before) = before {
        Baseline::new(before, "old.json".into()).apply(&mut report, now, &classified);
    }
    report
}

/// Returns the same host without anything that could be a leak.
fn before_all(now: &Snapshot) -> Snapshot {
    let mut before = now.clone();
    let look = before.look();
    look.attachments.clear();
    look.programs.clear();
    look.devices.clear();
    before
}

#[test]
fn a_leak_fails_every_format_unless_the_baseline_has_it_and_a_gap_is_told_in_each() {
    for finding in Finding::ALL {
        let now = recorded(finding.name());
        let count = against(None, &now).leaks.len();
        for (before, known) in [(None, 0), (Some(before_all(&now)), 0), (Some(now.clone()), count)]
        {
            let gaps = against(before.as_ref(), &now).coverage.gaps.len();
            // A gap changes no leak.
            for more in [0, 1] {
                let mut now = now.clone();
                (0..more).for_each(|_| now.gap(Subject::Devices));
                let gaps = gaps + more;
                let report = against(before.as_ref(), &now);
                let about = format!("{finding}, {known} known, {gaps} gaps");
                assert_eq!(report.leaks.len(), count, "{about}");
                check(&report, report.verdict, (count - known, gaps), &about);
                check_numbers(&report, count - known, known, gaps, &about);
            }
        }
    }
}

#[test]
fn a_new_leak_beside_a_known_one_fails_every_format_alone() {
    let before = orphan();
    let mut now = orphan();
    for program in 42..45 {
        now.program(program, Some(&owner(4711)));
        now.attach(program, A + u64::from(program), IN);
    }
    let report = against(Some(&before), &now);
    check(&report, report.verdict, (3, 0), "three new ones");
    check_numbers(&report, 3, 1, 0, "three new ones");
}

#[test]
fn what_people_should_look_at_fails_no_format_and_has_its_remedy_in_each() {
    let report = against(None, &unowned());
    assert_eq!(report.summary.unowned, 1);
    check(&report, report.verdict, (0, 0), "unowned");
}

#[test]
fn what_a_command_left_and_what_is_new_fail_every_format_and_what_others_made_does_not() {
    for kind in [0, 1, 2] {
        let report = super::gate::of_kind(kind);
        let said = (report.left.len(), report.gaps.len());
        check(&report, report.verdict, said, &format!("gate {kind}"));
    }
    let gate = super::gate::reported();
    assert_eq!((gate.left.len(), gate.others.len()), (2, 1));
    check(&gate, gate.verdict, (2, 0), "gate");
    let diff = super::diff::reported();
    assert_eq!((diff.new.len(), diff.gaps.len()), (5, 1));
    check(&diff, diff.verdict, (5, 1), "diff");
    let mut now = host();
    now.gap(Subject::Cgroups);
    let report = against(None, &now);
    check(&report, report.verdict, (0, 1), "scan");
}
