//! What the gate has proved, in words: added up from the results of the tests that are the gate.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, ensure};
use quick_junit::{Report as Junit, TestCase};

use super::report::{MARK, Report};
use super::trial::Tally;

/// Say in words what the gate's tests have proved, from their `JUnit` files
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Files that nextest and `vmtests vm` have written
    #[arg(value_name = "JUNIT", required = true)]
    files: Vec<PathBuf>,

    /// Fail where a machine has taken fewer steps
    #[arg(long, value_name = "STEPS", default_value_t = 0)]
    at_least: u64,
}

/// Reads the files and prints what they prove.
pub fn main(args: &Args) -> ExitCode {
    match run(&args.files, args.at_least) {
        Ok(words) => {
            print!("{words}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("vmtests: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(files: &[PathBuf], at_least: u64) -> Result<String> {
    let mut reports = Vec::new();
    for file in files {
        reports.extend(read(file)?);
    }
    ensure!(!reports.is_empty(), "no test of the gate is in these files: nothing was proved");
    let machines = by_machine(&reports);
    for (machine, tally) in &machines {
        // A model is a hundred times as fast as a kernel.
        let needed = if machine.starts_with("kernel ") { at_least } else { 10 * at_least };
        ensure!(
            tally.steps >= needed,
            "on {machine} only {} steps were taken, not the {needed} that are asked for",
            tally.steps
        );
        ensure!(
            tally.faults > 0 && tally.crashes > 0,
            "on {machine} no call was made to fail, or no owner was killed"
        );
    }
    Ok(words(&machines))
}

fn by_machine(reports: &[Report]) -> BTreeMap<&str, Tally> {
    let mut machines: BTreeMap<&str, Tally> = BTreeMap::new();
    for report in reports {
        *machines.entry(&report.machine).or_default() += report.tally;
    }
    machines
}

fn read(file: &Path) -> Result<Vec<Report>> {
    let shown = file.display();
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("{shown} cannot be read: run `make test` or `make gate` first"))?;
    let junit = Junit::deserialize_from_str(&text).with_context(|| format!("{shown}: no JUnit"))?;
    ensure!(junit.failures + junit.errors == 0, "{shown} has failures: nothing is proved by it");
    let cases = junit.test_suites.iter().flat_map(|suite| &suite.test_cases);
    let reports = cases.flat_map(reports_of).collect::<std::result::Result<_, _>>();
    reports.map_err(|why| anyhow!("{shown}: {why}"))
}

fn reports_of(case: &TestCase) -> Vec<std::result::Result<Report, String>> {
    let Some(output) = &case.system_out else { return Vec::new() };
    let lines = output.as_str().lines().filter(|line| line.starts_with(MARK));
    lines.map(str::parse).collect()
}

/// One line for each machine, and what all of it says together.
fn words(machines: &BTreeMap<&str, Tally>) -> String {
    let mut all = Tally::default();
    let mut text = String::new();
    for (machine, tally) in machines {
        all += *tally;
        // Writing to a String cannot fail.
        let _ = writeln!(text, "proved on {machine}: {}", counts(tally));
    }
    let kernels = machines.keys().filter(|machine| machine.starts_with("kernel ")).count();
    let _ = writeln!(
        text,
        "proved in all: {}, on {kernels} kernels and {} models of one: after each sequence nothing of ours \
         was left, and every program of others was where it had been",
        counts(&all),
        machines.len() - kernels
    );
    text
}

fn counts(tally: &Tally) -> String {
    format!(
        "{} sequences, {} steps, {} calls made to fail, {} owners killed",
        tally.sequences, tally.steps, tally.faults, tally.crashes
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn report(machine: &str, steps: u64) -> Report {
        Report {
            system: "the engine".to_owned(),
            machine: machine.to_owned(),
            method: "at random".to_owned(),
            tally: Tally { sequences: 1, steps, faults: 2, crashes: 3 },
            took: Duration::ZERO,
        }
    }

    #[test]
    fn what_was_done_is_added_up_by_machine() {
        let reports =
            [report("kernel 6.1", 10), report("kernel 6.1", 5), report("the model of 6.18", 100)];
        let words = words(&by_machine(&reports));
        assert!(words.contains("proved on kernel 6.1: 2 sequences, 15 steps,"), "{words}");
        assert!(words.contains("in all: 3 sequences, 115 steps,"), "{words}");
        assert!(words.contains("on 1 kernels and 1 models"), "{words}");
    }

    #[test]
    fn files_without_the_gate_or_with_failures_prove_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, failures: u8, output: &str| {
            let path = dir.path().join(name);
            let text = format!(
                r#"<?xml version="1.0" encoding="UTF-8"?><testsuites name="n" tests="1" failures="{failures}" errors="0">
                <testsuite name="s" tests="1" disabled="0" errors="0" failures="{failures}">
                <testcase name="t" classname="c"><system-out>{output}</system-out></testcase>
                </testsuite></testsuites>"#
            );
            std::fs::write(&path, text).unwrap();
            path
        };
        let good = file("good.xml", 0, &format!("running\n{}\n", report("kernel 6.1", 10)));
        assert!(run(std::slice::from_ref(&good), 10).unwrap().contains("10 steps"));
        let few = run(std::slice::from_ref(&good), 11).unwrap_err().to_string();
        assert!(few.contains("only 10 steps"), "{few}");
        let failed = file("failed.xml", 1, &report("kernel 6.1", 10).to_string());
        assert!(run(&[good.clone(), failed], 0).unwrap_err().to_string().contains("has failures"));
        let silent = file("silent.xml", 0, "nothing");
        assert!(run(&[silent], 0).unwrap_err().to_string().contains("nothing was proved"));
        assert!(run(&[good, dir.path().join("none")], 0).is_err());
    }
}
