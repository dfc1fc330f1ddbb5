//! Judges a guest's run from its transcript and the tests that it had to run.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use quick_junit::{Report, TestCase, TestCaseStatus};
use testkit::replay::Repeat;
use testkit::results::{self, Done, TestResult};

use super::machine::{End, Transcript};
use super::matrix::Kernel;
use super::suite::TestId;

/// The exit status of nextest if tests failed and nothing else went wrong.
const TESTS_FAILED: i32 = 100;

/// A reason why a run has not passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// There was no kernel, or the machine did not start.
    CouldNot(String),
    /// The guest ended without a verdict.
    Died(String),
    /// The guest reached its time limit and was killed.
    Hung(String),
    /// Somebody stopped the run.
    Stopped,
    /// The guest ran another kernel than the matrix names.
    OtherKernel(String),
    /// The test runner ended in a way that says nothing about the tests.
    Runner(i32),
    /// Tests failed.
    Failed(Vec<TestId>),
    /// Tests that were expected did not run.
    Missing(Vec<TestId>),
    /// Tests passed, but the results that they write are missing.
    NoResult(Vec<TestId>),
    /// The search for leftovers found some (1) or failed.
    Leftovers(i32),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CouldNot(why) => write!(f, "could not be run: {why}"),
            Self::Died(how) => {
                write!(f, "THE VM DIED: it ended without its closing line (virtme-ng: {how})")
            }
            Self::Hung(why) => write!(f, "THE VM HUNG and was ended: {why}"),
            Self::Stopped => write!(f, "stopped before its end"),
            Self::OtherKernel(why) => write!(f, "not the kernel that was asked for: {why}"),
            Self::Runner(status) => write!(f, "what ran in it failed with exit status {status}"),
            Self::Failed(tests) => write!(f, "{} failed:{}", count(tests), names(tests)),
            Self::Missing(tests) => {
                write!(f, "{} expected but did not run:{}", count(tests), names(tests))
            }
            Self::NoResult(tests) => {
                write!(f, "{} passed and wrote no result:{}", count(tests), names(tests))
            }
            Self::Leftovers(1) => write!(f, "something of ours is left in the kernel"),
            Self::Leftovers(status) => {
                write!(
                    f,
                    "it cannot be told whether anything is left (scripts/leftovers: {status})"
                )
            }
        }
    }
}

fn count(tests: &[TestId]) -> String {
    if tests.len() == 1 { "1 test".into() } else { format!("{} tests", tests.len()) }
}

fn names(tests: &[TestId]) -> String {
    tests.iter().flat_map(|(binary, name)| ["\n  ", binary, " ", name]).collect()
}

/// How a test ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The test.
    pub test: TestId,
    /// Whether it passed.
    pub passed: bool,
    /// The time that it took.
    pub time: Duration,
}

/// The run of one kernel.
#[derive(Debug)]
pub struct Run {
    /// The kernel's name in the matrix.
    pub kernel: String,
    /// The release that the kernel reported.
    pub release: Option<String>,
    /// The report of the tests.
    pub report: Option<Report>,
    /// The outcomes of the tests.
    pub outcomes: Vec<Outcome>,
    /// How to reproduce the failures, by test function, for the tests that tell.
    pub repeats: Vec<(&'static str, Repeat)>,
    /// The time until the script began.
    pub booted: Option<Duration>,
    /// The whole time until the closing line.
    pub took: Option<Duration>,
    /// The reasons why the run has not passed. Empty if it has.
    pub problems: Vec<Problem>,
    /// The end of the console, if the guest did not end by itself.
    pub console: String,
}

impl Run {
    /// Makes the run of a kernel that did not start.
    pub fn not_started(kernel: &str, problem: Problem) -> Self {
        Self {
            kernel: kernel.into(),
            release: None,
            report: None,
            outcomes: Vec::new(),
            repeats: Vec::new(),
            booted: None,
            took: None,
            problems: vec![problem],
            console: String::new(),
        }
    }

    /// Makes the run of the host's own kernel from its tests' report.
    pub fn of_host(release: &str, report: Report) -> Self {
        let outcomes = outcomes(&report);
        let failed: Vec<_> = outcomes
            .iter()
            .filter(|outcome| !outcome.passed)
            .map(|outcome| outcome.test.clone())
            .collect();
        let problems = if failed.is_empty() { Vec::new() } else { vec![Problem::Failed(failed)] };
        let took = report.time;
        Self {
            kernel: "host".into(),
            release: Some(release.into()),
            report: Some(report),
            outcomes,
            repeats: Vec::new(),
            booted: None,
            took,
            problems,
            console: String::new(),
        }
    }

    /// Judges a guest's run. `expected` is `None` if it had no tests to run.
    pub fn judge(
        kernel: &Kernel,
        expected: Option<&BTreeSet<TestId>>,
        transcript: Transcript,
        console: String,
    ) -> Self {
        let parsed = transcript.junit.as_deref().map(Report::deserialize_from_str);
        let report = parsed.and_then(Result::ok);
        let outcomes = report.as_ref().map(outcomes).unwrap_or_default();
        let mut problems = Vec::new();
        let closed = match transcript.end {
            End::Closed(closing) => Some(closing),
            End::Died(how) => {
                problems.push(Problem::Died(how));
                None
            }
            End::Hung(what, limit) => {
                problems.push(Problem::Hung(format!("{what} after {} s", limit.as_secs())));
                None
            }
            End::Stopped => {
                problems.push(Problem::Stopped);
                None
            }
        };
        if let Some(release) =
            transcript.release.as_ref().filter(|release| !kernel.is_release(release))
        {
            let wanted = kernel.wanted();
            problems
                .push(Problem::OtherKernel(format!("{release}, and the matrix wants {wanted}")));
        }
        if let Some(closing) = &closed {
            problems.extend(tests_problems(closing.tests, expected, &outcomes));
            let silent = without_result(&outcomes, &transcript.results);
            if !silent.is_empty() {
                problems.push(Problem::NoResult(silent));
            }
            if closing.leftovers != 0 {
                problems.push(Problem::Leftovers(closing.leftovers));
            }
        }
        Self {
            kernel: kernel.name.clone(),
            release: transcript.release,
            report,
            outcomes,
            repeats: repeats(&transcript.results),
            booted: transcript.booted,
            took: Some(transcript.took),
            console: if closed.is_some() { String::new() } else { console },
            problems,
        }
    }

