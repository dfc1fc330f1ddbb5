//! The goals of the packet path, and how far they are reached.
//!
//! For each goal and machine the worst cell counts, by its median. What was measured nowhere is not reached.

use super::cell::{Cell, Way};
use super::expect::SEGMENT;
use super::results::{Nested, NestedRun, Results, Row};
use super::stats::Spread;
use super::systems::Name;
use super::table::{number, percent, signed_percent};

/// How a goal stands on a machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// What it is about.
    pub what: &'static str,
    /// What is wanted.
    pub goal: &'static str,
    /// Where this was measured, or that it was not.
    pub machine: String,
    /// The figures that count.
    pub figures: String,
    /// What is missing; nothing where it is reached, `None` where nothing was measured.
    pub misses: Option<Vec<String>>,
}

impl Standing {
    /// Reached, or by how much not.
    pub fn verdict(&self) -> String {
        match &self.misses {
            None => "not measured".into(),
            Some(misses) if misses.is_empty() => "reached".into(),
            Some(misses) => format!("missed: {}", misses.join("; ")),
        }
    }
}

/// What a machine's results say of a goal: `None` if nothing.
type Look = fn(&Results) -> Option<Found>;

struct Found {
    figures: String,
    misses: Vec<String>,
}

struct Goal {
    what: &'static str,
    wanted: &'static str,
    look: Look,
}

const GOALS: [Goal; 7] = [
    Goal {
        what: "upload, TCP, 1.25 to 125 MB/s, 1 to 16 flows",
        wanted: "within 1 %, nothing sent again",
        look: |results| {
            let is_it = |cell: &Cell| {
                is_clean_upload(cell)
                    && (1_250_000..=125_000_000).contains(&cell.rate.bytes_per_second())
            };
            both(error(results, is_it, 1.0), sent_again(results, is_it, 0.0))
        },
    },
    Goal {
        what: "upload, TCP, 125 kB/s",
        wanted: "within 3 %",
        look: |results| {
            let is_it =
                |cell: &Cell| is_clean_upload(cell) && cell.rate.bytes_per_second() == 125_000;
            error(results, is_it, 3.0)
        },
    },
    Goal {
        what: "upload and download, UDP",
        wanted: "within 1 %",
        look: |results| error(results, |cell| !cell.sender.is_tcp() && cell.loss_percent == 0, 1.0),
    },
    Goal {
        what: "download, TCP, 20 ms RTT",
        wanted: "within 2 %, at most 1 % sent again, better than tc police in every column",
        look: |results| {
            let is_it = |cell: &Cell| is_far_download(cell);
            let held = both(error(results, is_it, 2.0), sent_again(results, is_it, 1.0));
            let peer = compare(results, Name::Ours, Name::Police, is_it);
            both(
                held,
                Some(peer.unwrap_or_else(|| Found {
                    figures: "no tc police".into(),
                    misses: vec!["tc police was not measured".into()],
                })),
            )
        },
    },
    Goal {
        what: "download with ifb",
        wanted: "as good as tc htb on ifb, or better",
        look: |results| compare(results, Name::OursQueue, Name::Htb, is_far_download),
    },
    Goal {
        what: "two throttled cgroups, parent and child limits",
        wanted: "each holds its own",
        look: nested,
    },
    Goal {
        what: "latency added beside a saturated limit",
        wanted: "below that of tbf with its usual 50 ms",
        look: latency,
    },
];

/// How every goal stands on every machine that has measured it.
pub fn standings(all: &[Results]) -> Vec<Standing> {
    let mut standings = Vec::new();
    for Goal { what, wanted: goal, look } in &GOALS {
        let before = standings.len();
        for results in all {
            if let Some(found) = look(results) {
                standings.push(Standing {
                    what,
                    goal,
                    machine: results.machine.word(),
                    figures: found.figures,
                    misses: Some(found.misses),
                });
            }
        }
        if standings.len() == before {
            let (machine, figures) = ("-".into(), "-".into());
            standings.push(Standing { what, goal, machine, figures, misses: None });
        }
    }
    standings
}

