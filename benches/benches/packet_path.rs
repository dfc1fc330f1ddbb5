//! Measures what a packet costs with `BPF_PROG_TEST_RUN`, beside other ways to limit. It also measures two processors
//! on one bucket, and the programs in real TCP traffic.
//!
//! Run `cargo bench -p chadthrottle-benches --bench packet_path` as root. Fails if a ratio to a peer is far above that of the
//! baseline.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::process::ExitCode;

use anyhow::Context;
use benches::baseline::Ratio;
use benches::cpus::{together, two};
use benches::median::median;
use benches::object::Programs;
use benches::path::{self, contestants};
use benches::run::{self, Run};
use benches::table::{beside, table, time};
use benches::tcp;
use benches::turns::{Contestant, Figure, by_criterion, in_turns};
use bpf::limits::Traffic;

/// The goals, in nanoseconds: above a look at the clock, and above the same program without a class of traffic.
const MOST_ABOVE_CLOCK: f64 = 20.0;
const MOST_FOR_A_CLASS: f64 = 10.0;

fn main() -> ExitCode {
    run::main("packet_path", "loads and runs packet programs", bench)
}

fn bench(run: &Run) -> anyhow::Result<()> {
    // This gives the bench its own pins, ledger and loopback. It must come before any thread starts.
    testkit::isolation::isolate();
    let programs = Programs::load()?;
    let mut ratios = Vec::new();

    let mut cases = contestants(&programs)?;
    let figures = in_turns(run, &mut cases, 21, 400_000)?;
    ratios.extend(one_processor(&figures)?);
    match two() {
        Ok(cpus) => ratios.extend(two_processors(run, &programs, cpus)?),
        Err(error) => println!("Two processors on one bucket were not measured: {error:#}.\n"),
    }
    ratios.extend(in_traffic(run)?);
    by_criterion("packet path", &mut cases);
    run.settle(&ratios)
}

fn named<'a>(figures: &'a [Figure], name: &str) -> anyhow::Result<&'a Figure> {
    figures.iter().find(|it| it.name == name).with_context(|| format!("{name} was not measured"))
}

fn one_processor(figures: &[Figure]) -> anyhow::Result<Vec<Ratio>> {
    let get = |name| named(figures, name);
    let (clock, passing) = (get(path::CLOCK)?, get(path::PASSING)?);
    println!("{}\n", beside(clock, figures));
    let goal = |what: &str, own: &Figure, floor: &Figure, most: f64| {
        let nanos = own.above(floor);
        let verdict = if nanos <= most { "reached" } else { "missed" };
        let undisturbed = own.lowest() - floor.lowest();
        [what.to_owned(), time(nanos), time(undisturbed), time(most), verdict.to_owned()]
    };
    let download = get(path::DOWNLOAD)?;
    let rows = [
        goal("upload, counters included, above the clock", passing, clock, MOST_ABOVE_CLOCK),
        goal("download, counters included, above the clock", download, clock, MOST_ABOVE_CLOCK),
        goal("a class of traffic, IPv4", get(path::CLASSED)?, passing, MOST_FOR_A_CLASS),
        goal("a class of traffic, IPv6", get(path::CLASSED_V6)?, passing, MOST_FOR_A_CLASS),
    ];
    println!("{}\n", table(["goal", "median", "of the lowest", "at most", ""], 1, rows));
    let peers = [path::EMPTY, path::CLOCK, path::HISTORICAL, path::LOCKED];
    let ours = figures.iter().filter(|figure| !peers.contains(&&*figure.name));
    Ok(ours.map(|figure| Ratio::of(figure, clock)).collect())
}

fn two_processors(run: &Run, programs: &Programs, cpus: [usize; 2]) -> anyhow::Result<Vec<Ratio>> {
    let packet = path::packet("192.0.2.1");
    // For each round with two processors, the part of the time in which both ran.
    let shared = RefCell::new(Vec::new());
    let mut contestants = Vec::new();
    let systems = [
        ("upload", "bench_upload"),
        ("download", "bench_download"),
        ("spin-locked", "bench_locked"),
    ];
    for (name, program) in systems {
        for (number, on) in [("one processor", &cpus[..1]), ("two processors", &cpus[..])] {
            let (packet, shared) = (&packet, &shared);
            contestants.push(Contestant::new(format!("{name}, {number}"), move |times| {
                programs.limit(Some(&path::wide(Traffic::All)))?;
                let (time, part) = together(programs, on, program, packet, times)?;
                if on.len() > 1 {
                    shared.borrow_mut().push(part);
                }
                Ok(time)
            }));
        }
    }
    let figures = in_turns(run, &mut contestants, 21, 400_000)?;
    let get = |name: &str| named(&figures, name);
    let locked = get("spin-locked, two processors")?;
    println!("{}\n", beside(locked, &figures));
    let part = median(shared.borrow().iter().copied()).unwrap_or(f64::NAN);
    println!(
        "Where there were two processors, they ran at once for {:.0} % of the time.\n",
        part * 100.0
    );
    ["upload, two processors", "download, two processors"]
        .iter()
        .map(|name| Ok(Ratio::of(get(name)?, locked)))
        .collect()
}

fn in_traffic(run: &Run) -> anyhow::Result<Vec<Ratio>> {
    let (rounds, bytes) = if run.is_smoke() { (1, 1 << 20) } else { (7, 32 << 20) };
    let rows = tcp::measure(rounds, bytes)?;
    let header = [
        "in TCP traffic",
        "runs per 1,448 bytes",
        "one run",
        "one of nothing",
        "above",
        "for 1,448 bytes",
    ];
    let table = table(
        header,
        1,
        rows.iter().map(|row| {
            let above = row.ours.above(&row.nothing);
            [
                row.ours.name.clone(),
                format!("{:.2}", row.runs),
                time(row.ours.nanos()),
                time(row.nothing.nanos()),
                time(above),
                time(above * row.runs),
            ]
        }),
    );
    println!("{table}\n");
    Ok(rows.iter().map(|row| Ratio::of(&row.ours, &row.nothing)).collect())
}
