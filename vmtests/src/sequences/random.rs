//! Draws random sequences, and shortens one that fails.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use proptest_state_machine::ReferenceStateMachine;
use testkit::env::number;
use testkit::replay::{Again, Replay};

use super::plan::{PRELUDE, Plan};
use super::regressions::Regression;
use super::step::Step;
use super::trial::{Checked, Property, Tally, Violation};

/// The shortest time of a search, even if it has taken all its steps. A fast machine does more in that time.
const LEAST: Duration = Duration::from_secs(5);

/// The limits of a search. It ends at the first one that it reaches.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// The number of sequences.
    pub cases: u64,
    /// The number of steps, taken in at least five seconds. At least one call must fail and one owner must be killed.
    pub steps: u64,
    /// The time. Shrinking may take as long again.
    pub time: Duration,
    /// The longest sequence, in steps.
    pub longest: usize,
    /// The seed of the random sequences.
    pub seed: u64,
}

impl Budget {
    /// Returns a budget of so many steps, in no more than this time. The environment can ask for a number of sequences
    /// instead (`PROPTEST_CASES`), or for a time in seconds (`GATE_SECONDS`). The seed is `GATE_SEED`, or a new one.
    ///
    /// # Panics
    /// Panics if a variable is not a number.
    pub fn from_env(steps: u64, time: Duration, longest: usize) -> Self {
        let (cases, seconds) = (number("PROPTEST_CASES"), number("GATE_SECONDS"));
        Self {
            cases: cases.unwrap_or(u64::MAX),
            // A user who asks for a time or a number of sequences sets no number of steps.
            steps: if cases.or(seconds).is_some() { u64::MAX } else { steps },
            time: seconds.map_or(time, Duration::from_secs),
            longest,
            seed: number("GATE_SEED").unwrap_or_else(rand_seed),
        }
    }

    fn is_spent(&self, done: &Tally, took: Duration) -> bool {
        let is_enough = done.steps >= self.steps && done.faults > 0 && done.crashes > 0;
        done.sequences >= self.cases || (is_enough && took >= LEAST) || took >= self.time
    }
}

fn rand_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0) >> 16
}

/// A sequence that fails, shortened as far as possible.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The violated property.
    pub violation: Violation,
    /// The sequence.
    pub steps: Vec<Step>,
    /// The number of sequences that it took to find.
    pub cases: u64,
    /// How often it failed when it ran again unchanged.
    pub again: Option<Again>,
}

/// The outcome of a search.
#[derive(Debug, Clone)]
pub struct Search {
    /// The amount of work done.
    pub tally: Tally,
    /// The failure, if there was one.
    pub failure: Option<Failure>,
    /// The seed of the sequences.
    pub seed: u64,
    /// The time that it took.
    pub took: Duration,
}

/// Draws and runs sequences until the budget is spent or one fails.
pub fn search(budget: &Budget, mut run: impl FnMut(&[Step]) -> Checked<Tally>) -> Search {
    let began = Instant::now();
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&budget.seed.to_le_bytes());
    // Preconditions reject many drawn steps, and the search draws millions.
    let config = Config { max_local_rejects: u32::MAX, ..Config::default() };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let strategy = Plan::sequential_strategy(1..=budget.longest);
    let mut tally = Tally::default();
    let mut failure = None;
    while !budget.is_spent(&tally, began.elapsed()) {
        let drawn = strategy.new_tree(&mut runner);
        let mut tree = match drawn {
            Ok(tree) => tree,
            Err(why) => {
                let violation = Violation::new(Property::GateIsRight, why.to_string());
                failure = Some(Failure {
                    violation,
                    steps: Vec::new(),
                    cases: tally.sequences,
                    again: None,
                });
                break;
            }
        };
        let steps = sequence(tree.current().seen());
        match run(&steps) {
            Ok(more) => tally += more,
            Err(violation) => {
                let until = Instant::now() + budget.time.min(Duration::from_secs(20));
                let first = Failure { violation, steps, cases: tally.sequences + 1, again: None };
                failure = Some(shrink(&mut tree, first, until, &mut run));
                break;
            }
        }
    }
    if tally.sequences == 0 && failure.is_none() {
        let violation = Violation::new(Property::GateIsRight, "not one sequence was tried");
        failure = Some(Failure { violation, steps: Vec::new(), cases: 0, again: None });
    }
    Search { tally, failure, seed: budget.seed, took: began.elapsed() }
}

