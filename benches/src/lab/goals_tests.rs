//! Tests the table of goals.

use bpf::limits::Rate;

use super::super::cell::Sender;
use super::super::echo::Echoes;
use super::super::plan::{Choice, entries};
use super::super::presets::Preset;
use super::super::results::{Idle, Measured as Figures, Run};
use super::super::samples;
use super::*;

/// Creates a row of three runs with these errors, retransmissions and ping times. All pings come back.
fn row(cell: Cell, system: Name, errors: [f64; 3], again: f64, ping: f64) -> Row {
    let runs = errors.map(|error| {
        let figures = samples::measured(1_206_000.0 * (1.0 + error / 100.0), ping);
        let inside = Echoes { lost: 0, of_all: None, ..figures.inside };
        // This is enough datagrams to load the limit.
        let offered = 1_800_000.0;
        let resent_percent = Some(again);
        Run::Measured(Box::new(Figures { offered, resent_percent, inside, ..figures }))
    });
    samples::row(cell, system, runs.to_vec())
}

/// Lets each run of the row lose this many of its hundred pings.
fn losing(mut row: Row, lost: u32) -> Row {
    for run in &mut row.runs {
        let Run::Measured(figures) = run else { continue };
        figures.inside.lost = lost;
    }
    row
}

/// Adds every other cell that the goals need, with perfect results.
fn filled(mut rows: Vec<Row>) -> Vec<Row> {
    for entry in entries(Some(Preset::Goals), &Choice::default()).unwrap() {
        for system in entry.systems {
            if !rows.iter().any(|row| (row.cell, row.system) == (entry.cell, system)) {
                let is_ours = matches!(system, Name::Ours | Name::OursQueue);
                let (off, ping) = if is_ours { (0.0, 1.0) } else { (5.0, 50.0) };
                rows.push(row(entry.cell, system, [off; 3], off, ping));
            }
        }
    }
    rows
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

fn verdict(rows: Vec<Row>, what: &str) -> String {
    standing(filled(rows), what).verdict()
}

fn at(rate: u64, cell: Cell) -> Cell {
    Cell { rate: Rate::from_bytes_per_second(rate).unwrap(), ..cell }
}

const UPLOAD: &str = "upload, TCP, 1.25";
const FAR: &str = "download, TCP, 20 ms";

fn up() -> Cell {
    samples::cell(Way::Up, Sender::Cubic)
}

fn far() -> Cell {
    Cell { rtt_ms: 20, ..samples::cell(Way::Down, Sender::Cubic) }
}

#[test]
fn the_worst_cell_counts_and_by_how_much() {
    let upload = |error, again| {
        let rows = vec![
            row(up(), Name::Ours, [error; 3], again, 1.0),
            row(up(), Name::Htb, [-50.0; 3], 9.0, 1.0),
            row(at(125_000, up()), Name::Ours, [-60.0; 3], 3.0, 1.0),
        ];
        standing(filled(rows), UPLOAD)
    };
    let good = upload(0.9, 0.0);
    assert_eq!(good.verdict(), "reached");
    assert!(
        good.figures.starts_with("0.90 % off, runs +0.90 % to +0.90 % (upload cubic"),
        "{good:?}"
    );
    assert_eq!(upload(-1.5, 0.0).verdict(), "missed: 0.50 % beyond 1.00 %");
    assert_eq!(upload(0.0, 0.001).verdict(), "missed: 0.00100 % sent again");
}

#[test]
fn runs_on_both_sides_do_not_cancel_out() {
    let rows = vec![row(up(), Name::Ours, [-3.0, 0.0, 4.0], 0.0, 1.0)];
    let standing = standing(filled(rows), UPLOAD);
    assert_eq!(standing.verdict(), "missed: 2.00 % beyond 1.00 %");
    assert!(standing.figures.contains("3.00 % off, runs -3.00 % to +4.00 %"), "{standing:?}");
}

#[test]
fn what_was_measured_nowhere_is_not_reached() {
    let standings = standings(&[]);
    assert_eq!(standings.len(), GOALS.len());
    assert!(standings.iter().all(|standing| standing.verdict() == "not measured"));
}

#[test]
fn what_failed_is_missing_or_was_measured_too_seldom_is_incomplete() {
    let one = |change: fn(&mut Row)| {
        let mut changed = row(up(), Name::Ours, [0.0; 3], 0.0, 1.0);
        change(&mut changed);
        verdict(vec![changed], UPLOAD)
    };
    assert_eq!(one(|_| ()), "reached");
    let all = needed::needed(is_upload, 0, OURS).len();
    // One cell at 20 ms is not needed for the goal, but belongs to its subject.
    let incomplete = format!("incomplete: {all} of {} cells", all + 1);
    assert_eq!(one(|row| row.runs[0] = Run::Failed("it hung".into())), incomplete);
    assert_eq!(one(|row| row.runs.push(Run::Failed("it hung".into()))), incomplete);
    assert_eq!(one(|row| drop(row.runs.pop())), incomplete);
    let refused = |row: &mut Row| {
        row.runs.clear();
        row.not_here = Some("no".into());
    };
    assert_eq!(one(refused), incomplete);
    let alone = standing(vec![row(up(), Name::Ours, [0.0; 3], 0.0, 1.0)], UPLOAD);
    assert_eq!(alone.verdict(), format!("incomplete: 1 of {all} cells"));
    let failed = samples::row(up(), Name::Ours, vec![Run::Failed("it hung".into()); 3]);
    let failed = standing(vec![failed], UPLOAD).verdict();
    assert_eq!(failed, format!("missed: no figures to judge by; incomplete: 0 of {all} cells"));
}

#[test]
fn a_small_rate_and_datagrams_have_goals_of_their_own() {
    let small = |error| {
        let rows = vec![row(at(125_000, up()), Name::Ours, [error; 3], 0.0, 1.0)];
        verdict(rows, "upload, TCP, 125 kB/s")
    };
    assert_eq!(small(2.9), "reached");
    assert_eq!(small(-3.5), "missed: 0.50 % beyond 3.00 %");
    let udp = |error| {
        let cell = samples::cell(Way::Down, Sender::Udp);
        verdict(vec![row(cell, Name::Ours, [error; 3], 0.0, 1.0)], "upload and download, UDP")
    };
    assert_eq!(udp(0.5), "reached");
    assert_eq!(udp(1.5), "missed: 0.50 % beyond 1.00 %");
}

#[test]
fn a_far_download_has_to_be_better_than_police_in_every_column() {
    let ours = || row(far(), Name::Ours, [1.0; 3], 0.5, 1.0);
    let police = |error| row(far(), Name::Police, [error; 3], 5.0, 2.0);
    let standing_of = |police: Row| standing(filled(vec![ours(), police]), FAR);
    let good = standing_of(police(2.0));
    assert_eq!(good.verdict(), "reached");
    // Equal columns are not better.
    assert!(good.figures.contains("better in 4 and equal in 7 of 11 columns"), "{good:?}");
    assert!(
        standing(vec![ours()], FAR)
            .verdict()
            .starts_with("missed: tc police was not measured; incomplete: 0 of")
    );
    let cells = needed::needed(is_far_download, 20, &[Name::Ours, Name::Police]).len();
    assert_eq!(
        standing_of(police(0.1)).verdict(),
        format!("missed: error: worse than police in 1 of {cells} cells")
    );
}

#[test]
fn a_ping_that_is_lost_is_no_fast_one() {
    let ours = || row(far(), Name::Ours, [0.0; 3], 0.0, 1.0);
    let lost = standing(filled(vec![losing(ours(), 60)]), FAR);
    for words in ["ping p50: worse than police in 1", "ping p99: worse", "pings lost: worse"] {
        assert!(lost.verdict().contains(words), "{lost:?}");
    }
    assert!(lost.figures.contains("pings lost at most 60.0 % beside 0.00 %"), "{lost:?}");
    let both = vec![losing(ours(), 60), losing(row(far(), Name::Police, [5.0; 3], 5.0, 9.0), 60)];
    assert_eq!(verdict(both, FAR), "reached");
}

#[test]
fn a_figure_that_is_not_there_is_not_better() {
    let mut ours = row(far(), Name::Ours, [0.0; 3], 0.0, 1.0);
    for run in &mut ours.runs {
        let Run::Measured(figures) = run else { continue };
        figures.cpu_seconds_per_gb = None;
    }
    let verdict = verdict(vec![ours], FAR);
    assert!(verdict.starts_with("missed: CPU: nothing to compare in 1 of"), "{verdict}");
}

#[test]
fn pings_are_compared_with_tbfs_in_the_same_cell() {
    let latency = |ours, theirs, lost| {
        let ours = losing(row(up(), Name::Ours, [0.0; 3], 0.0, ours), lost);
        standing(filled(vec![ours, row(up(), Name::Tbf, [0.0; 3], 0.0, theirs)]), "latency")
    };
    assert_eq!(latency(5.0, 50.0, 0).verdict(), "reached");
    let cell = "(upload cubic 1.25 MB/s x1, 0 ms)";
    assert_eq!(
        latency(60.0, 50.0, 0).verdict(),
        format!(
            "missed: p50 60.0 ms, not below 50.0 ms {cell}; p99 120 ms, not below 100 ms {cell}"
        )
    );
    let lossy = latency(5.0, 50.0, 2);
    assert_eq!(
        lossy.verdict(),
        format!("missed: p99 never, not below 100 ms {cell}; 2.00 % more pings lost {cell}")
    );
    assert!(
        lossy.figures.contains("5.00 ms/never, 2.00 % lost beside 50.0 ms/100 ms, 0.00 %"),
        "{lossy:?}"
    );
}

fn nested_verdict(runs: &[(f64, f64)]) -> String {
    let mut results = samples::results();
    results.nested[0].runs = runs
        .iter()
        .map(|&(child, sibling)| NestedRun::Measured { child, sibling })
        .chain((runs.is_empty()).then(|| NestedRun::Failed("it hung".into())))
        .collect();
    let down = Nested { way: Way::Down, ..results.nested[0].clone() };
    results.nested.push(down);
    let all = standings(&[results]);
    all.into_iter().find(|it| it.goal == "each holds its own").unwrap().verdict()
}

#[test]
fn parent_and_child_each_hold_their_own() {
    let verdict = |child: f64, sibling: f64| nested_verdict(&[(child, sibling); 3]);
    assert_eq!(verdict(965_333.0, 965_333.0), "reached");
    assert_eq!(verdict(600_000.0, 1_330_000.0), "reached");
    assert!(verdict(1_000_000.0, 930_000.0).contains("upload 0 ms: child 2.59 % beyond"));
    assert!(verdict(965_333.0, 1_100_000.0).contains("both 5.98 % beyond"));
    assert!(verdict(900_000.0, 900_000.0).contains("both 4.77 % beyond"));
    let sides =
        nested_verdict(&[(900_000.0, 900_000.0), (965_333.0, 965_333.0), (965_333.0, 1_100_000.0)]);
    assert!(sides.contains("both 4.77 % beyond"), "{sides}");
    let once = nested_verdict(&[(965_333.0, 965_333.0)]);
    assert_eq!(once, "incomplete: 0 of 2 cells");
}

#[test]
fn limits_that_failed_in_every_run_are_missed() {
    let failed = nested_verdict(&[]);
    assert!(failed.starts_with("missed: upload 0 ms: child: every run failed"), "{failed}");
    assert!(failed.ends_with("incomplete: 0 of 2 cells"), "{failed}");
}
