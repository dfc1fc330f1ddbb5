//! Reports all kernels' results: one `JUnit` file, one table.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::verdict::{Outcome, Run};

/// The most characters of a failed test's message that the report shows.
const MAX_WORDS: usize = 600;

/// Makes a report with a suite for each kernel. Problems beside failed tests are a case of their own.
pub fn junit(runs: &[Run]) -> Report {
    let mut report = Report::new("vmtests");
    for run in runs {
        let mut suite = TestSuite::new(run.kernel.as_str());
        for (name, value) in
            [("release", run.release.as_deref()), ("kernel", Some(run.kernel.as_str()))]
        {
            if let Some(value) = value {
                suite.add_property((name, value));
            }
        }
        if let Some(took) = run.took {
            suite.set_time(took);
        }
        for tests in run.report.iter().flat_map(|report| &report.test_suites) {
            for case in &tests.test_cases {
                let mut case = case.clone();
                case.set_classname(tests.name.clone());
                suite.add_test_case(case);
            }
        }
        let mut status = TestCaseStatus::success();
        if !run.problems.is_empty() {
            status = TestCaseStatus::non_success(NonSuccessKind::Error);
            let problems: Vec<_> = run.problems.iter().map(ToString::to_string).collect();
            status.set_message(problems.join("; "));
            status.set_description(format!("{}\n{}", problems.join("\n"), run.console));
        }
        let mut machine = TestCase::new("the virtual machine and its verdict", status);
        machine.set_classname("vm");
        suite.add_test_case(machine);
        report.add_test_suite(suite);
    }
    report
}