fn is_clean_upload(cell: &Cell) -> bool {
    cell.way == Way::Up && cell.sender.is_tcp() && cell.loss_percent == 0
}

fn is_far_download(cell: &Cell) -> bool {
    cell.way == Way::Down && cell.sender.is_tcp() && (cell.rtt_ms, cell.loss_percent) == (20, 0)
}

/// Rows of a system in such cells, whose runs have figures that say something of the limit.
fn rows(
    results: &Results,
    system: Name,
    is_it: impl Fn(&Cell) -> bool,
) -> impl Iterator<Item = &Row> {
    results.rows.iter().filter(move |row| {
        row.system == system && is_it(&row.cell) && row.summary.goodput.is_some() && row.is_loaded()
    })
}

/// The row whose median is highest.
fn worst<'a>(
    rows: impl Iterator<Item = &'a Row>,
    value: impl Fn(&Row) -> Option<f64>,
) -> Option<(f64, &'a Row)> {
    rows.filter_map(|row| Some((value(row)?, row))).max_by(|(a, _), (b, _)| a.total_cmp(b))
}

fn median(spread: Option<Spread>) -> Option<f64> {
    Some(spread?.median)
}

fn error(results: &Results, is_it: impl Fn(&Cell) -> bool, most: f64) -> Option<Found> {
    let rows = rows(results, Name::Ours, is_it);
    let (off, row) = worst(rows, |row| Some(median(row.summary.error_percent)?.abs()))?;
    let error = median(row.summary.error_percent)?;
    let figures = format!("{} ({})", signed_percent(error), row.cell);
    let misses = (off > most)
        .then(|| format!("{} beyond {}", percent(off - most), percent(most)))
        .into_iter()
        .collect();
    Some(Found { figures, misses })
}

fn sent_again(results: &Results, is_it: impl Fn(&Cell) -> bool, most: f64) -> Option<Found> {
    let rows = rows(results, Name::Ours, is_it);
    let (again, row) = worst(rows, |row| median(row.summary.resent_percent))?;
    let figures = format!("{} sent again ({})", fine_percent(again), row.cell);
    let misses =
        (again > most).then(|| format!("{} sent again", fine_percent(again))).into_iter().collect();
    Some(Found { figures, misses })
}

/// A single segment of a million is not none.
fn fine_percent(value: f64) -> String {
    if value > 0.0 && value < 0.01 { format!("{value:.5} %") } else { percent(value) }
}

/// Both, where the first is there.
fn both(first: Option<Found>, second: Option<Found>) -> Option<Found> {
    match (first, second) {
        (Some(first), Some(second)) => Some(joined(&first, &second)),
        (found, _) => found,
    }
}

fn joined(first: &Found, second: &Found) -> Found {
    Found {
        figures: format!("{}; {}", first.figures, second.figures),
        misses: [&first.misses[..], &second.misses[..]].concat(),
    }
}

/// A figure of a row: less is better.
type Figure = fn(&Row) -> Option<f64>;

/// What is compared between two systems.
const COMPARED: [(&str, Figure); 7] = [
    ("error", |row| Some(median(row.summary.error_percent)?.abs())),
    ("off in 100 ms", |row| median(row.summary.window_mean_percent)),
    ("the same, p95", |row| median(row.summary.window_p95_percent)),
    ("sent again", |row| median(row.summary.resent_percent)),
    ("ping p50", |row| median(row.summary.inside.p50_ms)),
    ("ping p99", |row| median(row.summary.inside.p99_ms)),
    ("CPU", |row| median(row.summary.cpu_seconds_per_gb)),
];

