//! What the gate has proved, in words: added up from the results of the tests that are the gate.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, ensure};
use quick_junit::Report as Junit;

use super::report::{AGREES, Agreement, MARK, Report};
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
    let mut said = Said::default();
    for file in files {
        said.read(file)?;
    }
    ensure!(!said.reports.is_empty(), "no test of the gate is in these files: nothing was proved");
    said.check_systems()?;
    let machines = said.by_machine();
    for (machine, proof) in &machines {
        proof.check(machine, at_least)?;
    }
    Ok(words(&machines))
}

/// What the tests have said.
#[derive(Debug, Default)]
struct Said {
    reports: Vec<Report>,
    agreements: Vec<Agreement>,
}

/// What was done on one machine.
#[derive(Debug, Clone, Copy, Default)]
struct Proof {
    tally: Tally,
    /// Calls on which the model of the kernel agreed with it.
    agreed: u64,
}

impl Said {
    fn read(&mut self, file: &Path) -> Result<()> {
        let shown = file.display();
        let text = std::fs::read_to_string(file).with_context(|| {
            format!("{shown} cannot be read: run `make test` or `make gate` first")
        })?;
        let junit =
            Junit::deserialize_from_str(&text).with_context(|| format!("{shown}: no JUnit"))?;
        ensure!(
            junit.failures + junit.errors == 0,
            "{shown} has failures: nothing is proved by it"
        );
        let cases = junit.test_suites.iter().flat_map(|suite| &suite.test_cases);
        let outputs = cases.filter_map(|case| case.system_out.as_ref());
        for line in outputs.flat_map(|output| output.as_str().lines()) {
            // libtest begins a line that the test's first one then follows.
            let line = line
                .split_once(" ... ")
                .filter(|_| line.starts_with("test "))
                .map_or(line, |it| it.1);
            let read = if line.starts_with(MARK) {
                line.parse().map(|report| self.reports.push(report))
            } else if line.starts_with(AGREES) {
                line.parse().map(|agreement| self.agreements.push(agreement))
            } else {
                continue;
            };
            read.map_err(|why: String| anyhow!("{shown}: {why}"))?;
        }
        Ok(())
    }

    /// On a kernel the engine and the program were tried, on a model the engine; and each of them met with
    /// failures and death: what one came through is no proof for the other.
    fn check_systems(&self) -> Result<()> {
        let mut tallies: BTreeMap<(&str, &str), Tally> = BTreeMap::new();
        for Report { machine, system, tally, .. } in &self.reports {
            *tallies.entry((machine, system)).or_default() += *tally;
            for system in if is_kernel(machine) { &SYSTEMS[..] } else { &SYSTEMS[..1] } {
                tallies.entry((machine, system)).or_default();
            }
        }
        for ((machine, system), tally) in tallies {
            ensure!(tally.sequences > 0, "{system} was not tried on {machine}");
            ensure!(
                tally.faults > 0 && tally.crashes > 0,
                "on {machine} no call of {system} was made to fail, or it was never killed"
            );
        }
        Ok(())
    }

    fn by_machine(&self) -> BTreeMap<&str, Proof> {
        let mut machines: BTreeMap<&str, Proof> = BTreeMap::new();
        for report in &self.reports {
            machines.entry(&report.machine).or_default().tally += report.tally;
        }
        for agreement in &self.agreements {
            machines.entry(&agreement.machine).or_default().agreed += agreement.calls;
        }
        machines
    }
}

/// What is tried on a kernel; on a model only the first.
const SYSTEMS: [&str; 2] = ["the engine", "the program"];

fn is_kernel(machine: &str) -> bool {
    machine.starts_with("kernel ")
}

impl Proof {
    /// Whether enough was done.
    fn check(&self, machine: &str, at_least: u64) -> Result<()> {
        // A model is a hundred times as fast as a kernel.
        let needed = if is_kernel(machine) { at_least } else { 10 * at_least };
        ensure!(
            self.tally.steps >= needed,
            "on {machine} only {} steps were taken, not the {needed} that are asked for",
            self.tally.steps
        );
        ensure!(
            self.agreed > 0 || !is_kernel(machine),
            "{machine} was not compared with its model, which says what is expected there"
        );
        Ok(())
    }
}

/// One line for each machine, and what all of it says together.
fn words(machines: &BTreeMap<&str, Proof>) -> String {
    let mut all = Tally::default();
    let mut text = String::new();
    for (machine, Proof { tally, agreed }) in machines {
        all += *tally;
        // Writing to a String cannot fail.
        let _ = write!(text, "proved on {machine}: {}", counts(tally));
        let _ = match agreed {
            0 => writeln!(text),
            calls => writeln!(text, "; its model agreed with it in {calls} calls"),
        };
    }
    let kernels = machines.keys().filter(|machine| is_kernel(machine)).count();
    let _ = writeln!(
        text,
        "proved in all: {}, on {} and {}: after each sequence nothing of ours was left, and every program of \
         others was where it had been",
        counts(&all),
        several(kernels, "kernel"),
        several(machines.len() - kernels, "model of a kernel"),
    );
    text
}