    /// Joins the runs of two machines of the same kernel. Times add up.
    #[must_use]
    pub fn together_with(mut self, other: Self) -> Self {
        let sum = |one: Option<Duration>, other: Option<Duration>| {
            [one, other].into_iter().flatten().reduce(|one, other| one + other)
        };
        self.release = self.release.or(other.release);
        self.booted = sum(self.booted, other.booted);
        self.took = sum(self.took, other.took);
        self.report = match (self.report, other.report) {
            (Some(mut one), Some(other)) => {
                one.time = sum(one.time, other.time);
                one.add_test_suites(other.test_suites);
                Some(one)
            }
            (one, other) => one.or(other),
        };
        self.outcomes.extend(other.outcomes);
        self.repeats.extend(other.repeats);
        for problem in other.problems {
            if !self.problems.contains(&problem) {
                self.problems.push(problem);
            }
        }
        let consoles = [self.console, other.console];
        let said: Vec<_> = consoles.into_iter().filter(|said| !said.is_empty()).collect();
        self.console = said.join("\n");
        self
    }

    /// Returns how long the machine took beyond its tests, for boot, listing and the look for leftovers.
    pub fn overhead(&self) -> Option<Duration> {
        let tests = self.report.as_ref()?.time?;
        Some(self.took?.saturating_sub(tests))
    }
}

/// Finds the problems of the tests in a guest that ended by itself.
fn tests_problems(
    status: i32,
    expected: Option<&BTreeSet<TestId>>,
    outcomes: &[Outcome],
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let failed: Vec<_> = outcomes
        .iter()
        .filter(|outcome| !outcome.passed)
        .map(|outcome| outcome.test.clone())
        .collect();
    let ran: BTreeSet<_> = outcomes.iter().map(|outcome| &outcome.test).collect();
    let missing: Vec<_> =
        expected.into_iter().flatten().filter(|test| !ran.contains(test)).cloned().collect();
    let told = status == 0 || (status == TESTS_FAILED && !failed.is_empty());
    if !failed.is_empty() {
        problems.push(Problem::Failed(failed));
    }
    if !missing.is_empty() {
        problems.push(Problem::Missing(missing));
    }
    if !told {
        problems.push(Problem::Runner(status));
    }
    problems
}

/// Finds the failed tests that say how to see that again.
fn repeats(files: &[(String, String)]) -> Vec<(&'static str, Repeat)> {
    let results = files.iter().filter_map(|(_, text)| results::parse(text).ok());
    let repeat = |TestResult { test, done, .. }| match done {
        Done::Failed(repeat) => Some((test.function(), repeat)),
        _ => None,
    };
    results.filter_map(repeat).collect()
}

/// Finds tests that passed and write a result, but whose result is missing.
fn without_result(outcomes: &[Outcome], files: &[(String, String)]) -> Vec<TestId> {
    let came: Vec<_> = files.iter().filter_map(|(_, text)| results::parse(text).ok()).collect();
    let is_silent = |outcome: &&Outcome| {
        let test = results::Test::of_function(&outcome.test.1);
        outcome.passed && test.is_some_and(|test| !came.iter().any(|result| result.test == test))
    };
    outcomes.iter().filter(is_silent).map(|outcome| outcome.test.clone()).collect()
}

/// Lists the tests in a report that ran. A skipped test did not run.
fn outcomes(report: &Report) -> Vec<Outcome> {
    let case = |binary: &str, case: &TestCase| {
        let passed = match &case.status {
            TestCaseStatus::Success { .. } => true,
            TestCaseStatus::NonSuccess { .. } => false,
            TestCaseStatus::Skipped { .. } => return None,
        };
        let test = (binary.to_owned(), case.name.as_str().to_owned());
        Some(Outcome { test, passed, time: case.time.unwrap_or_default() })
    };
    report
        .test_suites
        .iter()
        .flat_map(|suite| {
            suite.test_cases.iter().filter_map(|test| case(suite.name.as_str(), test))
        })
        .collect()
}

/// Returns the exit status for all these runs (see `vmtests vm --help`).
pub fn exit_status(runs: &[Run]) -> u8 {
    let status = |problem: &Problem| match problem {
        Problem::Stopped => 130,
        Problem::Died(_) | Problem::Hung(_) => 3,
        Problem::CouldNot(_) | Problem::OtherKernel(_) => 2,
        Problem::Runner(_)
        | Problem::Failed(_)
        | Problem::Missing(_)
        | Problem::NoResult(_)
        | Problem::Leftovers(_) => 1,
    };
    let problems = runs.iter().flat_map(|run| &run.problems);
    // No run proves nothing.
    problems.map(status).max().unwrap_or(if runs.is_empty() { 2 } else { 0 })
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
