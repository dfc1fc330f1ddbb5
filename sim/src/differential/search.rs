//! Searches for a sequence of calls on which two worlds differ, and shortens it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde::{Deserialize, Serialize};

use super::call::Call;
use super::compare::{Compared, Difference, LATER};
use super::strategy::calls;

/// The time for shortening a sequence.
const SHRINKING: Duration = Duration::from_secs(60);
/// The wait for the kernel while shortening. Each run that differs waits for the whole time.
const SHORTLY: Duration = Duration::from_millis(500);

/// The number of times that [`search`] repeats a sequence that differed.
pub const AGAIN: u32 = 3;

/// The limits of a search.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// The seed of the random calls.
    pub seed: u64,
    /// The most sequences, if limited.
    pub sequences: Option<u64>,
    /// The time after which no new sequence starts.
    pub time: Duration,
}

/// A search that found no difference.
#[derive(Debug, Clone, Copy)]
pub struct Report {
    /// The number of sequences.
    pub sequences: u64,
    /// The number of calls on existing objects, in all sequences.
    pub calls: usize,
    /// The time that it took.
    pub time: Duration,
    /// The seed of the random calls.
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

/// A sequence on which two worlds differ.
#[derive(Debug)]
pub struct Found {
    /// The number of sequences that it took to find.
    pub sequences: u64,
    /// The difference, shortened as far as possible.
    pub difference: Difference,
    /// The length of a shorter sequence on which they differed only once. Then `difference` is the sequence as drawn.
    pub lost: Option<usize>,
    /// How many of [`AGAIN`] unchanged runs differed again.
    pub again: u32,
}

impl Found {
    /// Returns what `regressions` keeps of it.
    pub fn regression(&self) -> Regression {
        let why = self.difference.lines.first().cloned().unwrap_or_default();
        Regression { why, calls: self.difference.sequence() }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.difference)?;
        match self.lost {
            None => Ok(()),
            Some(calls) => writeln!(
                f,
                "  {calls} of the calls differed once, and not when there was more time: so these are all"
            ),
        }
    }
}

/// A sequence on which model and kernel once differed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Regression {
    /// The difference.
    pub why: String,
    /// The calls that show it.
    pub calls: Vec<Call>,
}

/// Runs random sequences until the budget is used up. The second argument of `compare` is the time that the kernel may
/// take to finish what it does after a call has returned.
///
/// # Errors
/// Returns the first difference, shortened as far as possible.
///
/// # Panics
/// Never panics, because no drawn sequence is rejected.
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
                let again = (0..AGAIN).map(|_| u32::from(compare(&calls, LATER).is_err())).sum();
                let sequences = report.sequences;
                return Err(Box::new(Found { sequences, difference, lost, again }));
            }
        }
    }
    report.time = started.elapsed();
    Ok(report)
}

/// Returns the shortest sequence that differs again with enough time, or the first and the length of a shorter one.
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
    // The kernel may only have been slow, so try it once more with time.
    match compare(&shortest.sequence(), LATER) {
        Err(difference) => (*difference, None),
        Ok(_) => (first, Some(shortest.calls.len())),
    }
}

/// Returns the folder of the sequences that once differed.
pub fn folder() -> PathBuf {
    // nextest sets this if the sources have moved since the build.
    let here = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    here.join("regressions")
}

/// Reads all kept sequences, sorted by file.
///
/// # Panics
/// Panics if a file cannot be read.
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

/// Runs all kept sequences. Returns their number.
///
/// # Errors
/// Returns all differences, each with the file of its sequence.
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
    use super::*;
    use crate::Version;
    use crate::differential::models;

    /// Compares two versions that differ, because lists have revisions since 6.17.
    fn differ(calls: &[Call]) -> Result<Compared, Box<Difference>> {
        models(Version::new(6, 12), Version::new(6, 18))(calls, LATER)
    }

    fn budget() -> Budget {
        Budget { seed: 1, sequences: None, time: Duration::from_secs(60) }
    }

    #[test]
    fn it_is_told_how_often_what_was_found_differs_again() {
        let found = search(budget(), |calls, _| differ(calls)).unwrap_err();
        assert_eq!((found.lost, found.again), (None, AGAIN));
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
        // The sequence differs only with little time, as on a slow kernel. The first run has enough time.
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
        assert_eq!((found.lost, found.again), (Some(1), 0));
        assert!(found.difference.calls.len() > 1, "another seed is needed: this is short as drawn");
    }
}
