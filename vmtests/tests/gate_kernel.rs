//! The gate on the running kernel.

use std::path::Path;
use std::time::Duration;

use vmtests::gate::agent::Agents;
use vmtests::gate::on_kernel::{Machine, Programs, Tools};
use vmtests::gate::random::{Budget, search};
use vmtests::gate::report::Report;

const AGENT: &str = env!("CARGO_BIN_EXE_engine-agent");

#[test]
fn root_random_sequences_of_the_engine_on_this_kernel_leave_nothing_behind() {
    let machine = Machine::isolated();
    let mut tools = Tools::new(Programs::beside(Path::new(AGENT)));
    let budget = Budget::from_env(150, Duration::from_secs(120), 40);
    println!("seed {}", budget.seed);
    let found =
        search(&budget, |steps| machine.run(Agents::new(Path::new(AGENT)), steps, &mut tools));
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
    let (system, machine) = ("the engine".to_owned(), Report::this_kernel());
    println!("{}", Report { system, machine, method, tally: found.tally, took: found.took });
}
