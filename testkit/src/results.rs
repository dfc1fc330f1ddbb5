//! Stores as data what the tests have proved. Each test writes a JSON file, and `vmtests proved` adds the files up.
//!
//! The files go into the folder in the environment variable `VMTESTS_RESULTS`, or below `target/results`. A failed test
//! writes how to reproduce the failure, or nothing. `scripts/test` and `vmtests vm` empty the folders before a run.

use std::fmt;
use std::fs;
use std::ops::AddAssign;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::replay::Repeat;

/// The variable with the folder for results.
pub const FOLDER: &str = "VMTESTS_RESULTS";
/// The variable with the id of the run. The machines of `vmtests vm` run nextest several times but share one id.
pub const RUN: &str = "VMTESTS_RUN";

/// The tests that write a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Test {
    /// Random sequences of the engine on the simulated kernel.
    RandomOnModel,
    /// Every short sequence of the engine on the simulated kernel.
    ExhaustiveOnModel,
    /// The search for every bug of the historical throttle.
    BugsOfHistory,
    /// Random sequences of the engine on a real kernel.
    EngineOnKernel,
    /// Random sequences of the program on a real kernel.
    ProgramOnKernel,
    /// The simulated kernel beside a real one.
    ModelBesideKernel,
}

impl Test {
    /// The tests that need no kernel.
    pub const ON_MODEL: [Self; 3] =
        [Self::RandomOnModel, Self::ExhaustiveOnModel, Self::BugsOfHistory];
    /// The tests that run on each kernel.
    pub const ON_KERNEL: [Self; 3] =
        [Self::EngineOnKernel, Self::ProgramOnKernel, Self::ModelBesideKernel];

    /// Returns the name of the test function.
    pub fn function(self) -> &'static str {
        match self {
            Self::RandomOnModel => "random_sequences_on_the_model_leave_nothing_behind",
            Self::ExhaustiveOnModel => {
                "every_short_sequence_with_a_mishap_at_every_call_leaves_nothing_behind"
            }
            Self::BugsOfHistory => "every_bug_of_the_history_is_caught",
            Self::EngineOnKernel => {
                "root_random_sequences_of_the_engine_on_this_kernel_leave_nothing_behind"
            }
            Self::ProgramOnKernel => {
                "root_random_sequences_of_the_program_on_this_kernel_leave_nothing_behind"
            }
            Self::ModelBesideKernel => "root_the_model_agrees_with_this_kernel",
        }
    }

    /// Finds the test with this function.
    pub fn of_function(name: &str) -> Option<Self> {
        [Self::ON_MODEL, Self::ON_KERNEL].concat().into_iter().find(|test| test.function() == name)
    }

    fn file(self) -> String {
        format!("{}.json", self.function())
    }
}

/// The result of one test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TestResult {
    /// The test.
    pub test: Test,
    /// The id of the run, from nextest or `vmtests vm`.
    pub run: String,
    /// What the test did.
    pub done: Done,
}

/// What a test did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Done {
    /// It ran sequences, and none left anything behind.
    Sequences(Vec<Sequences>),
    /// The simulated kernel gave the same answers as the real one.
    Agreement(Agreement),
    /// It switched on bugs, one at a time, and searched for each.
    Bugs(Vec<Caught>),
    /// The test failed.
    Failed(Repeat),
}

/// A throttle system under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tested {
    /// The engine.
    Engine,
    /// The program `chadthrottle`.
    Program,
}

impl fmt::Display for Tested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Engine => "the engine",
            Self::Program => "the program",
        })
    }
}

/// The machine where sequences ran.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Machine {
    /// A real kernel, with its release from `uname -r`.
    Kernel(String),
    /// A simulated kernel, with the version that it follows.
    Model(String),
}

impl Machine {
    /// Returns the running kernel.
    pub fn this_kernel() -> Self {
        let names = nix::sys::utsname::uname();
        let release = names.as_ref().map(|names| names.release().to_string_lossy());
        Self::Kernel(release.map_or_else(|_| "?".to_owned(), std::borrow::Cow::into_owned))
    }

