//! The sequences on the model: no root, no kernel.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sim::Version;
use testkit::env::number;
use testkit::replay::Replay;
use testkit::results::{self, Caught, Done, Machine, Method, Sequences, Test, Tested};
use vmtests::sequences::exhaustive::{Alphabet, Covered, Extent, SMALL, WIDE, exhaust};
use vmtests::sequences::historical::{Bug, Historical};
use vmtests::sequences::in_model::TheEngine;
use vmtests::sequences::on_model;
use vmtests::sequences::random::{Budget, Search, search};
use vmtests::sequences::regressions;
use vmtests::sequences::step::Step;
use vmtests::sequences::trial::{Property, Tally};

/// What failed once, here or on a kernel, does not fail again.
#[test]
fn sequences_that_are_kept_hold_on_the_model() {
    for (path, kept) in regressions::all(&regressions::folder()).expect("what is kept is read") {
        for version in [Version::NEWEST, Version::OLDEST] {
            let done = on_model::run(TheEngine, version, &kept.steps);
            let tally = done.unwrap_or_else(|violation| {
                let again = on_the_model(Some(path.clone()), version);
                panic!("{}:\n{}", kept.why, kept.failed(violation).report(&again))
            });
            // Calls that were added or left out since may have moved it to where it does no harm.
            let is_planned = kept.steps.iter().any(|step| step.fault().is_some());
            assert!(
                tally.faults + tally.crashes > 0 || !is_planned,
                "{}: nothing goes wrong in it any more: number the call anew",
                path.display()
            );
        }
    }
}

fn on_the_model(file: Option<PathBuf>, version: Version) -> Replay {
    Replay { file, rules: Some(version.to_string()), ..Replay::default() }
}

fn model(version: Version) -> Machine {
    Machine::Model(version.to_string())
}

/// On the newest rules, and on the oldest that are modelled: without revisions.
#[test]
fn random_sequences_on_the_model_leave_nothing_behind() {
    let mut done = Vec::new();
    for version in [Version::NEWEST, Version::OLDEST] {
        let budget = Budget::from_env(25_000, Duration::from_secs(60), 40);
        println!("seed {}", budget.seed);
        let found = search(&budget, |steps| on_model::run(TheEngine, version, steps));
        if let Some(failure) = found.failure {
            let failure = failure.try_again(|steps| on_model::run(TheEngine, version, steps));
            let file = regressions::keep(&failure, "the engine", found.seed).ok();
            let told = failure.report(&on_the_model(file, version));
            panic!("seed {}, after {} sequences:\n{told}", found.seed, failure.cases);
        }
        let Search { tally, took, seed, .. } = found;
        let (system, method) = (Tested::Engine, Method::Random { seed });
        done.push(Sequences { system, machine: model(version), method, tally, took });
    }
    results::write(Test::RandomOnModel, Done::Sequences(done));
}

#[test]
fn every_short_sequence_with_a_mishap_at_every_call_leaves_nothing_behind() {
    let size = |name, or| usize::try_from(number(name).unwrap_or(or)).expect("a small number");
    let time = Duration::from_secs(number("GATE_EXHAUSTIVE_SECONDS").unwrap_or(400));
    let depth = size("GATE_DEPTH", 6);
    let depth_with_mishap = size("GATE_DEPTH_WITH_MISHAP", 4);
    let extent = Extent { depth, depth_with_mishap, time };
    let mut done = vec![exhausted("small", SMALL, Version::NEWEST, extent)];
    // With so many more steps this is as deep as it goes in the same time.
    let (depth, depth_with_mishap) = (depth.saturating_sub(2), depth_with_mishap.saturating_sub(2));
    for version in [Version::NEWEST, Version::OLDEST] {
        done.push(exhausted("wide", WIDE, version, Extent { depth, depth_with_mishap, time }));
    }
    results::write(Test::ExhaustiveOnModel, Done::Sequences(done));
}