fn sequence(drawn: &[Step]) -> Vec<Step> {
    PRELUDE.iter().chain(drawn).copied().collect()
}

fn shrink<T: ValueTree>(
    tree: &mut T,
    mut best: Failure,
    until: Instant,
    run: &mut impl FnMut(&[Step]) -> Checked<Tally>,
) -> Failure
where
    T::Value: Drawn,
{
    while Instant::now() < until {
        if !tree.simplify() {
            break;
        }
        loop {
            let steps = sequence(tree.current().seen());
            if let Some(violation) = fails_alike(&best, run(&steps)) {
                best = Failure { violation, steps, ..best };
                break;
            }
            if Instant::now() > until || !tree.complicate() {
                break;
            }
        }
    }
    drop_needless(best, until, run)
}

/// Returns the violation if it is of the same property. A shorter sequence replaces the longer one only in that case.
fn fails_alike(best: &Failure, done: Checked<Tally>) -> Option<Violation> {
    done.err().filter(|violation| violation.property == best.violation.property)
}

/// Removes each single step that the failure does not need. proptest's own shrinking keeps to the plan's rough picture.
pub(super) fn drop_needless(
    mut best: Failure,
    until: Instant,
    run: &mut impl FnMut(&[Step]) -> Checked<Tally>,
) -> Failure {
    let mut at = best.steps.len();
    while at > 0 && Instant::now() < until {
        at -= 1;
        let mut fewer = best.steps.clone();
        fewer.remove(at);
        if let Some(violation) = fails_alike(&best, run(&fewer)) {
            best = Failure { violation, steps: fewer, ..best };
        }
    }
    best
}

/// What the strategy draws: a state, steps, and a counter of the steps taken.
trait Drawn {
    /// Returns the steps and marks all as taken, so that shrinking does not drop any as unused.
    fn seen(&self) -> &[Step];
}

impl<S> Drawn for (S, Vec<Step>, Option<Arc<AtomicUsize>>) {
    fn seen(&self) -> &[Step] {
        if let Some(taken) = &self.2 {
            taken.store(self.1.len(), Ordering::SeqCst);
        }
        &self.1
    }
}

impl Failure {
    /// Runs the sequence again, to find out whether it always fails.
    #[must_use]
    pub fn try_again(self, mut run: impl FnMut(&[Step]) -> Checked<Tally>) -> Self {
        let again = Again::tried(|| run(&self.steps).is_err());
        Self { again: Some(again), ..self }
    }

    /// Returns a numbered list of the steps, with the violation at its end.
    pub fn listing(&self) -> String {
        let mut text = String::new();
        for (at, step) in self.steps.iter().enumerate() {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  {:>2}. {step}", at + 1);
        }
        let _ = writeln!(text, "  {}", self.violation);
        text
    }

    /// Returns the listing and the last lines of [`Replay`], which say how to replay it.
    pub fn report(&self, replay: &Replay) -> String {
        let json = serde_json::to_string(&Regression::of(self)).unwrap_or_default();
        self.listing() + &replay.last_lines(&json, self.again)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure() -> Failure {
        let violation = Violation::new(Property::NothingLeft, "a pin");
        Failure { violation, steps: PRELUDE.to_vec(), cases: 3, again: None }
    }

    #[test]
    fn what_is_told_ends_with_whether_it_fails_again_and_what_to_type() {
        let again = failure().try_again(|steps| {
            assert_eq!(steps, PRELUDE);
            Err(failure().violation)
        });
        assert_eq!(again.again, Some(Again { runs: 3, failed: 3 }));
        let replay = Replay { file: Some("/kept.json".into()), ..Replay::default() };
        let told = again.report(&replay);
        let lines: Vec<_> = told.lines().collect();
        let [.., json, tried, typed] = &*lines else { panic!("{told}") };
        let json = json.trim_start().strip_prefix("as JSON: ").unwrap();
        assert_eq!(serde_json::from_str::<Regression>(json).unwrap(), Regression::of(&again));
        assert_eq!(*tried, "  tried again just now, it failed 3 times of 3");
        assert!(typed.contains("vmtests replay /kept.json"), "{typed}");
        assert!(told.starts_with(&again.listing()), "{told}");
    }
}