    /// Tells whether this is a real kernel.
    pub fn is_kernel(&self) -> bool {
        matches!(self, Self::Kernel(_))
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel(release) => write!(f, "kernel {release}"),
            Self::Model(version) => write!(f, "the model of {version}"),
        }
    }
}

/// How the sequences were chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// The sequences were random.
    Random {
        /// The seed.
        seed: u64,
    },
    /// The search ran every sequence.
    Exhaustive {
        /// The name of the alphabet of steps.
        alphabet: String,
        /// The number of steps without an injected failure.
        depth: usize,
        /// The number of steps with an injected failure.
        depth_with_mishap: usize,
        /// The number of sequences without an injected failure.
        plain: u64,
        /// The number of sequences with an injected failure.
        with_mishap: u64,
    },
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Random { seed } => write!(f, "at random, seed {seed}"),
            Self::Exhaustive { alphabet, depth, depth_with_mishap, plain, with_mishap } => write!(
                f,
                "every one of {plain} to depth {depth} and {with_mishap} with a mishap to depth \
                 {depth_with_mishap} of the {alphabet} alphabet"
            ),
        }
    }
}

/// The amount of work done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// The number of sequences.
    pub sequences: u64,
    /// The number of steps.
    pub steps: u64,
    /// The number of injected call failures.
    pub faults: u64,
    /// The number of killed owners, at a call or between two calls.
    pub crashes: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, more: Self) {
        self.sequences += more.sequences;
        self.steps += more.steps;
        self.faults += more.faults;
        self.crashes += more.crashes;
    }
}

/// Sequences that left nothing behind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sequences {
    /// The tested system.
    pub system: Tested,
    /// The machine.
    pub machine: Machine,
    /// How the sequences were chosen.
    pub method: Method,
    /// The amount of work done.
    pub tally: Tally,
    /// The time that it took.
    pub took: Duration,
}

impl fmt::Display for Sequences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { system, machine, method, tally, took } = self;
        let Tally { sequences, steps, faults, crashes } = tally;
        write!(
            f,
            "{system}; {machine}; {method}; {sequences} sequences, {steps} steps, {faults} faults, {crashes} crashes, \
             nothing left; {:.1} s",
            took.as_secs_f64()
        )
    }
}

/// The simulated kernel gave the same answers as a real one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreement {
    /// The real kernel.
    pub machine: Machine,
    /// The number of sequences of calls, kept and random.
    pub sequences: u64,
    /// The number of calls in all of them.
    pub calls: u64,
}

impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { machine, sequences, calls } = self;
        write!(f, "the model agrees with {machine} in {calls} calls of {sequences} sequences")
    }
}

/// The result of the search for one bug.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caught {
    /// The bug, or `None` if no bug was switched on.
    pub bug: Option<String>,
    /// The violated property, or `None` if nothing was found.
    pub caught_by: Option<String>,
    /// The number of sequences tried.
    pub sequences: u64,
    /// The number of steps in the shortest sequence that shows the bug.
    pub steps: usize,
}

/// Prints what a test did and writes its result.
///
/// # Panics
/// Panics if the result cannot be written into the folder that the environment names, because a missing result is a
/// failure.
pub fn write(test: Test, done: Done) {
    match &done {
        Done::Sequences(all) => all.iter().for_each(|each| println!("{each}")),
        Done::Agreement(agreement) => println!("{agreement}"),
        // The test prints a table itself, or panics.
        Done::Bugs(_) | Done::Failed(_) => {}
    }
    let variable = |name| std::env::var(name).ok();
    let run = variable(RUN).or_else(|| variable("NEXTEST_RUN_ID"));
    let result = TestResult { test, run: run.unwrap_or_else(|| "by hand".to_owned()), done };
    let named = std::env::var_os(FOLDER).map(PathBuf::from);
    let folder = named.clone().unwrap_or_else(default_folder);
    if let Err(error) = write_into(&folder, &result) {
        // Without a folder in the environment nobody needs the file. A packager may have read-only sources.
        assert!(named.is_none(), "the result cannot be written: {error:#}");
        eprintln!("no result is written: {error:#}");
    }
}

fn default_folder() -> PathBuf {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/results");
    target.join(std::env::var_os("NEXTEST_PROFILE").unwrap_or("by-hand".into()))
}

