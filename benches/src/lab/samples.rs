//! Provides made-up results for tests.

use bpf::limits::Rate;

use super::cell::{Cell, Sender, Way};
use super::echo::{Echoes, OfAll};
use super::expect::Counted;
use super::machine::Machine;
use super::results::{Idle, Measured, Nested, NestedRun, Results, Row, Run, SCHEMA_VERSION};
use super::stats::Deviation;
use super::summary::Summary;
use super::systems::Name;

pub(super) fn rate(rate: u64) -> Rate {
    Rate::from_bytes_per_second(rate).unwrap()
}

pub(super) fn cell(way: Way, sender: Sender) -> Cell {
    Cell { way, sender, rtt_ms: 0, loss_percent: 0, rate: rate(1_250_000), flows: 1 }
}

fn echoes(p50: f64, lost: u32) -> Echoes {
    let of_all = Some(OfAll { p50_ms: Some(p50), p99_ms: (lost == 0).then_some(p50 * 2.0) });
    Echoes { sent: 100, lost, p50_ms: Some(p50), p99_ms: Some(p50 * 2.0), of_all }
}

pub(super) fn measured(goodput: f64, p50: f64) -> Measured {
    Measured {
        goodput,
        offered: goodput * 1.5,
        windows: Some(Deviation { mean: 1.0, p95: 2.0 }),
        retransmitted_percent: Some(0.0),
        resent_percent: Some(0.0),
        lost_percent: None,
        outside: echoes(1.5, 0),
        inside: echoes(p50, 10),
        busy_processors: 0.1,
        cpu_seconds_per_gb: Some(2.0),
    }
}

pub(super) fn row(cell: Cell, system: Name, runs: Vec<Run>) -> Row {
    Row {
        cell,
        system,
        counted: Counted::Ip,
        expected: Some(1_206_000.0),
        expected_most: Some(1_206_000.0),
        done: vec!["a command".into()],
        not_here: None,
        runs,
        summary: Summary::default(),
    }
}

pub(super) fn machine() -> Machine {
    Machine {
        kind: "host".into(),
        kernel: "6.18.0".into(),
        cpu: "A processor".into(),
        processors: 2,
        taken_at: "2026-01-02T03:04:05Z".into(),
        chadthrottle: "0.1.0".into(),
        iperf3: "iperf 3.12".into(),
        tc: "iproute2-6.1.0".into(),
        nft: "not installed".into(),
    }
}

pub(super) fn results() -> Results {
    let run = |goodput, p50| Run::Measured(Box::new(measured(goodput, p50)));
    let up = cell(Way::Up, Sender::Cubic);
    let three = vec![run(1_200_000.0, 4.0), run(1_300_000.0, 8.0), run(1_100_000.0, 3.0)];
    let lacks = Row {
        not_here: Some("Failed to load TC action module".into()),
        done: Vec::new(),
        ..row(up, Name::Police, Vec::new())
    };
    let mut results = Results {
        schema_version: SCHEMA_VERSION,
        machine: machine(),
        seconds: 4,
        omitted_seconds: 1,
        runs: 3,
        idle: vec![Idle {
            rtt_ms: 0,
            loss_percent: 0,
            echoes: Echoes {
                sent: 20,
                lost: 0,
                p50_ms: Some(1.0),
                p99_ms: Some(1.0),
                of_all: None,
            },
            busy_processors: 0.05,
        }],
        rows: vec![
            row(up, Name::Ours, three),
            row(up, Name::Tbf, vec![Run::Failed("it hung".into())]),
            lacks,
        ],
        nested: vec![Nested {
            way: Way::Up,
            rtt_ms: 0,
            parent: rate(2_000_000),
            child: rate(1_000_000),
            not_here: None,
            runs: vec![NestedRun::Measured { child: 965_000.0, sibling: 965_000.0 }],
        }],
    };
    results.summarise();
    results
}
