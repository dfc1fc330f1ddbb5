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
use crate::again::{self, Again, Replay};
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

/// A sequence on which two machines differ.
#[derive(Debug)]
pub struct Found {
    /// How many sequences it took.
    pub sequences: u64,
    /// As short as it could be made.
    pub difference: Difference,
    /// Of how many calls a shorter one was on which they differed only once: then `difference` is as it was drawn.
    pub lost: Option<usize>,
    /// What became of it when it was tried again as it is.
    pub again: Again,
}

impl Found {
    /// As it is kept in `regressions/differential`, written down (see [`again::keep`]): the file, if it could be
    /// written, and the same on one line.
    pub fn keep(&self, found_by: &str) -> (Option<PathBuf>, String) {
        let why = self.difference.lines.first().cloned().unwrap_or_default();
        let kept = Regression { why, calls: self.difference.sequence() };
        let pretty = serde_json::to_string_pretty(&kept).unwrap_or_default() + "\n";
        let file = again::keep(&folder(), &format!("{found_by}.json"), &pretty).ok();
        (file, serde_json::to_string(&kept).unwrap_or_default())
    }

    /// All that is to be said of it; `replay` but for its file, which `found_by` gives its name.
    pub fn told(&self, found_by: &str, replay: Replay) -> String {
        let (file, json) = self.keep(found_by);
        let lost = self.lost.map_or_else(String::new, |calls| {
            format!("  {calls} of the calls differed once, and not when there was more time: so these are all\n")
        });
        let end = Replay { file, ..replay }.last_lines(&json, Some(self.again));
        format!("{}{lost}{end}", self.difference)
    }
}

/// A sequence on which model and kernel once differed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
/// The first difference, as short as it could be made.
///
/// # Panics
/// Never: sequences are drawn without a condition that they might not meet.
pub fn search(
    budget: Budget,
    mut compare: impl FnMut(&[Call], Duration) -> Result<Compared, Box<Difference>>,
) -> Result<Report, Box<Found>> {
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
                let (difference, lost) = shrink(&mut tree, *first, &mut compare);
                let calls = difference.sequence();
                let again = Again::tried(|| compare(&calls, LATER).is_err());
                let sequences = report.sequences;
                return Err(Box::new(Found { sequences, difference, lost, again }));
            }
        }
    }
    report.time = started.elapsed();
    Ok(report)
}

/// The shortest that still differs when there is time, and of how many calls one was that does not.
fn shrink(
    tree: &mut impl ValueTree<Value = Vec<Call>>,
    first: Difference,
    compare: &mut impl FnMut(&[Call], Duration) -> Result<Compared, Box<Difference>>,
) -> (Difference, Option<usize>) {
    let until = Instant::now() + SHRINKING;
    let mut shortest: Option<Box<Difference>> = None;
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
    let Some(shortest) = shortest else { return (first, None) };
    // It may only have been slow: so once more, with time.
    match compare(&shortest.sequence(), LATER) {
        Err(difference) => (*difference, None),
        Ok(_) => (first, Some(shortest.calls.len())),
    }
}

/// Where the sequences are kept on which there once was a difference.
fn folder() -> PathBuf {
    // As nextest sets it, where the sources are somewhere else than they were built.
    let here = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    here.join("regressions/differential")
}

/// All of them, by file.
///
/// # Panics
/// When one cannot be read.
pub fn regressions() -> Vec<(PathBuf, Regression)> {
    let folder = folder();
    let listing =
        std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut found: Vec<_> = listing
        .map(|entry| {
            let path = entry.expect("a folder's entry").path();
            let kept = read(&path);
            (path, kept)
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
/// Every difference, with the file of the sequence.
pub fn replay(
    mut compare: impl FnMut(&[Call], Duration) -> Result<Compared, Box<Difference>>,
) -> Result<usize, Vec<(PathBuf, Box<Difference>)>> {
    let kept = regressions();
    let count = kept.len();
    let mut differences = Vec::new();
    for (file, regression) in kept {
        if let Err(difference) = compare(&regression.calls, LATER) {
            differences.push((file, difference));
        }
    }
    if differences.is_empty() { Ok(count) } else { Err(differences) }
}

#[cfg(test)]
mod tests {
    use super::super::models;
    use super::*;
    use crate::model::Version;

    /// Since 6.17 lists have revisions, so these two differ.
    fn differ(calls: &[Call]) -> Result<Compared, Box<Difference>> {
        models(Version::new(6, 12), Version::new(6, 18))(calls, LATER)
    }

    fn budget() -> Budget {
        Budget { seed: 1, sequences: None, time: Duration::from_secs(60) }
    }

    #[test]
    fn it_is_told_how_often_what_was_found_differs_again() {
        let found = search(budget(), |calls, _| differ(calls)).unwrap_err();
        assert_eq!((found.lost, found.again), (None, Again { runs: 3, failed: 3 }));
        assert_eq!(found.difference.calls.len(), 1);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.json");
        let json = serde_json::to_string(&Regression {
            why: String::new(),
            calls: found.difference.sequence(),
        });
        std::fs::write(&file, json.unwrap()).unwrap();
        assert_eq!(read(&file).calls, found.difference.sequence());
    }

    #[test]
    fn a_difference_that_does_not_come_back_is_told_with_the_sequence_as_it_was_drawn() {
        // Only while there is little time, as when a kernel is slow; the first one has time.
        let mut first = None;
        let found = search(Budget { seed: 4, ..budget() }, |calls, later| {
            let differs = differ(calls);
            match &differs {
                Err(_) if later == LATER && first.is_some() => Ok(Compared { calls: calls.len() }),
                Err(difference) => {
                    first.get_or_insert_with(|| difference.sequence());
                    differs
                }
                Ok(_) => differs,
            }
        });
        let found = found.unwrap_err();
        assert_eq!(Some(found.difference.sequence()), first);
        assert_eq!((found.lost, found.again.failed), (Some(1), 0));
        assert!(found.difference.calls.len() > 1, "another seed is needed: this is short as drawn");
    }
}