/// Writes a result into a folder, completely or not at all.
///
/// # Errors
/// Fails if the folder cannot be created or written.
pub fn write_into(folder: &Path, result: &TestResult) -> Result<PathBuf> {
    let file = folder.join(result.test.file());
    let draft = file.with_extension("draft");
    let text = serde_json::to_string_pretty(result)? + "\n";
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    fs::write(&draft, text).with_context(|| draft.display().to_string())?;
    fs::rename(&draft, &file).with_context(|| file.display().to_string())?;
    Ok(file)
}

/// Reads a result.
///
/// # Errors
/// Fails if the text is no result.
pub fn parse(text: &str) -> Result<TestResult> {
    serde_json::from_str(text).context("no result of a test")
}

/// Reads the results in a folder, by test.
///
/// # Errors
/// Fails if there are none, if one cannot be read, or if they are from several runs, because some are stale then.
pub fn read(folder: &Path) -> Result<Vec<TestResult>> {
    let shown = folder.display();
    let mut results = Vec::new();
    for file in files(folder)? {
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let result = parse(&text).with_context(|| file.display().to_string())?;
        results.push(result);
    }
    results.sort_by_key(|result| result.test);
    let Some(first) = results.first() else {
        anyhow::bail!("{shown} has no results: run `make test` or `make gate` first");
    };
    ensure!(
        results.iter().all(|result| result.run == first.run),
        "{shown} has results of several runs, so some of them are stale"
    );
    Ok(results)
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let listing = fs::read_dir(folder).with_context(|| {
        format!("{} cannot be read: run `make test` or `make gate` first", folder.display())
    })?;
    let mut files = Vec::new();
    for entry in listing {
        let path = entry.with_context(|| folder.display().to_string())?.path();
        if path.extension().is_some_and(|it| it == "json") {
            files.push(path);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequences() -> TestResult {
        let done = Done::Sequences(vec![Sequences {
            system: Tested::Engine,
            machine: Machine::Model("6.18".to_owned()),
            method: Method::Random { seed: 7 },
            tally: Tally { sequences: 20, steps: 300, faults: 11, crashes: 4 },
            took: Duration::from_millis(1_500),
        }]);
        TestResult { test: Test::RandomOnModel, run: "a".to_owned(), done }
    }

    fn agreement(run: &str) -> TestResult {
        let machine = Machine::Kernel("6.1.0-56-cloud-amd64".to_owned());
        let done = Done::Agreement(Agreement { machine, sequences: 26, calls: 700 });
        TestResult { test: Test::ModelBesideKernel, run: run.to_owned(), done }
    }

    #[test]
    fn an_agreement_is_read_back_from_its_file() {
        let dir = tempfile::tempdir().unwrap();
        write_into(dir.path(), &agreement("a")).unwrap();
        assert_eq!(read(dir.path()).unwrap(), [agreement("a")]);
    }

    #[test]
    fn sequences_are_read_back_from_their_file() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("results/root");
        write_into(&folder, &sequences()).unwrap();
        assert_eq!(read(&folder).unwrap(), [sequences()]);
        // Writing again replaces the same file.
        write_into(&folder, &sequences()).unwrap();
        write_into(&folder, &agreement("a")).unwrap();
        assert_eq!(read(&folder).unwrap(), [sequences(), agreement("a")]);
    }

    #[test]
    fn no_results_broken_ones_and_stale_ones_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let told = |folder: &Path| format!("{:#}", read(folder).unwrap_err());
        assert!(told(&dir.path().join("none")).contains("cannot be read: run `make test`"));
        assert!(told(dir.path()).contains("has no results"));
        write_into(dir.path(), &sequences()).unwrap();
        write_into(dir.path(), &agreement("b")).unwrap();
        assert!(told(dir.path()).contains("of several runs"));
        fs::write(dir.path().join("x.json"), "{}").unwrap();
        assert!(told(dir.path()).contains("no result of a test"));
    }

    #[test]
    fn a_test_is_found_by_its_function() {
        for test in [Test::ON_MODEL, Test::ON_KERNEL].concat() {
            assert_eq!(Test::of_function(test.function()), Some(test));
        }
        assert_eq!(Test::of_function("another"), None);
    }
}
