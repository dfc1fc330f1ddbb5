//! Looks for a sequence on which two machines differ, and makes the one that it finds short.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde::{Deserialize, Serialize};

use super::call::Call;
use super::compare::{Compared, Difference, LATER};
use super::strategy::calls;
use crate::env::number;

/// How long a sequence that was found may be made shorter for.
const SHRINKING: Duration = Duration::from_secs(60);
/// How long is waited meanwhile for what kernels do later. What differs is waited for in vain each time.
const SHORTLY: Duration = Duration::from_millis(500);

/// How much is tried.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// What the random calls are drawn from.
    pub seed: u64,
    /// At most so many sequences.
    pub sequences: Option<u64>,
    /// No new sequence after this time.
    pub time: Duration,
}

impl Budget {
    /// What the environment asks for: `GATE_SEED` (else from the clock), `PROPTEST_CASES` (else as many as the
    /// time allows) and `GATE_SECONDS` (else `seconds`).
    ///
    /// # Panics
    /// When one of them is not a number.
    pub fn from_env(seconds: u64) -> Self {
        let clock =
            std::time::UNIX_EPOCH.elapsed().map_or(0, |time| u64::from(time.subsec_nanos()));
        Self {
            seed: number("GATE_SEED").unwrap_or(clock),
            sequences: number("PROPTEST_CASES"),
            time: Duration::from_secs(number("GATE_SECONDS").unwrap_or(seconds)),
        }
    }
}

/// What was tried without finding a difference.
#[derive(Debug, Clone, Copy)]
pub struct Report {
    /// Sequences.
    pub sequences: u64,
    /// Calls on something that was there, in all of them.
    pub calls: usize,
    /// How long it took.
    pub time: Duration,
    /// What they were drawn from.
    pub seed: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sequences, calls, time, seed } = self;
        let per_second = *calls as f64 / time.as_secs_f64();
        write!(
            f,
            "{sequences} sequences, {calls} calls, {per_second:.0} calls a second, GATE_SEED={seed}"
        )
    }
}

/// A sequence on which model and kernel once differed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Regression {
    /// What was different.
    pub why: String,
    /// The calls that show it.
    pub calls: Vec<Call>,
}

/// Tries random sequences until the budget is used up. `compare` is told how long to wait for what kernels do
/// later.
///
/// # Errors
/// The first difference, as short as it could be made, with how many sequences it took.
///
/// # Panics
/// Never: sequences are drawn without a condition that they might not meet.
pub fn search(
    budget: Budget,
    mut compare: impl FnMut(&[Call], Duration) -> Result<Compared, Box<Difference>>,
) -> Result<Report, (u64, Box<Difference>)> {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&budget.seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let strategy = calls();
    let started = Instant::now();
    let mut report = Report { sequences: 0, calls: 0, time: Duration::ZERO, seed: budget.seed };
    while started.elapsed() < budget.time
        && budget.sequences.is_none_or(|most| report.sequences < most)
    {
        let mut tree = strategy.new_tree(&mut runner).expect("nothing is filtered");
        report.sequences += 1;
        match compare(&tree.current(), LATER) {
            Ok(compared) => report.calls += compared.calls,
            Err(first) => {
                return Err((report.sequences, Box::new(shrink(&mut tree, *first, compare))));
            }
        }
    }
    report.time = started.elapsed();
    Ok(report)
}

fn shrink(
    tree: &mut impl ValueTree<Value = Vec<Call>>,
    first: Difference,
    mut compare: impl FnMut(&[Call], Duration) -> Result<Compared, Box<Difference>>,
) -> Difference {
    let until = Instant::now() + SHRINKING;
    let mut shortest = None;
    let mut again = tree.simplify();
    while again && Instant::now() < until {
        again = match compare(&tree.current(), SHORTLY) {
            Ok(_) => tree.complicate(),
            Err(difference) => {
                shortest = Some(difference);
                tree.simplify()
            }
        };
    }
    // It may only have been slow: so once more, with time.
    shortest
        .and_then(|it: Box<Difference>| {
            let calls: Vec<_> = it.calls.iter().map(|(call, _)| call.clone()).collect();
            compare(&calls, LATER).err().map(|it| *it)
        })
        .unwrap_or(first)
}

/// Where the sequences are kept on which there once was a difference.
fn folder() -> PathBuf {
    // As nextest sets it, where the sources are somewhere else than they were built.
    let here = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    here.join("regressions/differential")
}

/// All of them, by name.
///
/// # Panics
/// When one cannot be read.
pub fn regressions() -> Vec<(String, Regression)> {
    let folder = folder();
    let listing =
        std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut found: Vec<_> = listing
        .map(|entry| {
            let path = entry.expect("a folder's entry").path();
            (path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), read(&path))
        })
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

fn read(path: &Path) -> Regression {
    let text = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Tries the sequences that are kept, all of them. Returns how many.
///
/// # Errors
/// Every difference, with the name of the sequence.
pub fn replay(
    mut compare: impl FnMut(&[Call], Duration) -> Result<Compared, Box<Difference>>,
) -> Result<usize, Vec<(String, Box<Difference>)>> {
    let kept = regressions();
    let count = kept.len();
    let mut differences = Vec::new();
    for (name, regression) in kept {
        if let Err(difference) = compare(&regression.calls, LATER) {
            differences.push((name, difference));
        }
    }
    if differences.is_empty() { Ok(count) } else { Err(differences) }
}
