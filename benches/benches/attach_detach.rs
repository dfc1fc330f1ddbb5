//! How long it takes to limit a cgroup and to end that, verified, beside the two system calls that this takes at
//! the least, with 0 to 63 other programs on the list.
//!
//! `cargo bench -p chadthrottle-benches --bench attach_detach`, as root. Fails when a ratio to the system calls is far above that
//! of the baseline.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use anyhow::Context;
use benches::attach::{FLOOR, LINK_FLOOR, NEIGHBOURS, Place, first_of_a_process};
use benches::baseline::Ratio;
use benches::run::{self, Run};
use benches::table::beside;
use benches::turns::{Contestant, Figure, by_criterion, in_turns};

fn main() -> ExitCode {
    run::main("attach_detach", "attaches programs to cgroups", bench)
}

fn bench(run: &Run) -> anyhow::Result<()> {
    // Pins and ledger of its own; before any thread is started.
    testkit::isolation::isolate();
    let mut ratios = Vec::new();
    for neighbours in NEIGHBOURS {
        let place = Place::new(neighbours)?;
        let mut contestants = place.contestants();
        let figures = in_turns(run, &mut contestants, 15, 200)?;
        let floor = figures.first().context("nothing was measured")?;
        println!("With {neighbours} neighbours:\n\n{}\n", beside(floor, &figures));
        let ours = figures.iter().filter(|figure| ![FLOOR, LINK_FLOOR].contains(&&*figure.name));
        ratios.extend(ours.map(|figure| {
            let ratio = Ratio::of(figure, floor);
            Ratio { name: format!("{}, {neighbours} neighbours", ratio.name), ..ratio }
        }));
        by_criterion(
            &format!("attach, arm, remove, verify; {neighbours} neighbours"),
            &mut contestants,
        );
        drop(contestants);
        place.end()?;
    }
    let mut first = [Contestant::new("first of a process, with loading", first_of_a_process)];
    let figures: Vec<Figure> = in_turns(run, &mut first, 15, 1)?;
    println!("{}\n", beside(&figures[0], &figures));
    run.settle(&ratios)
}