/// Makes the table: a row for each suite, a column for each kernel.
pub fn table<'a>(runs: impl IntoIterator<Item = &'a Run>) -> String {
    let runs: Vec<&Run> = runs.into_iter().collect();
    let mut by_suite: BTreeMap<&str, Vec<Tally>> = BTreeMap::new();
    for (column, run) in runs.iter().enumerate() {
        for outcome in &run.outcomes {
            let tallies = by_suite
                .entry(outcome.test.0.as_str())
                .or_insert_with(|| vec![Tally::default(); runs.len()]);
            tallies[column].add(outcome);
        }
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    let row = |name: &str, cell: &dyn Fn(&Run) -> String| {
        std::iter::once(name.to_owned()).chain(runs.iter().copied().map(cell)).collect::<Vec<_>>()
    };
    table.set_header(row("", &|run| run.kernel.clone()));
    table.add_row(row("kernel", &|run| run.release.clone().unwrap_or_else(|| "-".into())));
    for (suite, tallies) in &by_suite {
        let cells = tallies.iter().map(ToString::to_string);
        table.add_row(std::iter::once((*suite).to_owned()).chain(cells));
    }
    table.add_row(row("all", &|run| {
        let mut all = Tally::default();
        run.outcomes.iter().for_each(|outcome| all.add(outcome));
        all.to_string()
    }));
    table.add_row(row("boot", &|run| seconds(run.booted)));
    table.add_row(row("overhead", &|run| seconds(run.overhead())));
    table.add_row(row("in all", &|run| seconds(run.took)));
    table.add_row(row("verdict", &|run| {
        if run.problems.is_empty() { "passed".into() } else { "FAILED".into() }
    }));
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt()
}

/// Returns for each failed test its name, the beginning of its message, and the command that replays it if there is
/// one.
pub fn failures(run: &Run) -> Vec<String> {
    let suites = run.report.iter().flat_map(|report| &report.test_suites);
    let cases =
        suites.flat_map(|suite| suite.test_cases.iter().map(|case| (suite.name.as_str(), case)));
    let failed = |(suite, case): (&str, &TestCase)| match &case.status {
        // For a test that took too long, nextest has only this message.
        TestCaseStatus::NonSuccess { message, description, ty, .. } => {
            let said = description.as_ref().or(message.as_ref()).or(ty.as_ref());
            let said = said.map_or("", |text| text.as_str());
            let kernel = &run.kernel;
            let (name, words) = (case.name.as_str(), first_words(said));
            let mut told = format!("FAILED on {kernel}: {suite} {name}: {words}");
            for (_, repeat) in run.repeats.iter().filter(|(function, _)| *function == name) {
                told.push('\n');
                told.push_str(repeat.to_string().trim_end());
            }
            Some(told)
        }
        _ => None,
    };
    cases.filter_map(failed).collect()
}

/// Returns the beginning of a test's message, without the backtrace, as one line.
fn first_words(said: &str) -> String {
    let is_backtrace = |line: &&str| {
        ["stack backtrace:", "Stack backtrace:", "note: run with"]
            .iter()
            .any(|words| line.starts_with(words))
    };
    let lines = said.lines().map(str::trim).take_while(|line| !is_backtrace(line));
    let words = lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    let words = words.replace('\t', " ");
    words.chars().filter(|char| !char.is_control()).take(MAX_WORDS).collect()
}

/// Summarises all runs in one line, like nextest.
pub fn closing_line(runs: &[Run]) -> String {
    let good = runs.iter().filter(|run| run.problems.is_empty()).count();
    let names: Vec<_> = runs.iter().map(|run| run.kernel.as_str()).collect();
    let tests = runs.iter().map(|run| run.outcomes.len()).sum::<usize>();
    let failed =
        runs.iter().flat_map(|run| &run.outcomes).filter(|outcome| !outcome.passed).count();
    format!(
        "vm: {good} of {} kernels passed ({}); {tests} tests run: {} passed, {failed} failed",
        runs.len(),
        names.join(", "),
        tests - failed
    )
}

/// The tests of one suite on one kernel.
#[derive(Debug, Clone, Default)]
struct Tally {
    passed: BTreeSet<String>,
    failed: BTreeSet<String>,
    time: Duration,
}

impl Tally {
    fn add(&mut self, outcome: &Outcome) {
        let set = if outcome.passed { &mut self.passed } else { &mut self.failed };
        set.insert(format!("{} {}", outcome.test.0, outcome.test.1));
        self.time += outcome.time;
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let time = self.time.as_secs_f64();
        match (self.passed.len(), self.failed.len()) {
            (0, 0) => write!(f, "-"),
            (passed, 0) => write!(f, "{passed} ok {time:6.1} s"),
            (passed, failed) => write!(f, "{failed} FAILED, {passed} ok {time:6.1} s"),
        }
    }
}

fn seconds(time: Option<Duration>) -> String {
    time.map_or_else(|| "-".into(), |time| format!("{:.1} s", time.as_secs_f64()))
}

#[cfg(test)]
mod tests {
    use testkit::replay::Repeat;

    use super::*;
    use crate::machines::verdict::Problem;

    const XML: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="vm" tests="1" failures="0" errors="0" time="7.500">
  <testsuite name="bpf::root" tests="1" disabled="0" errors="0" failures="0">
    <testcase name="root_a" classname="bpf::root" time="1.500"></testcase>
  </testsuite>
</testsuites>"#;

    fn runs() -> [Run; 2] {
        let outcome = |name: &str, passed| Outcome {
            test: ("bpf::root".into(), name.into()),
            passed,
            time: Duration::from_millis(1_500),
        };
        let mut good = Run::not_started("6.1", Problem::Stopped);
        good.problems.clear();
        good.release = Some("6.1.0-56".into());
        good.report = Some(Report::deserialize_from_str(XML).unwrap());
        good.outcomes = vec![outcome("root_a", true)];
        good.booted = Some(Duration::from_secs(6));
        good.took = Some(Duration::from_secs(20));
        let mut bad = Run::not_started("6.12", Problem::Died("exit status: 255".into()));
        bad.console = "Kernel panic".into();
        bad.outcomes = vec![outcome("root_a", false)];
        [good, bad]
    }

    #[test]
    fn the_table_has_every_suite_kernel_and_verdict() {
        let table = table(&runs());
        let line = |word: &str| {
            let line =
                table.lines().find(|line| line.contains(word)).unwrap_or_else(|| panic!("{table}"));
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(line("bpf::root"), "bpf::root 1 ok 1.5 s 1 FAILED, 0 ok 1.5 s");
        assert_eq!(line("kernel"), "kernel 6.1.0-56 -");
        assert_eq!(line("overhead"), "overhead 12.5 s -");
        assert_eq!(line("verdict"), "verdict passed FAILED");
    }

    #[test]
    fn one_file_holds_a_suite_for_each_kernel_and_its_death() {
        let text = junit(&runs()).to_string().unwrap();
        let report = Report::deserialize_from_str(&text).unwrap();
        assert_eq!((report.tests, report.errors), (3, 1));
        let names: Vec<_> = report.test_suites.iter().map(|suite| suite.name.as_str()).collect();
        assert_eq!(names, ["6.1", "6.12"]);
        assert!(text.contains("Kernel panic") && text.contains("THE VM DIED"), "{text}");
    }

    #[test]
    fn a_failed_test_is_told_with_what_it_said_and_without_a_backtrace() {
        let [mut run, _] = runs();
        assert_eq!(failures(&run), Vec::<String>::new());
        let failure = r#"<failure type="test failure">thread 'root_a' (7) panicked at a.rs:1:2:
too much: [1]
stack backtrace:
   0: begin</failure></testcase>"#;
        let xml = XML.replace("</testcase>", failure);
        run.report = Some(Report::deserialize_from_str(&xml).unwrap());
        let told = "FAILED on 6.1: bpf::root root_a: thread 'root_a' (7) panicked at a.rs:1:2: too much: [1]";
        assert_eq!(failures(&run), [told]);
        // A long message does not hide the command to type, because the test wrote that as data.
        let repeat = Repeat { again: None, command: "vmtests replay x".into() };
        run.repeats = vec![("root_b", repeat.clone()), ("root_a", repeat)];
        let long = format!("{}\nstack", "x".repeat(MAX_WORDS));
        let xml = xml.replace("stack", &long);
        run.report = Some(Report::deserialize_from_str(&xml).unwrap());
        let told = failures(&run).concat();
        assert!(told.ends_with("xxx\n  to see it again: vmtests replay x"), "{told}");
        assert_eq!(told.matches("to see it again").count(), 1, "{told}");
        run.repeats.clear();
        let late = r#"<failure type="test timeout"/></testcase>"#;
        run.report = Some(Report::deserialize_from_str(&XML.replace("</testcase>", late)).unwrap());
        assert_eq!(failures(&run), ["FAILED on 6.1: bpf::root root_a: test timeout"]);
        assert_eq!(first_words(&"x".repeat(2 * MAX_WORDS)).len(), MAX_WORDS);
    }

    #[test]
    fn the_closing_line_counts_kernels_and_tests() {
        assert_eq!(
            closing_line(&runs()),
            "vm: 1 of 2 kernels passed (6.1, 6.12); 2 tests run: 1 passed, 1 failed"
        );
    }
}
