//! Writes JUnit XML, which Jenkins, GitLab and most other CI systems show.
//!
//! Each problem is a test case, and so is each rule without problems. What could not be seen is an error, not
//! a failure, because nobody knows whether there is a leak.

use std::time::Duration;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use terminal::count;
use terminal::escape;

use crate::results::{COVERAGE, Check, Outcome, Problem, Results};

/// Renders a result.
///
/// # Errors
/// The XML cannot be written.
pub(super) fn render(results: &Results) -> anyhow::Result<String> {
    let duration = Duration::try_from_secs_f64(results.duration_ms / 1_000.0).unwrap_or_default();
    let tool = escape(&results.tool.name);
    let mut suite = TestSuite::new(&tool);
    suite.extra.insert("hostname".into(), escape(&results.hostname).into());
    // The time is missing only if there was no look, or if somebody wrote the snapshot by hand.
    suite.timestamp = results.taken_at.parse().ok();
    suite.set_time(duration);
    suite.add_property(("command", results.command));
    suite.add_property(("version", escape(&results.tool.version).as_str()));
    suite.add_property(("verdict", results.verdict.name()));
    suite.set_system_out(escape(&results.conclusion));
    for check in &results.checks {
        for mut case in cases(check) {
            case.set_classname(format!("{tool}.{}", check.rule));
            case.set_time(Duration::ZERO);
            suite.add_test_case(case);
        }
    }
    // One look serves all rules, so the last case gets its whole duration.
    if let Some(case) = suite.test_cases.last_mut() {
        case.set_time(duration);
    }
    let mut report = Report::new(&tool);
    report.add_test_suite(suite).set_time(duration);
    // Jenkins' xUnit plugin rejects the whole file because of this attribute. The suite already has it.
    let skipped = format!(" skipped=\"{}\"", report.skipped);
    Ok(report.to_string()?.replacen(&skipped, "", 1))
}

fn cases(check: &Check) -> Vec<TestCase> {
    let kind = if check.rule == COVERAGE { NonSuccessKind::Error } else { NonSuccessKind::Failure };
    match &check.outcome {
        Outcome::Passed => vec![TestCase::new(check.rule, TestCaseStatus::success())],
        Outcome::Unseen(unseen) => {
            vec![TestCase::new(check.rule, skipped("not known to have none", unseen))]
        }
        Outcome::Noted(noted) => vec![TestCase::new(check.rule, skipped("not judged", noted))],
        Outcome::Failed(problems) => problems
            .iter()
            .map(|problem| TestCase::new(escape(&problem.what), failed(check, problem, kind)))
            .collect(),
    }
}

fn failed(check: &Check, problem: &Problem, kind: NonSuccessKind) -> TestCaseStatus {
    let mut status = TestCaseStatus::non_success(kind);
    status.set_type(check.rule).set_message(escape(&problem.why));
    let remedy = problem.remedy.as_ref().map(|remedy| format!("-> {}", escape(remedy)));
    let about = [check.summary.clone(), escape(&problem.what), escape(&problem.why)];
    let lines: Vec<_> = about.into_iter().chain(remedy).collect();
    status.set_description(lines.join("\n"));
    status
}

fn skipped(what: &str, problems: &[Problem]) -> TestCaseStatus {
    let mut status = TestCaseStatus::skipped();
    let why = |problem: &Problem| format!("{}: {}", escape(&problem.what), escape(&problem.why));
    let all: Vec<_> = problems.iter().map(why).collect();
    let first = all.first().map_or("", String::as_str);
    let more = match problems.len() {
        0 | 1 => String::new(),
        some => format!("; and {} more", count(some - 1, "thing")),
    };
    status.set_message(format!("{what}: {first}{more}"));
    status.set_description(all.join("\n"));
    status
}
