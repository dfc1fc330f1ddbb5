//! Measures how long it takes to limit a cgroup and to end the limit, with verification. It compares this with the two
//! system calls that are the minimum, with 0 to 63 other programs on the list.
//!
//! Run `cargo bench -p chadthrottle-benches --bench attach_detach` as root. Fails if a ratio to the system calls is far above that
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
    // This gives the bench its own pins and ledger. It must come before any thread starts.
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
