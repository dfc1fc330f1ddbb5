//! What is to be thought of a guest's run: a function of what it said and of what was expected.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use quick_junit::{Report, TestCase, TestCaseStatus};

use super::machine::{End, Transcript};
use super::matrix::Kernel;
use super::suite::TestId;

/// What nextest ends with when tests failed, and nothing else went wrong.
const TESTS_FAILED: i32 = 100;

/// Something that keeps a run from having passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// The kernel could not be had, or the machine not be started.
    CouldNot(String),
    /// The guest ended without a verdict.
    Died(String),
    /// The guest was ended at its limit.
    Hung(String),
    /// Somebody stopped the run.
    Stopped,
    /// It was another kernel than the matrix says.
    OtherKernel(String),
    /// The test runner ended in a way that says nothing of the tests.
    Runner(i32),
    /// Tests failed.
    Failed(Vec<TestId>),
    /// Tests that were expected did not run.
    Missing(Vec<TestId>),
    /// The look for leftovers found some (1), or could not look.
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
    /// Which.
    pub test: TestId,
    /// Whether it passed.
    pub passed: bool,
    /// How long it took.
    pub time: Duration,
}

/// The run of one kernel.
#[derive(Debug)]
pub struct Run {
    /// Its name in the matrix.
    pub kernel: String,
    /// What it called itself.
    pub release: Option<String>,
    /// Its tests' report.
    pub report: Option<Report>,
    /// How its tests ended.
    pub outcomes: Vec<Outcome>,
    /// Until the script began.
    pub booted: Option<Duration>,
    /// All of it, until the closing line.
    pub took: Option<Duration>,
    /// Why it has not passed; empty if it has.
    pub problems: Vec<Problem>,
    /// The end of the console, where the guest did not end by itself.
    pub console: String,
}

impl Run {
    /// A kernel that did not come as far as being started.
    pub fn not_started(kernel: &str, problem: Problem) -> Self {
        Self {
            kernel: kernel.into(),
            release: None,
            report: None,
            outcomes: Vec::new(),
            booted: None,
            took: None,
            problems: vec![problem],
            console: String::new(),
        }
    }

    /// The tests of the host's own kernel, which were judged where they ran.
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
            booted: None,
            took,
            problems,
            console: String::new(),
        }
    }

    /// Judges a guest's run; `expected` is `None` where no tests were to be run.
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
            if closing.leftovers != 0 {
                problems.push(Problem::Leftovers(closing.leftovers));
            }
        }
        Self {
            kernel: kernel.name.clone(),
            release: transcript.release,
            report,
            outcomes,
            booted: transcript.booted,
            took: Some(transcript.took),
            console: if closed.is_some() { String::new() } else { console },
            problems,
        }
    }

    /// This and what another machine did for the same kernel, as one run: its times are sums.
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

    /// What the machine cost beyond its tests: boot, listing the tests, the look for leftovers.
    pub fn overhead(&self) -> Option<Duration> {
        let tests = self.report.as_ref()?.time?;
        Some(self.took?.saturating_sub(tests))
    }
}

/// What is wrong with the tests of a guest that ended as it should.
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

/// The tests in a report that ran: one that was skipped did not.
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

/// The exit status that stands for all these runs; `vmtests vm --help` lists them.
pub fn exit_status(runs: &[Run]) -> u8 {
    let status = |problem: &Problem| match problem {
        Problem::Stopped => 130,
        Problem::Died(_) | Problem::Hung(_) => 3,
        Problem::CouldNot(_) | Problem::OtherKernel(_) => 2,
        Problem::Runner(_) | Problem::Failed(_) | Problem::Missing(_) | Problem::Leftovers(_) => 1,
    };
    let problems = runs.iter().flat_map(|run| &run.problems);
    // Nothing was run: that proves nothing.
    problems.map(status).max().unwrap_or(if runs.is_empty() { 2 } else { 0 })
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
