//! The gate on the running kernel.

use std::path::Path;
use std::time::Duration;

use vmtests::gate::agent::Agents;
use vmtests::gate::on_kernel::{Machine, Programs, Tools};
use vmtests::gate::program::TheProgram;
use vmtests::gate::random::{Budget, search};
use vmtests::gate::report::Report;
use vmtests::gate::system::System;

const AGENT: &str = env!("CARGO_BIN_EXE_engine-agent");

/// Random sequences; the system is made anew for each.
fn search_on_this_kernel<S: System>(name: &str, budget: &Budget, system: impl Fn(&Programs) -> S) {
    let machine = Machine::isolated();
    let programs = Programs::beside(Path::new(AGENT));
    let mut tools = Tools::new(programs.clone());
    println!("seed {}", budget.seed);
    let found = search(budget, |steps| machine.run(system(&programs), steps, &mut tools));
    if let Some(failure) = &found.failure {
        panic!(
            "seed {}, after {} sequences:\n{}",
            found.seed,
            failure.cases,
            failure.listing(None)
        );
    }
    let method = format!(
        "at random, seed {}, the auditor and bpftool asked {} times",
        found.seed, tools.looks
    );
    let (system, machine) = (name.to_owned(), Report::this_kernel());
    println!("{}", Report { system, machine, method, tally: found.tally, took: found.took });
}

#[test]
fn root_random_sequences_of_the_engine_on_this_kernel_leave_nothing_behind() {
    let budget = Budget::from_env(130, Duration::from_secs(150), 40);
    search_on_this_kernel("the engine", &budget, |_| Agents::new(Path::new(AGENT)));
}

#[test]
fn root_random_sequences_of_the_program_on_this_kernel_leave_nothing_behind() {
    let budget = Budget::from_env(25, Duration::from_secs(90), 30);
    search_on_this_kernel("the program", &budget, |programs| {
        TheProgram::new(&programs.path("chadthrottle"))
    });
}
