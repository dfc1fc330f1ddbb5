//! Adds up the results of the tests and says in words what they have proved.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use testkit::results::{self, Caught, Done, Machine, Tally, Test, TestResult, Tested};

use crate::sequences::historical::Bug;

/// Say in words what the tests have proved, from the results that they wrote
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folders with results, or with a folder of them for each kernel
    #[arg(value_name = "FOLDER", required = true)]
    folders: Vec<PathBuf>,

    /// Fail where a kernel has taken fewer steps, or a model fewer than ten times as many
    #[arg(long, value_name = "STEPS", default_value_t = 0)]
    at_least: u64,
}

/// Reads the results and prints what they prove.
pub fn main(args: &Args) -> ExitCode {
    match run(&args.folders, args.at_least) {
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

fn run(folders: &[PathBuf], at_least: u64) -> Result<String> {
    let mut proofs = Proofs::default();
    for folder in folders {
        for folder in with_results(folder)? {
            results::read(&folder)?.into_iter().for_each(|result| proofs.add(result));
        }
    }
    proofs.check(at_least)?;
    Ok(words(&proofs.machines))
}

/// Returns the folders in a folder. Each must have results. Returns the folder itself if it has none.
fn with_results(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut below = Vec::new();
    // Reading the results reports an unreadable folder.
    if let Ok(listing) = fs::read_dir(folder) {
        for entry in listing {
            let path = entry.with_context(|| folder.display().to_string())?.path();
            if path.is_dir() {
                below.push(path);
            }
        }
    }
    below.sort();
    Ok(if below.is_empty() { vec![folder.to_owned()] } else { below })
}

/// The proofs of all machines.
#[derive(Debug, Default)]
struct Proofs {
    machines: BTreeMap<Machine, Proof>,
    /// The bugs of the historical throttle, or `None` if nobody searched for them.
    bugs: Option<Vec<Caught>>,
    failed: Vec<Test>,
}

/// The proofs of one machine.
#[derive(Debug, Clone, Default)]
struct Proof {
    /// The tests that have a result.
    tests: BTreeSet<Test>,
    tallies: BTreeMap<Tested, Tally>,
    /// The number of calls on which the model and the kernel agreed.
    agreed: u64,
}

impl Proofs {
    fn add(&mut self, TestResult { test, done, .. }: TestResult) {
        match done {
            Done::Sequences(all) => {
                for each in all {
                    let proof = self.machines.entry(each.machine).or_default();
                    proof.tests.insert(test);
                    *proof.tallies.entry(each.system).or_default() += each.tally;
                }
            }
            Done::Agreement(agreement) => {
                let proof = self.machines.entry(agreement.machine).or_default();
                proof.tests.insert(test);
                proof.agreed += agreement.calls;
            }
            Done::Bugs(bugs) => self.bugs.get_or_insert_default().extend(bugs),
            Done::Failed(_) => self.failed.push(test),
        }
    }

    fn check(&self, at_least: u64) -> Result<()> {
        if let Some(test) = self.failed.first() {
            bail!("{} failed: nothing is proved by these results", test.function());
        }
        ensure!(!self.machines.is_empty(), "no sequences are in these results: nothing was proved");
        for (machine, proof) in &self.machines {
            proof.check(machine, at_least)?;
        }
        if self.machines.keys().any(|machine| !machine.is_kernel()) {
            check_bugs(self.bugs.as_deref())?;
        }
        Ok(())
    }
}

/// Checks that the sequences find every bug of the historical throttle, and nothing without a bug.
fn check_bugs(bugs: Option<&[Caught]>) -> Result<()> {
    let bugs = bugs.context("nobody tried whether the sequences find the bugs of the history")?;
    let of = |name: Option<String>| bugs.iter().find(move |it| it.bug == name);
    for bug in Bug::ALL.map(|bug| bug.to_string()) {
        let is_caught = of(Some(bug.clone())).is_some_and(|it| it.caught_by.is_some());
        ensure!(is_caught, "the bug \"{bug}\" was not caught");
    }
    let is_calm = of(None).is_some_and(|it| it.caught_by.is_none());
    ensure!(is_calm, "the throttle of the history was not found to be right without its bugs");
    Ok(())
}

impl Proof {
    /// Checks that each test ran, that each system met failures and deaths, and that enough was done. A proof for one
    /// system is none for another.
    fn check(&self, machine: &Machine, at_least: u64) -> Result<()> {
        let (tests, systems, factor) = if machine.is_kernel() {
            (&Test::ON_KERNEL[..], &[Tested::Engine, Tested::Program][..], 1)
        } else {
            // A model is a hundred times as fast as a kernel. The search for bugs belongs to no single machine.
            (&[Test::RandomOnModel, Test::ExhaustiveOnModel][..], &[Tested::Engine][..], 10)
        };
        for test in tests {
            ensure!(self.tests.contains(test), "on {machine} {} has no result", test.function());
        }
        for system in systems {
            let tally = self.tallies.get(system).copied().unwrap_or_default();
            ensure!(tally.sequences > 0, "{system} was not tried on {machine}");
            ensure!(
                tally.faults > 0 && tally.crashes > 0,
                "on {machine} no call of {system} was made to fail, or it was never killed"
            );
        }
        let (steps, needed) = (self.tally().steps, factor * at_least);
        ensure!(
            steps >= needed,
            "on {machine} only {steps} steps were taken, not the {needed} that are asked for"
        );
        ensure!(
            self.agreed > 0 || !machine.is_kernel(),
            "{machine} was not compared with its model, which says what is expected there"
        );
        Ok(())
    }

    fn tally(&self) -> Tally {
        let mut all = Tally::default();
        self.tallies.values().for_each(|tally| all += *tally);
        all
    }
}

/// Returns one line for each machine, and one for all of them.
fn words(machines: &BTreeMap<Machine, Proof>) -> String {
    let mut all = Tally::default();
    let mut text = String::new();
    for (machine, proof) in machines {
        let tally = proof.tally();
        all += tally;
        // Writing to a String cannot fail.
        let _ = write!(text, "proved on {machine}: {}", counts(&tally));
        let _ = match proof.agreed {
            0 => writeln!(text),
            calls => writeln!(text, "; its model agreed with it in {calls} calls"),
        };
    }
    let kernels = machines.keys().filter(|machine| machine.is_kernel()).count();
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

/// Returns a count with its noun, such as `1 kernel`, `2 kernels` or `2 models of a kernel`.
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

    use testkit::replay::Repeat;
    use testkit::results::{Agreement, Method, Sequences};

    use super::*;

    fn kernel() -> Machine {
        Machine::Kernel("6.1".to_owned())
    }

    fn model() -> Machine {
        Machine::Model("6.18".to_owned())
    }

    fn result(test: Test, done: Done) -> TestResult {
        TestResult { test, run: "a".to_owned(), done }
    }

    fn sequences(test: Test, machine: Machine, system: Tested, steps: u64) -> TestResult {
        let each = Sequences {
            system,
            machine,
            method: Method::Random { seed: 7 },
            tally: Tally { sequences: 1, steps, faults: 2, crashes: 3 },
            took: Duration::ZERO,
        };
        result(test, Done::Sequences(vec![each]))
    }

    fn bugs() -> Vec<Caught> {
        let caught = |bug: Option<Bug>| Caught {
            bug: bug.map(|bug| bug.to_string()),
            caught_by: bug.map(|_| "nothing left".to_owned()),
            sequences: 1,
            steps: 3,
        };
        std::iter::once(None).chain(Bug::ALL.map(Some)).map(caught).collect()
    }

    /// Creates the results of a kernel's tests with these numbers of steps.
    fn on_kernel(engine: u64, program: u64) -> [TestResult; 3] {
        let agreement = Agreement { machine: kernel(), sequences: 1, calls: 30 };
        [
            sequences(Test::EngineOnKernel, kernel(), Tested::Engine, engine),
            sequences(Test::ProgramOnKernel, kernel(), Tested::Program, program),
            result(Test::ModelBesideKernel, Done::Agreement(agreement)),
        ]
    }

    fn on_model(steps: u64) -> [TestResult; 3] {
        [
            sequences(Test::RandomOnModel, model(), Tested::Engine, steps),
            sequences(Test::ExhaustiveOnModel, model(), Tested::Engine, steps),
            result(Test::BugsOfHistory, Done::Bugs(bugs())),
        ]
    }

    fn proofs(results: impl IntoIterator<Item = TestResult>) -> Proofs {
        let mut proofs = Proofs::default();
        results.into_iter().for_each(|result| proofs.add(result));
        proofs
    }

    /// Returns the objection to these results, if at least this many steps are required.
    fn objection(results: impl IntoIterator<Item = TestResult>, at_least: u64) -> String {
        proofs(results).check(at_least).map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn what_was_done_is_added_up_by_machine() {
        let proofs = proofs(on_kernel(10, 5).into_iter().chain(on_model(50)));
        let words = words(&proofs.machines);
        assert!(words.contains("proved on kernel 6.1: 2 sequences, 15 steps,"), "{words}");
        assert!(words.contains("killed; its model agreed with it in 30 calls\n"), "{words}");
        assert!(words.contains("in all: 4 sequences, 115 steps,"), "{words}");
        assert!(words.contains("on 1 kernel and 1 model of a kernel:"), "{words}");
        assert_eq!(several(2, "model of a kernel"), "2 models of a kernel");
    }

    #[test]
    fn too_little_is_no_proof() {
        assert_eq!(objection(on_kernel(8, 2), 10), "");
        let few = objection(on_kernel(8, 2), 11);
        assert!(few.contains("only 10 steps were taken, not the 11"), "{few}");
        assert_eq!(objection(on_model(5), 1), "");
        let few = objection(on_model(5), 2);
        assert!(few.contains("only 10 steps were taken, not the 20"), "{few}");
        let [engine, program, _] = on_kernel(8, 2);
        let nothing = Agreement { machine: kernel(), sequences: 0, calls: 0 };
        let alone = result(Test::ModelBesideKernel, Done::Agreement(nothing));
        assert!(objection([engine, program, alone], 0).contains("not compared"));
        assert!(objection([], 0).contains("nothing was proved"));
        let repeat = Repeat { again: None, command: "make it so".to_owned() };
        let failed = result(Test::EngineOnKernel, Done::Failed(repeat));
        let failed = objection(on_kernel(8, 2).into_iter().chain([failed]), 0);
        assert!(failed.contains("failed: nothing is proved"), "{failed}");
    }

    #[test]
    fn what_one_system_came_through_proves_nothing_of_the_other() {
        for calm in [Tally { faults: 0, ..tally() }, Tally { crashes: 0, ..tally() }] {
            let [engine, mut program, agreement] = on_kernel(10, 10);
            let Done::Sequences(all) = &mut program.done else { panic!("it has sequences") };
            all[0].tally = calm;
            let calm = objection([engine, program, agreement], 0);
            assert!(calm.contains("no call of the program was made to fail"), "{calm}");
        }
        // The file has the name of the program's test, but the result is the engine's.
        let [engine, _, agreement] = on_kernel(10, 10);
        let other = sequences(Test::ProgramOnKernel, kernel(), Tested::Engine, 10);
        let alone = objection([engine, other, agreement], 0);
        assert!(alone.contains("the program was not tried on kernel 6.1"), "{alone}");
    }

    fn tally() -> Tally {
        Tally { sequences: 1, steps: 10, faults: 2, crashes: 3 }
    }

    #[test]
    fn each_test_has_to_have_a_result_on_each_machine() {
        for missing in 0..3 {
            let mut results = on_kernel(10, 10).to_vec();
            let test = results.remove(missing).test;
            assert!(objection(results, 0).ends_with(&format!("{} has no result", test.function())));
            let mut results = on_model(10).to_vec();
            results.remove(missing);
            assert_ne!(objection(results, 0), "", "{missing}");
        }
    }

    #[test]
    fn sequences_that_miss_a_bug_or_see_one_everywhere_prove_nothing() {
        let with = |bugs: Vec<Caught>| {
            let [random, exhaustive, _] = on_model(10);
            objection([random, exhaustive, result(Test::BugsOfHistory, Done::Bugs(bugs))], 0)
        };
        assert_eq!(with(bugs()), "");
        let mut missed = bugs();
        missed[3].caught_by = None;
        let name = missed[3].bug.clone().unwrap();
        assert_eq!(with(missed), format!("the bug \"{name}\" was not caught"));
        assert!(with(bugs().split_off(2)).contains("was not caught"));
        let mut blind = bugs();
        blind[0].caught_by = Some("nothing left".to_owned());
        assert!(with(blind).contains("without its bugs"));
    }

    #[test]
    fn folders_without_results_or_with_stale_ones_prove_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let folder = |name: &str, results: &[TestResult]| {
            let folder = dir.path().join(name);
            fs::create_dir_all(&folder).unwrap();
            for result in results {
                results::write_into(&folder, result).unwrap();
            }
            folder
        };
        let told = |folders: &[PathBuf]| format!("{:#}", run(folders, 0).unwrap_err());
        let good = folder("vm/6.1", &on_kernel(10, 0));
        assert!(run(std::slice::from_ref(&good), 10).unwrap().contains("10 steps"));
        assert!(run(std::slice::from_ref(&good), 11).is_err());
        // Each folder in this folder must have results.
        assert!(run(&[dir.path().join("vm")], 10).unwrap().contains("10 steps"));
        folder("vm/6.12", &[]);
        assert!(told(&[dir.path().join("vm")]).contains("vm/6.12 has no results"));
        let [engine, program, agreement] = on_kernel(10, 10);
        let stale = TestResult { run: "b".to_owned(), ..agreement };
        let stale = folder("stale", &[engine, program, stale]);
        assert!(told(&[good.clone(), stale]).contains("of several runs"));
        assert!(told(&[good, dir.path().join("none")]).contains("cannot be read"));
    }
}