/// In how many cells one system is worse than the other, by column. `None` if no cell has both.
fn compare(
    results: &Results,
    ours: Name,
    theirs: Name,
    is_it: impl Fn(&Cell) -> bool + Copy,
) -> Option<Found> {
    let pairs: Vec<_> = rows(results, ours, is_it)
        .filter_map(|row| {
            let same = |cell: &Cell| *cell == row.cell;
            Some((row, rows(results, theirs, same).next()?))
        })
        .collect();
    if pairs.is_empty() {
        return None;
    }
    let misses = COMPARED.iter().filter_map(|(column, value)| {
        let is_worse = |(ours, theirs): &&(&Row, &Row)| {
            value(ours).zip(value(theirs)).is_some_and(|(ours, theirs)| ours > theirs)
        };
        let worse = pairs.iter().filter(is_worse).count();
        (worse > 0).then(|| {
            format!("{column}: worse than {} in {worse} of {} cells", theirs.name(), pairs.len())
        })
    });
    let misses: Vec<_> = misses.collect();
    let figures = format!(
        "beside {} in {} cells: better in {} of {} columns",
        theirs.name(),
        pairs.len(),
        COMPARED.len() - misses.len(),
        COMPARED.len()
    );
    Some(Found { figures, misses })
}

/// How much more than its limit anybody may let through, in percent, and how much less all may together.
const NESTED_OVER: f64 = 1.0;
const NESTED_UNDER: f64 = 2.0;

fn nested(results: &Results) -> Option<Found> {
    let mut figures = Vec::new();
    let mut misses = Vec::new();
    for nested in &results.nested {
        let Some((child, all)) = nested_errors(nested) else { continue };
        let way = format!("{} {} ms", nested.way.name(), nested.rtt_ms);
        figures.push(format!(
            "{way}: child {}, both {}",
            signed_percent(child),
            signed_percent(all)
        ));
        for (who, error) in [("the child", child), ("both", all)] {
            if error > NESTED_OVER {
                misses.push(format!("{way}: {who} got {} too much", percent(error)));
            }
        }
        if all < -NESTED_UNDER {
            misses.push(format!("{way}: {} of the parent's limit unused", percent(-all)));
        }
    }
    (!figures.is_empty()).then(|| Found { figures: figures.join("; "), misses })
}

/// How far the child and all together are off their limits, in percent.
fn nested_errors(nested: &Nested) -> Option<(f64, f64)> {
    let runs: Vec<_> = nested
        .runs
        .iter()
        .filter_map(|run| match run {
            NestedRun::Measured { child, sibling } => Some((*child, *sibling)),
            NestedRun::Failed(_) => None,
        })
        .collect();
    let carried = SEGMENT / 1500.0;
    let error = |got: f64, limit: u64| (got / (limit as f64 * carried) - 1.0) * 100.0;
    let child =
        Spread::of(runs.iter().map(|(child, _)| error(*child, nested.child.bytes_per_second())));
    let all = Spread::of(
        runs.iter()
            .map(|(child, sibling)| error(child + sibling, nested.parent.bytes_per_second())),
    );
    Some((child?.median, all?.median))
}

/// Probes in the cgroup: a shaper delays only what goes through it, and tbf has everything go through it.
fn latency(results: &Results) -> Option<Found> {
    let pairs = rows(results, Name::Ours, |_| true).filter_map(|row| {
        let same = |cell: &Cell| *cell == row.cell;
        let peer = rows(results, Name::Tbf, same).next()?;
        let added = |row: &Row| {
            Some((median(row.summary.inside.p50_ms)?, median(row.summary.inside.p99_ms)?))
        };
        Some((row, added(row), added(peer)?))
    });
    let mut figures = Vec::new();
    let mut misses = Vec::new();
    for (row, ours, theirs) in pairs {
        let cell = &row.cell;
        let Some(ours) = ours else {
            misses.push(format!("no ping came back ({cell})"));
            continue;
        };
        let told = |(p50, p99): (f64, f64)| format!("{}/{} ms", number(p50), number(p99));
        figures.push(format!("{} beside {} ({cell})", told(ours), told(theirs)));
        for (which, ours, theirs) in [("p50", ours.0, theirs.0), ("p99", ours.1, theirs.1)] {
            if ours >= theirs {
                misses.push(format!("{which} {} ms more ({cell})", number(ours - theirs)));
            }
        }
    }
    let measured = !(figures.is_empty() && misses.is_empty());
    measured.then(|| Found { figures: figures.join("; "), misses })
}

#[cfg(test)]
#[path = "goals_tests.rs"]
mod tests;
