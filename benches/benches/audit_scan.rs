//! Measures an audit of 100 to 100,000 cgroups, beside `bpftool cgroup tree`.
//!
//! Run `cargo bench -p chadthrottle-benches --bench audit_scan` as root. It prints the table of `docs/benchmarks/audit.md`. It fails
//! if the auditor is too slow or too large beside bpftool, or far slower than the baseline says.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Duration;

use anyhow::ensure;
use auditor::collect::Method;
use benches::contest::{Row, markdown};
use benches::forest::{Attached, Forest};
use benches::run::{self, Run};
use benches::scan::{TWO_TYPES, as_process, be_the_auditor_if_asked, bpftool, in_process};
use benches::turns::progress;
use criterion::{Criterion, SamplingMode};
use kernel::AttachType;

const ATTACHMENTS: usize = 100;

/// Number of cgroups, number of attachments, their kind, and number of rounds. The smallest tree comes first, because a
/// smoke run takes at most two.
const TREES: [(usize, usize, Attached, usize); 6] = [
    (100, 10, Attached::Foreign, 15),
    (1_000, ATTACHMENTS, Attached::Foreign, 15),
    (10_000, ATTACHMENTS, Attached::Foreign, 7),
    (10_000, ATTACHMENTS, Attached::Leaks, 7),
    (100_000, ATTACHMENTS, Attached::Foreign, 3),
    (100_000, 10_000, Attached::Foreign, 1),
];

fn main() -> ExitCode {
    if let Some(status) = be_the_auditor_if_asked() {
        return status;
    }
    run::main("audit_scan", "makes and audits cgroups", bench)
}

fn bench(run: &Run) -> anyhow::Result<()> {
    let trees = if run.is_smoke() { &TREES[..2] } else { &TREES[..] };
    let bar = progress(trees.len());
    let mut rows = Vec::new();
    for &(cgroups, attachments, attached, rounds) in trees {
        bar.set_message(format!("{cgroups} cgroups, {}", attached.name()));
        let forest = Forest::plant(cgroups, attachments, attached)?;
        rows.push(Row::measure(&forest, if run.is_smoke() { 1 } else { rounds })?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    println!("{}", markdown(&rows));
    {
        let cgroups = if run.is_smoke() { 100 } else { 10_000 };
        criterion(&Forest::plant(cgroups, ATTACHMENTS, Attached::Foreign)?);
    }
    if run.is_smoke() {
        return Ok(());
    }
    let misses: Vec<String> = rows.iter().flat_map(Row::misses).collect();
    ensure!(misses.is_empty(), "not good enough:\n  {}", misses.join("\n  "));
    run.settle(&rows.iter().flat_map(Row::baseline).collect::<Vec<_>>())
}

fn criterion(forest: &Forest) {
    let root = forest.root();
    let mut criterion =
        Criterion::default().without_plots().nresamples(5_000).configure_from_args();
    let mut group = criterion.benchmark_group(format!("audit of {} cgroups", forest.cgroups));
    group
        .sampling_mode(SamplingMode::Flat)
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    let selections: [(&str, &[AttachType], Method); 3] = [
        ("query, two types", &TWO_TYPES, Method::Query),
        ("query, all types", &[], Method::Query),
        ("iter, all types", &[], Method::Iter),
    ];
    for (name, types, method) in selections {
        group.bench_function(format!("library, {name}"), |bencher| {
            bencher.iter(|| in_process(root, types, method).expect("the audit sees everything"));
        });
        group.bench_function(format!("process, {name}"), |bencher| {
            bencher.iter(|| as_process(root, types, method).expect("the audit sees everything"));
        });
    }
    group.bench_function("bpftool cgroup tree", |bencher| {
        bencher.iter(|| bpftool(root).expect("bpftool runs"));
    });
    group.finish();
    criterion.final_summary();
}