/// Runs every sequence of that extent. Panics at the first that fails.
fn exhausted(name: &str, alphabet: Alphabet, version: Version, extent: Extent) -> Sequences {
    let covered = on_two_threads(alphabet, version, &extent);
    let [plain, with_mishap] = covered.sequences;
    let method = Method::Exhaustive {
        alphabet: name.to_owned(),
        depth: extent.depth,
        depth_with_mishap: extent.depth_with_mishap,
        plain,
        with_mishap,
    };
    if let Some(failure) = covered.failure {
        let failure = failure.try_again(|steps| on_model::run(TheEngine, version, steps));
        let file = regressions::keep(&failure, "the engine", 0).ok();
        panic!("{}", failure.report(&on_the_model(file, version)));
    }
    assert!(covered.complete, "{method}, and then the time was up");
    let Covered { tally, took, .. } = covered;
    Sequences { system: Tested::Engine, machine: model(version), method, tally, took }
}

/// Each takes the next first step that nobody has taken: some have many more sequences behind them than others.
fn on_two_threads(alphabet: Alphabet, version: Version, extent: &Extent) -> Covered {
    let began = Instant::now();
    let next = AtomicUsize::new(0);
    let run = || {
        let mut all = Covered { complete: true, ..Covered::default() };
        while all.complete && all.failure.is_none() {
            let first = next.fetch_add(1, Ordering::Relaxed);
            if first >= alphabet.steps.len() {
                break;
            }
            let extent = Extent { time: extent.time.saturating_sub(began.elapsed()), ..*extent };
            all += exhaust(TheEngine, version, alphabet, &extent, &[first]);
        }
        all
    };
    let mut all = std::thread::scope(|scope| {
        let other = scope.spawn(run);
        let mut all = run();
        all += other.join().expect("the other thread ends");
        all
    });
    all.took = began.elapsed();
    all
}

/// The gate can fail: it does for each bug of the history, and for none without.
#[test]
fn every_bug_of_the_history_is_caught() {
    let (mut wrong, mut all) = (Vec::new(), Vec::new());
    println!("{:<38} {:<24} {:>6} {:>6} {:>8}", "BUG", "CAUGHT BY", "CASES", "STEPS", "SECONDS");
    for bug in std::iter::once(None).chain(Bug::ALL.map(Some)) {
        let (name, found) = (name(bug), search_for(bug));
        let (caught_by, sequences, steps) = match &found.failure {
            Some(it) => (Some(it.violation.property.to_string()), it.cases, it.steps.len()),
            None => (None, found.tally.sequences, 0),
        };
        let seconds = found.took.as_secs_f64();
        let property = caught_by.as_deref().unwrap_or("-");
        println!("{name:<38} {property:<24} {sequences:>6} {steps:>6} {seconds:>8.2}");
        all.push(Caught { bug: bug.map(|bug| bug.to_string()), caught_by, sequences, steps });
        // Not if it was the gate itself that failed, and without a bug not after fewer than all sequences.
        let is_caught =
            found.failure.as_ref().is_some_and(|it| it.violation.property != Property::GateIsRight);
        let is_right = if bug.is_some() {
            is_caught
        } else {
            found.failure.is_none() && found.tally.sequences == SEQUENCES
        };
        if !is_right {
            let listing = found.failure.map(|failure| failure.listing());
            wrong.push(format!("{name}: {}", listing.unwrap_or_default()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    results::write(Test::BugsOfHistory, Done::Bugs(all));
}

fn name(bug: Option<Bug>) -> String {
    bug.map_or("(none)".to_owned(), |bug| bug.to_string())
}

const SEQUENCES: u64 = 3_000;

/// Always the same sequences: whether a bug is found is no matter of luck.
fn search_for(bug: Option<Bug>) -> Search {
    let budget = Budget {
        cases: SEQUENCES,
        steps: u64::MAX,
        // Never reached: a busy machine takes longer, and all sequences all the same.
        time: Duration::from_secs(1200),
        longest: 40,
        seed: 20_261_123,
    };
    search(&budget, |steps: &[Step]| -> Result<Tally, _> {
        on_model::run(Historical(bug), Version::NEWEST, &Historical::steps(steps))
    })
}
