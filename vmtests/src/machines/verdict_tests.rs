use std::fs;

use testkit::results::{Agreement, Machine, Test};

use super::*;
use crate::machines::machine::Transcript;
use crate::machines::matrix::{FILE, Matrix};
use crate::machines::protocol::Closing;

const XML: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="vm" tests="3" failures="1" errors="0" time="7.500">
  <testsuite name="bpf::root" tests="3" disabled="0" errors="0" failures="1">
    <testcase name="root_a" classname="bpf::root" time="1.500"></testcase>
    <testcase name="root_b" classname="bpf::root" time="2.000"><failure type="test failure"/></testcase>
    <testcase name="root_c" classname="bpf::root" time="0.000"><skipped/></testcase>
  </testsuite>
</testsuites>"#;

fn kernel() -> Kernel {
    let matrix = Matrix::parse(&fs::read_to_string(FILE).unwrap()).unwrap();
    matrix.select(&["6.1".into()]).unwrap()[0].clone()
}

fn id(name: &str) -> TestId {
    ("bpf::root".into(), name.into())
}

fn judge(end: End, junit: Option<&str>, expected: &[&str]) -> Run {
    let expected = expected.iter().copied().map(id).collect();
    let transcript = Transcript {
        end,
        release: Some("6.1.0-56-cloud-amd64".into()),
        junit: junit.map(Into::into),
        kept: Vec::new(),
        results: Vec::new(),
        booted: Some(Duration::from_secs(6)),
        took: Duration::from_secs(20),
    };
    Run::judge(&kernel(), Some(&expected), transcript, "the console".into())
}

fn closed(tests: i32, leftovers: i32) -> End {
    End::Closed(Closing { tests, leftovers })
}

