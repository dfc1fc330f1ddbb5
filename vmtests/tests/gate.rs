//! The gate on the model: no root, no kernel.

use std::time::Duration;

use vmtests::gate::exhaustive::{ALPHABET, Extent, exhaust};
use vmtests::gate::historical::{Bug, Historical};
use vmtests::gate::in_model::TheEngine;
use vmtests::gate::on_model;
use vmtests::gate::random::{Budget, search};
use vmtests::gate::step::Step;
use vmtests::model::Version;

#[test]
fn random_sequences_on_the_model_leave_nothing_behind() {
    let budget = Budget::from_env(2_000, Duration::from_secs(20), 40);
    println!("seed {}", budget.seed);
    let found = search(&budget, |steps| on_model::run(TheEngine, Version::NEWEST, steps));
    println!("{:?} in {:?}", found.tally, found.took);
    if let Some(failure) = found.failure {
        panic!("after {} sequences:\n{}", failure.cases, failure.listing(None));
    }
}

/// The gate can fail: it does for each bug of the history, and for none without.
#[test]
fn every_bug_of_the_history_is_caught() {
    let mut missed = Vec::new();
    for bug in std::iter::once(None).chain(Bug::ALL.map(Some)) {
        let budget = Budget { cases: 3_000, time: Duration::from_secs(30), steps: 40, seed: SEED };
        let run = |steps: &[Step]| {
            on_model::run(Historical(bug), Version::NEWEST, &Historical::steps(steps))
        };
        let found = search(&budget, run);
        let name = bug.map_or("none".to_owned(), |bug| bug.to_string());
        match &found.failure {
            Some(failure) => println!(
                "{name:<38} {:<24} {:>5} cases {:>2} steps {:>6.2?}\n{}",
                failure.violation.property,
                failure.cases,
                failure.steps.len(),
                found.took,
                failure.listing(None)
            ),
            None => println!(
                "{name:<38} {:>5} cases, nothing found, {:.2?}",
                found.tally.sequences, found.took
            ),
        }
        if found.failure.is_none() != bug.is_none() {
            missed.push(name);
        }
    }
    assert!(missed.is_empty(), "{missed:?}");
}

const SEED: u64 = 20_261_123;

#[test]
fn every_short_sequence_with_a_mishap_at_every_call_leaves_nothing_behind() {
    let number = |name: &str, or: usize| {
        std::env::var(name).map_or(or, |text| text.parse().expect("a number"))
    };
    let extent = Extent {
        depth: number("GATE_DEPTH", 5),
        depth_with_mishap: number("GATE_DEPTH_WITH_MISHAP", 3),
        time: Duration::from_secs(number("GATE_EXHAUSTIVE_SECONDS", 60) as u64),
    };
    let all =
        exhaust(TheEngine, Version::NEWEST, &extent, &(0..ALPHABET.len()).collect::<Vec<_>>());
    println!("{:?} {:?} {} {:?}", all.sequences, all.tally, all.complete, all.took);
    if let Some(failure) = all.failure {
        panic!("{}", failure.listing(None));
    }
    assert!(all.complete);
}
