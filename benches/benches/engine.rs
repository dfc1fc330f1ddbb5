//! Measures a thousand throttles in one process: the time to add, list, change and remove each. It compares this with
//! three links, created and closed, and checks that the time per throttle does not grow with their number.
//!
//! Run `cargo bench -p chadthrottle-benches --bench engine` as root. Fails if a ratio to the links is far above that of the
//! baseline.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use benches::baseline::Ratio;
use benches::many::{Many, Round, STEPS};
use benches::run::{self, Run};
use benches::table::{beside, table};
use benches::turns::{Figure, progress};

const COUNTS: [usize; 2] = [100, 1_000];

fn main() -> ExitCode {
    run::main("engine", "throttles cgroups", bench)
}

fn bench(run: &Run) -> anyhow::Result<()> {
    // This gives the bench its own pins and ledger. It must come before any thread starts.
    testkit::isolation::isolate();
    let (counts, rounds) = if run.is_smoke() { (&[10][..], 1) } else { (&COUNTS[..], 15) };
    let bar = progress(counts.len() * rounds * STEPS);
    let mut ratios = Vec::new();
    let mut memory = Vec::new();
    let mut tables = Vec::new();
    for &count in counts {
        bar.set_message(format!("{count} throttles"));
        let many = Many::new(count)?;
        let rounds: Vec<Round> =
            (0..rounds).map(|_| many.round(|| bar.inc(1))).collect::<anyhow::Result<_>>()?;
        let figure = |name: &str, part: fn(&Round) -> f64| Figure {
            name: format!("{name}, {count}"),
            rounds: rounds.iter().map(part).collect(),
        };
        let links = figure("three links", |round| round.links);
        let figures = [
            figure("add", |round| round.add),
            figure("list", |round| round.list),
            figure("change", |round| round.change),
            figure("remove", |round| round.remove),
        ];
        ratios.extend(figures.iter().map(|figure| Ratio::of(figure, &links)));
        // The allocator returns little memory, so later rounds reuse it.
        let bytes = rounds.iter().map(|round| round.bytes).fold(0.0, f64::max);
        memory.push([count.to_string(), format!("{bytes:.0}")]);
        let all: Vec<Figure> = [links.clone()].into_iter().chain(figures).collect();
        tables.push(beside(&links, &all).to_string());
    }
    bar.finish_and_clear();
    println!("{}\n", tables.join("\n\n"));
    println!("{}\n", table(["throttles", "bytes of this process for each"], 0, memory));
    run.settle(&ratios)
}