fn passing() -> String {
    XML.replace(r#"<failure type="test failure"/>"#, "").replace("<skipped/>", "")
}

#[test]
fn all_that_was_expected_and_nothing_left_has_passed() {
    let run = judge(closed(0, 0), Some(&passing()), &["root_a", "root_b", "root_c"]);
    assert_eq!(run.problems, []);
    assert_eq!(run.overhead(), Some(Duration::from_millis(12_500)));
    assert_eq!(exit_status(&[run]), 0);
}

#[test]
fn failed_tests_are_named() {
    let run = judge(closed(100, 0), Some(XML), &["root_a", "root_b"]);
    assert_eq!(run.problems, [Problem::Failed(vec![id("root_b")])]);
    assert_eq!(exit_status(&[run]), 1);
}

#[test]
fn fewer_tests_than_expected_is_a_failure_though_the_runner_is_content() {
    let run = judge(closed(0, 0), Some(&passing()), &["root_a", "root_d"]);
    assert_eq!(run.problems, [Problem::Missing(vec![id("root_d")])]);
    let run = judge(closed(0, 0), None, &["root_a"]);
    assert_eq!(run.problems, [Problem::Missing(vec![id("root_a")])]);
    assert_eq!(exit_status(&[run]), 1);
}

#[test]
fn a_skipped_test_has_not_run() {
    let run = judge(closed(100, 0), Some(XML), &["root_b", "root_c"]);
    assert!(run.problems.contains(&Problem::Missing(vec![id("root_c")])), "{:?}", run.problems);
}

#[test]
fn a_runner_that_fails_without_a_failed_test_is_a_problem() {
    let run = judge(closed(100, 0), Some(&passing()), &["root_a"]);
    assert_eq!(run.problems, [Problem::Runner(100)]);
    let run = judge(closed(96, 0), Some("<not xml"), &["root_a"]);
    assert_eq!(run.problems, [Problem::Missing(vec![id("root_a")]), Problem::Runner(96)]);
}

#[test]
fn a_test_that_passes_without_the_result_that_it_writes_is_a_problem() {
    let test = Test::ModelBesideKernel;
    let outcome = |passed| Outcome {
        test: ("sim".into(), test.function().into()),
        passed,
        time: Duration::ZERO,
    };
    let agreement = Agreement { machine: Machine::this_kernel(), sequences: 1, calls: 1 };
    let result = TestResult { test, run: "a".into(), done: Done::Agreement(agreement) };
    let file = ("x.json".to_owned(), serde_json::to_string(&result).unwrap());
    let broken = (file.0.clone(), "{}".to_owned());
    let silent = vec![outcome(true).test];
    assert_eq!(without_result(&[outcome(true)], &[]), silent);
    assert_eq!(without_result(&[outcome(true)], &[broken]), silent);
    assert_eq!(without_result(&[outcome(true)], &[file]), []);
    // A failed test needs no result.
    assert_eq!(without_result(&[outcome(false)], &[]), []);
    let run = Run::not_started("a", Problem::NoResult(silent));
    assert_eq!(exit_status(&[run]), 1);
}

#[test]
fn what_is_left_in_the_kernel_is_a_problem_and_so_is_not_knowing() {
    for left in [1, 2] {
        let run = judge(closed(0, left), Some(&passing()), &["root_a"]);
        assert_eq!(run.problems, [Problem::Leftovers(left)]);
    }
}

#[test]
fn a_death_and_a_hang_are_no_failed_tests_and_show_the_console() {
    let run = judge(End::Died("exit status: 255".into()), None, &["root_a"]);
    assert_eq!(run.problems, [Problem::Died("exit status: 255".into())]);
    assert_eq!(run.console, "the console");
    assert_eq!(exit_status(&[run]), 3);
    let run =
        judge(End::Hung("its script has not ended", Duration::from_secs(9)), None, &["root_a"]);
    assert_eq!(run.problems, [Problem::Hung("its script has not ended after 9 s".into())]);
    assert_eq!(exit_status(&[run]), 3);
}

#[test]
fn another_kernel_than_the_matrix_says_is_no_pass() {
    let mut transcript = Transcript {
        end: closed(0, 0),
        release: Some("6.12.1".into()),
        junit: None,
        kept: Vec::new(),
        results: Vec::new(),
        booted: None,
        took: Duration::ZERO,
    };
    let run = Run::judge(&kernel(), None, transcript, String::new());
    assert_eq!(run.problems, [Problem::OtherKernel("6.12.1, and the matrix wants 6.1.*".into())]);
    transcript = Transcript {
        end: closed(0, 0),
        release: Some("6.1.9".into()),
        junit: None,
        kept: Vec::new(),
        results: Vec::new(),
        booted: None,
        took: Duration::ZERO,
    };
    assert_eq!(Run::judge(&kernel(), None, transcript, String::new()).problems, []);
}

#[test]
fn the_worst_of_all_kernels_is_the_exit_status_and_no_kernel_is_not_success() {
    let run = |problem| Run::not_started("a", problem);
    let could_not = || run(Problem::CouldNot("x".into()));
    assert_eq!(exit_status(&[]), 2);
    assert_eq!(exit_status(&[could_not()]), 2);
    assert_eq!(exit_status(&[could_not(), run(Problem::Failed(vec![]))]), 2);
    assert_eq!(exit_status(&[run(Problem::Died(String::new())), could_not()]), 3);
    assert_eq!(exit_status(&[run(Problem::Stopped), run(Problem::Died(String::new()))]), 130);
}

#[test]
fn what_the_machines_of_a_kernel_did_is_one_run() {
    let rest = || judge(closed(0, 0), Some(&passing()), &["root_a"]);
    let gate = |end| judge(end, Some(&passing().replace("bpf::root", "gate")), &[]);
    let both = rest().together_with(gate(closed(0, 0)));
    assert_eq!(both.problems, []);
    assert_eq!(both.outcomes.len(), 6);
    assert_eq!(both.took, Some(Duration::from_secs(40)));
    assert_eq!(both.overhead(), Some(Duration::from_secs(25)));
    let suites = &both.report.as_ref().unwrap().test_suites;
    assert_eq!(
        suites.iter().map(|suite| suite.name.as_str()).collect::<Vec<_>>(),
        ["bpf::root", "gate"]
    );
    // A problem of either machine counts. The console of a machine that died stays in the run.
    let died = || gate(End::Died("exit status: 255".into()));
    for both in [rest().together_with(died()), died().together_with(rest())] {
        assert_eq!(both.problems, [Problem::Died("exit status: 255".into())]);
        assert_eq!(both.console, "the console");
    }
    let stopped = || Run::not_started("6.1", Problem::Stopped);
    assert_eq!(stopped().together_with(stopped()).problems, [Problem::Stopped]);
    assert_eq!(stopped().together_with(rest()).release, rest().release);
}
