//! The sequences on the running kernel. The engine and the program are real processes.

use std::time::Duration;

use testkit::replay::Replay;
use testkit::results::{self, Done, Machine, Method, Sequences, Test, Tested};
use vmtests::sequences::on_kernel::Kernel;
use vmtests::sequences::random::{Budget, Search, search};
use vmtests::sequences::regressions;
use vmtests::sequences::step::Step;
use vmtests::sequences::trial::{Checked, Tally};
use vmtests::sequences::witness;

/// Runs what is kept, then sequences at random, and writes what was done.
fn prove(
    test: Test,
    system: Tested,
    budget: &Budget,
    run: fn(&mut Kernel, &[Step]) -> Checked<Tally>,
) {
    println!("seed {}", budget.seed);
    let mut kernel = Kernel::new(witness::every()).expect("the gate gets ready");
    let replay = |file| {
        let tested = match system {
            Tested::Engine => "engine".to_owned(),
            Tested::Program => "program".to_owned(),
        };
        Replay { file, on_kernel: true, system: Some(tested), ..Replay::default() }
    };
    for (path, kept) in regressions::all(&regressions::folder()).expect("what is kept is read") {
        if let Err(violation) = run(&mut kernel, &kept.steps) {
            let replay = replay(Some(path));
            results::write(test, Done::Failed(replay.repeat(None)));
            panic!("{}:\n{}", kept.why, kept.failed(violation).report(&replay));
        }
    }
    let Search { tally, failure, seed, took } = search(budget, |steps| run(&mut kernel, steps));
    if let Some(failure) = failure {
        let failure = failure.try_again(|steps| {
            kernel.be_patient();
            run(&mut kernel, steps)
        });
        let file = regressions::keep(&failure, &system.to_string(), seed).ok();
        let replay = replay(file);
        results::write(test, Done::Failed(replay.repeat(failure.again)));
        let report = failure.report(&replay);
        panic!("seed {seed}, after {} sequences, {took:.1?}:\n{report}", failure.cases);
    }
    let (machine, method) = (Machine::this_kernel(), Method::Random { seed });
    let done = vec![Sequences { system, machine, method, tally, took }];
    results::write(test, Done::Sequences(done));
}

#[test]
fn root_random_sequences_of_the_engine_on_this_kernel_leave_nothing_behind() {
    // An emulated processor takes some 130 ms for a step, and here three times as long is enough for all of them.
    // `vmtests proved` sees whether all were taken. What was found is told before nextest ends the test (after 1,500 s).
    let budget = Budget::from_env(2_000, Duration::from_secs(1_000), 40);
    prove(Test::EngineOnKernel, Tested::Engine, &budget, Kernel::run_engine);
}

#[test]
fn root_random_sequences_of_the_program_on_this_kernel_leave_nothing_behind() {
    let budget = Budget::from_env(100, Duration::from_secs(300), 30);
    prove(Test::ProgramOnKernel, Tested::Program, &budget, Kernel::run_program);
}