/// `1 kernel`, `2 kernels`, `2 models of a kernel`.
fn several(count: usize, what: &str) -> String {
    if count == 1 {
        return format!("1 {what}");
    }
    let (noun, rest) = what
        .split_once(' ')
        .map_or((what, String::new()), |(noun, rest)| (noun, format!(" {rest}")));
    format!("{count} {noun}s{rest}")
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

    fn agreement(machine: &str) -> Agreement {
        Agreement { machine: machine.to_owned(), sequences: 1, calls: 30 }
    }

    #[test]
    fn what_was_done_is_added_up_by_machine() {
        let reports = vec![
            report("kernel 6.1", 10),
            report("kernel 6.1", 5),
            report("the model of 6.18", 100),
        ];
        let said = Said { reports, agreements: vec![agreement("kernel 6.1")] };
        let words = words(&said.by_machine());
        assert!(words.contains("proved on kernel 6.1: 2 sequences, 15 steps,"), "{words}");
        assert!(words.contains("killed; its model agreed with it in 30 calls\n"), "{words}");
        assert!(words.contains("in all: 3 sequences, 115 steps,"), "{words}");
        assert!(words.contains("on 1 kernel and 1 model of a kernel:"), "{words}");
        assert_eq!(several(2, "model of a kernel"), "2 models of a kernel");
    }

    #[test]
    fn too_little_is_no_proof() {
        let proof = Proof { tally: report("", 10).tally, agreed: 1 };
        let check = |proof: Proof, machine: &str, at_least| {
            proof.check(machine, at_least).map_err(|error| error.to_string())
        };
        assert_eq!(check(proof, "kernel 6.1", 10), Ok(()));
        let few = check(proof, "kernel 6.1", 11).unwrap_err();
        assert!(few.contains("only 10 steps were taken, not the 11"), "{few}");
        let few = check(proof, "the model of 6.1", 2).unwrap_err();
        assert!(few.contains("only 10 steps were taken, not the 20"), "{few}");
        let alone = Proof { agreed: 0, ..proof };
        assert!(check(alone, "kernel 6.1", 0).unwrap_err().contains("not compared"));
        assert_eq!(check(alone, "the model of 6.1", 1), Ok(()));
    }

    #[test]
    fn what_one_system_came_through_proves_nothing_of_the_other() {
        let program = |tally: Tally| {
            let system = "the program".to_owned();
            Report { system, tally, ..report("kernel 6.1", 10) }
        };
        let check = |reports: &[Report]| {
            let said = Said { reports: reports.to_vec(), agreements: Vec::new() };
            said.check_systems().map_err(|error| error.to_string())
        };
        let engine = report("kernel 6.1", 10);
        let tally = engine.tally;
        assert_eq!(check(&[engine.clone(), program(tally)]), Ok(()));
        assert_eq!(check(&[report("the model of 6.1", 10)]), Ok(()));
        let alone = check(std::slice::from_ref(&engine)).unwrap_err();
        assert!(alone.contains("the program was not tried on kernel 6.1"), "{alone}");
        for less in [Tally { faults: 0, ..tally }, Tally { crashes: 0, ..tally }] {
            let calm = check(&[engine.clone(), program(less)]).unwrap_err();
            assert!(calm.contains("no call of the program was made to fail"), "{calm}");
        }
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
        let engine = report("kernel 6.1", 10);
        let program = Report { system: "the program".to_owned(), ..report("kernel 6.1", 0) };
        let agrees = agreement("kernel 6.1");
        let lines = format!("running\ntest root_x ... {engine}\n{program}\n{agrees}\n");
        let good = file("good.xml", 0, &lines);
        assert!(run(std::slice::from_ref(&good), 10).unwrap().contains("10 steps"));
        assert!(run(std::slice::from_ref(&good), 11).is_err());
        let garbled = file("garbled.xml", 0, "agrees: with nobody");
        assert!(run(&[good.clone(), garbled], 0).unwrap_err().to_string().contains("not a line"));
        let failed = file("failed.xml", 1, &report("kernel 6.1", 10).to_string());
        assert!(run(&[good.clone(), failed], 0).unwrap_err().to_string().contains("has failures"));
        let silent = file("silent.xml", 0, "nothing");
        assert!(run(&[silent], 0).unwrap_err().to_string().contains("nothing was proved"));
        assert!(run(&[good, dir.path().join("none")], 0).is_err());
    }
}
