//! How long an audit of 10,000 and of 100,000 cgroups takes, beside `bpftool cgroup tree`.
//!
//! `cargo bench -p benches --bench audit_scan`, as root. It prints the table of the README, and fails if
//! the auditor is not fast or small enough beside it.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Duration;

use anyhow::ensure;
use benches::contest::{Row, markdown};
use benches::forest::{Attached, Forest};
use benches::scan::{TWO_TYPES, as_process, be_the_auditor_if_asked, bpftool, in_process};
use bpf::AttachType;
use criterion::{Criterion, SamplingMode};

const ATTACHMENTS: usize = 100;

fn main() -> ExitCode {
    if let Some(status) = be_the_auditor_if_asked() {
        return status;
    }
    if !nix::unistd::geteuid().is_root() {
        eprintln!("audit_scan makes and audits cgroups, which needs root: run it with sudo");
        return ExitCode::from(2);
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("audit_scan: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let mut rows = Vec::new();
    {
        let forest = Forest::plant(10_000, ATTACHMENTS, Attached::Foreign)?;
        criterion(&forest);
        rows.push(Row::measure(&forest, 7)?);
    }
    {
        let forest = Forest::plant(10_000, ATTACHMENTS, Attached::Leaks)?;
        rows.push(Row::measure(&forest, 7)?);
    }
    {
        let forest = Forest::plant(100_000, ATTACHMENTS, Attached::Foreign)?;
        rows.push(Row::measure(&forest, 3)?);
    }
    println!("{}", markdown(&rows));
    let misses: Vec<String> = rows.iter().flat_map(Row::misses).collect();
    ensure!(misses.is_empty(), "not good enough:\n  {}", misses.join("\n  "));
    Ok(())
}

fn criterion(forest: &Forest) {
    let root = forest.root();
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group(format!("audit of {} cgroups", forest.cgroups));
    group
        .sampling_mode(SamplingMode::Flat)
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    let selections: [(&str, &[AttachType]); 2] = [("two types", &TWO_TYPES), ("all types", &[])];
    for (name, types) in selections {
        group.bench_function(format!("library, {name}"), |bencher| {
            bencher.iter(|| in_process(root, types).expect("the audit sees everything"));
        });
        group.bench_function(format!("process, {name}"), |bencher| {
            bencher.iter(|| as_process(root, types).expect("the audit sees everything"));
        });
    }
    group.bench_function("bpftool cgroup tree", |bencher| {
        bencher.iter(|| bpftool(root).expect("bpftool runs"));
    });
    group.finish();
    criterion.final_summary();
}
