//! Tests of what the goals' table says.

use bpf::limits::Rate;

use super::super::cell::Sender;
use super::super::results::{Idle, Measured, Run};
use super::super::samples;
use super::*;

/// A row of ours or a peer's, off by so much, which sent so much again.
fn row(cell: Cell, system: Name, error: f64, again: f64, ping: f64) -> Row {
    let measured = Measured {
        resent_percent: Some(again),
        ..samples::measured(1_206_000.0 * (1.0 + error / 100.0), ping)
    };
    samples::row(cell, system, vec![Run::Measured(Box::new(measured))])
}

fn standing(rows: Vec<Row>, what: &str) -> Standing {
    let mut results = Results { rows, nested: Vec::new(), ..samples::results() };
    results.idle[0].echoes.p50_ms = Some(0.0);
    results.idle[0].echoes.p99_ms = Some(0.0);
    let far = Idle { rtt_ms: 20, ..results.idle[0].clone() };
    results.idle.push(far);
    results.summarise();
    standings(&[results]).into_iter().find(|it| it.what.starts_with(what)).unwrap()
}

fn at(rate: u64, cell: Cell) -> Cell {
    Cell { rate: Rate::from_bytes_per_second(rate).unwrap(), ..cell }
}

#[test]
fn the_worst_cell_counts_and_by_how_much() {
    let up = samples::cell(Way::Up, Sender::Cubic);
    let upload = |error, again| {
        let other = Cell { flows: 4, ..up };
        standing(
            vec![
                row(up, Name::Ours, -0.2, 0.0, 1.0),
                row(other, Name::Ours, error, again, 1.0),
                row(other, Name::Htb, -50.0, 9.0, 1.0),
                row(at(125_000, up), Name::Ours, -60.0, 3.0, 1.0),
            ],
            "upload, TCP, 1.25",
        )
    };
    let good = upload(0.9, 0.0);
    assert_eq!(good.verdict(), "reached");
    assert!(good.figures.starts_with("+0.90 % (upload cubic 1.25 MB/s x4, 0 ms)"), "{good:?}");
    assert_eq!(upload(-1.5, 0.0).verdict(), "missed: 0.50 % beyond 1.00 %");
    assert_eq!(upload(0.0, 0.001).verdict(), "missed: 0.00100 % sent again");
}

#[test]
fn what_was_measured_nowhere_is_not_reached() {
    let standings = standings(&[]);
    assert_eq!(standings.len(), GOALS.len());
    assert!(standings.iter().all(|standing| standing.verdict() == "not measured"));
}

#[test]
fn a_small_rate_and_datagrams_have_goals_of_their_own() {
    let up = samples::cell(Way::Up, Sender::Bbr);
    let small = |error| {
        let rows = vec![row(at(125_000, up), Name::Ours, error, 0.0, 1.0)];
        standing(rows, "upload, TCP, 125 kB/s").verdict()
    };
    assert_eq!(
        (small(2.9).as_str(), small(-3.5).as_str()),
        ("reached", "missed: 0.50 % beyond 3.00 %")
    );
    let udp = |error| {
        let cell = samples::cell(Way::Down, Sender::Udp);
        standing(vec![row(cell, Name::Ours, error, 0.0, 1.0)], "upload and download, UDP").verdict()
    };
    assert_eq!((udp(0.5).as_str(), udp(1.5).as_str()), ("reached", "missed: 0.50 % beyond 1.00 %"));
}

#[test]
fn a_far_download_has_to_be_better_than_police_in_every_column() {
    let cell = Cell { rtt_ms: 20, ..samples::cell(Way::Down, Sender::Cubic) };
    let far = |ours: Row, police: Option<Row>| {
        let rows = std::iter::once(ours).chain(police).collect();
        standing(rows, "download, TCP, 20 ms").verdict()
    };
    let ours = || row(cell, Name::Ours, 1.0, 0.5, 1.0);
    assert_eq!(far(ours(), Some(row(cell, Name::Police, 2.0, 5.0, 2.0))), "reached");
    assert_eq!(far(ours(), None), "missed: tc police was not measured");
    assert_eq!(
        far(ours(), Some(row(cell, Name::Police, 0.1, 5.0, 2.0))),
        "missed: error: worse than police in 1 of 1 cells"
    );
}

#[test]
fn pings_are_compared_with_tbfs_in_the_same_cell() {
    let up = samples::cell(Way::Up, Sender::Cubic);
    let latency = |ours, theirs| {
        let rows = vec![row(up, Name::Ours, 0.0, 0.0, ours), row(up, Name::Tbf, 0.0, 0.0, theirs)];
        standing(rows, "latency").verdict()
    };
    assert_eq!(latency(5.0, 50.0), "reached");
    assert_eq!(
        latency(60.0, 50.0),
        "missed: p50 10.0 ms more (upload cubic 1.25 MB/s x1, 0 ms); p99 20.0 ms more (upload cubic 1.25 MB/s x1, 0 ms)"
    );
}

#[test]
fn parent_and_child_each_hold_their_own() {
    let verdict = |child: f64, sibling: f64| {
        let mut results = samples::results();
        results.nested[0].runs = vec![NestedRun::Measured { child, sibling }];
        let all = standings(&[results]);
        all.into_iter().find(|it| it.goal == "each holds its own").unwrap().verdict()
    };
    assert_eq!(verdict(965_333.0, 965_333.0), "reached");
    assert_eq!(verdict(600_000.0, 1_330_000.0), "reached");
    assert!(verdict(1_000_000.0, 930_000.0).contains("the child got"));
    assert!(verdict(965_333.0, 1_100_000.0).contains("both got"));
    assert!(verdict(900_000.0, 900_000.0).contains("of the parent's limit unused"));
}
