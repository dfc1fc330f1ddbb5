//! The gate on the kernel that runs, with the engine and with the program as real processes.

use std::time::Duration;

use vmtests::again::Replay;
use vmtests::gate::on_kernel::Kernel;
use vmtests::gate::random::{Budget, Search, search};
use vmtests::gate::regressions;
use vmtests::gate::report::Report;
use vmtests::gate::step::Step;
use vmtests::gate::trial::{Checked, Tally};
use vmtests::gate::witness;

/// Runs what is kept, then sequences at random, and prints what was done.
fn prove(system: &str, budget: &Budget, run: fn(&mut Kernel, &[Step]) -> Checked<Tally>) {
    println!("seed {}", budget.seed);
    let mut kernel = Kernel::new(witness::every()).expect("the gate gets ready");
    let replay = |file| {
        let tested = system.trim_start_matches("the ").to_owned();
        Replay { file, on_kernel: true, system: Some(tested), ..Replay::default() }
    };
    for (path, kept) in regressions::all(&regressions::folder()).expect("what is kept is read") {
        if let Err(violation) = run(&mut kernel, &kept.steps) {
            panic!("{}:\n{}", kept.why, kept.failed(violation).told(&replay(Some(path))));
        }
    }
    let Search { tally, failure, seed, took } = search(budget, |steps| run(&mut kernel, steps));
    if let Some(failure) = failure {
        let failure = failure.try_again(|steps| {
            kernel.be_patient();
            run(&mut kernel, steps)
        });
        let file = regressions::keep(&failure, system, seed).ok();
        let told = failure.told(&replay(file));
        panic!("seed {seed}, after {} sequences, {took:.1?}:\n{told}", failure.cases);
    }
    let machine = Report::this_kernel();
    let method = format!("at random, seed {seed}");
    let system = system.to_owned();
    println!("{}", Report { system, machine, method, tally, took });
}

#[test]
fn root_random_sequences_of_the_engine_on_this_kernel_leave_nothing_behind() {
    // An emulated processor takes some 130 ms for a step, and here three times as long is enough for all of them.
    // `vmtests proved` sees whether all were taken. What was found is told before nextest ends the test (after 1,500 s).
    let budget = Budget::from_env(2_000, Duration::from_secs(1_000), 40);
    prove("the engine", &budget, Kernel::run_engine);
}

#[test]
fn root_random_sequences_of_the_program_on_this_kernel_leave_nothing_behind() {
    let budget = Budget::from_env(100, Duration::from_secs(300), 30);
    prove("the program", &budget, Kernel::run_program);
}
