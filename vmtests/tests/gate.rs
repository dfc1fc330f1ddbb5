//! The gate on the model: no root, no kernel.

use std::time::Duration;

use vmtests::gate::in_model::TheEngine;
use vmtests::gate::on_model;
use vmtests::gate::random::{Budget, search};
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
