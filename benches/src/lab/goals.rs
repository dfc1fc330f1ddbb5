//! Defines the goals of the packet path and judges them.
//!
//! For each goal and machine, the median of the worst cell counts. A cell misses the goal if it was not measured,
//! failed, or was measured too seldom.

use super::cell::{Cell, Way};
use super::compare::{columns, lost, median};
use super::expect::SEGMENT;
use super::needed::{self, Measured};
use super::results::{Nested, NestedRun, Results, Row, names};
use super::stats::Spread;
use super::systems::Name;
use super::table::{number, percent, signed_percent};

/// The state of one goal on one machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// The subject of the goal.
    pub what: &'static str,
    /// The goal.
    pub goal: &'static str,
    /// The machine that measured this, or a note that none did.
    pub machine: String,
    /// The decisive figures.
    pub figures: String,
    /// How far each figure misses the goal.
    pub misses: Vec<String>,
    /// How many of the goal's cells were measured, or `None` if none was.
    pub measured: Option<Measured>,
}

impl Standing {
    /// Returns "reached", or what is missing.
    pub fn verdict(&self) -> String {
        let Some(measured) = self.measured else { return "not measured".into() };
        let missed =
            (!self.misses.is_empty()).then(|| format!("missed: {}", self.misses.join("; ")));
        let words: Vec<_> = missed.into_iter().chain(measured.incomplete()).collect();
        if words.is_empty() { "reached".into() } else { words.join("; ") }
    }
}

/// Looks up a goal's figures in a machine's results. `None` if the results have none.
type Look = fn(&Results) -> Option<Found>;

struct Found {
    figures: String,
    misses: Vec<String>,
}

/// The measurements that a goal needs.
enum About {
    /// Cells that match, the round trip of those that the goal needs, and the systems, ours first.
    Cells(fn(&Cell) -> bool, u32, &'static [Name]),
    /// Limits within limits.
    Nested,
}

struct Goal {
    what: &'static str,
    wanted: &'static str,
    about: About,
    look: Look,
}

const OURS: &[Name] = &[Name::Ours];

const GOALS: [Goal; 7] = [
    Goal {
        what: "upload, TCP, 1.25 to 125 MB/s, 1 to 16 flows",
        wanted: "within 1 %, nothing sent again",
        about: About::Cells(is_upload, 0, OURS),
        look: |results| both(error(results, is_upload, 1.0), sent_again(results, is_upload, 0.0)),
    },
    Goal {
        what: "upload, TCP, 125 kB/s",
        wanted: "within 3 %",
        about: About::Cells(is_slow_upload, 0, OURS),
        look: |results| error(results, is_slow_upload, 3.0),
    },
    Goal {
        what: "upload and download, UDP",
        wanted: "within 1 %",
        about: About::Cells(is_udp, 0, OURS),
        look: |results| error(results, is_udp, 1.0),
    },
    Goal {
        what: "download, TCP, 20 ms RTT",
        wanted: "within 2 %, at most 1 % sent again, better than tc police in every column",
        about: About::Cells(is_far_download, 20, &[Name::Ours, Name::Police]),
        look: |results| {
            let held = both(
                error(results, is_far_download, 2.0),
                sent_again(results, is_far_download, 1.0),
            );
            let peer = compare(results, Name::Ours, Name::Police);
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
        about: About::Cells(is_far_download, 20, &[Name::OursQueue, Name::Htb]),
        look: |results| compare(results, Name::OursQueue, Name::Htb),
    },
    Goal {
        what: "two throttled cgroups, parent and child limits",
        wanted: "each holds its own",
        about: About::Nested,
        look: nested,
    },
    Goal {
        what: "latency added beside a saturated limit",
        wanted: "below that of tbf with its usual 50 ms",
        about: About::Cells(|_| true, 0, &[Name::Ours, Name::Tbf]),
        look: latency,
    },
];

/// Returns the state of every goal on every machine that has tried it.
pub fn standings(all: &[Results]) -> Vec<Standing> {
    let mut standings = Vec::new();
    for Goal { what, wanted: goal, about, look } in &GOALS {
        let before = standings.len();
        for (results, machine) in all.iter().zip(names(all)) {
            let measured = match about {
                About::Cells(is_it, rtt_ms, systems) => {
                    needed::of_rows(results, *is_it, *rtt_ms, systems)
                }
                About::Nested => needed::of_nested(results),
            };
            if measured.is_some() {
                let none =
                    || Found { figures: "-".into(), misses: vec!["no figures to judge by".into()] };
                let Found { figures, misses } = look(results).unwrap_or_else(none);
                standings.push(Standing { what, goal, machine, figures, misses, measured });
            }
        }
        if standings.len() == before {
            let (machine, figures) = ("-".into(), "-".into());
            let misses = Vec::new();
            standings.push(Standing { what, goal, machine, figures, misses, measured: None });
        }
    }
    standings
}

fn is_upload(cell: &Cell) -> bool {
    is_clean_upload(cell) && (1_250_000..=125_000_000).contains(&cell.rate.bytes_per_second())
}

fn is_slow_upload(cell: &Cell) -> bool {
    is_clean_upload(cell) && cell.rate.bytes_per_second() == 125_000
}

fn is_udp(cell: &Cell) -> bool {
    !cell.sender.is_tcp() && cell.loss_percent == 0
}

fn is_clean_upload(cell: &Cell) -> bool {
    cell.way == Way::Up && cell.sender.is_tcp() && cell.loss_percent == 0
}

fn is_far_download(cell: &Cell) -> bool {
    cell.way == Way::Down && cell.sender.is_tcp() && (cell.rtt_ms, cell.loss_percent) == (20, 0)
}

/// Returns the rows of a system in matching cells that have figures and enough load.
fn rows(
    results: &Results,
    system: Name,
    is_it: impl Fn(&Cell) -> bool,
) -> impl Iterator<Item = &Row> {
    results.rows.iter().filter(move |row| {
        row.system == system && is_it(&row.cell) && row.summary.goodput.is_some() && row.is_loaded()
    })
}

/// Returns the rows of two systems that share a cell.
fn pairs(
    results: &Results,
    ours: Name,
    theirs: Name,
    is_it: fn(&Cell) -> bool,
) -> Vec<(&Row, &Row)> {
    let mut pairs = Vec::new();
    for row in rows(results, ours, is_it) {
        pairs.extend(rows(results, theirs, |cell| *cell == row.cell).next().map(|it| (row, it)));
    }
    pairs
}

/// Returns the row with the highest median.
fn worst<'a>(
    rows: impl Iterator<Item = &'a Row>,
    value: impl Fn(&Row) -> Option<Spread>,
) -> Option<(f64, &'a Row)> {
    rows.filter_map(|row| Some((value(row)?.median, row))).max_by(|(a, _), (b, _)| a.total_cmp(b))
}

fn error(results: &Results, is_it: fn(&Cell) -> bool, most: f64) -> Option<Found> {
    let rows = rows(results, Name::Ours, is_it);
    let (off, row) = worst(rows, |row| row.summary.off_percent)?;
    let Spread { min, max, .. } = row.summary.error_percent?;
    let figures = format!(
        "{} off, runs {} to {} ({})",
        percent(off),
        signed_percent(min),
        signed_percent(max),
        row.cell
    );
    let misses = (off > most)
        .then(|| format!("{} beyond {}", percent(off - most), percent(most)))
        .into_iter()
        .collect();
    Some(Found { figures, misses })
}

fn sent_again(results: &Results, is_it: fn(&Cell) -> bool, most: f64) -> Option<Found> {
    let rows = rows(results, Name::Ours, is_it);
    let (again, row) = worst(rows, |row| row.summary.resent_percent)?;
    let figures = format!("{} sent again ({})", fine_percent(again), row.cell);
    let misses =
        (again > most).then(|| format!("{} sent again", fine_percent(again))).into_iter().collect();
    Some(Found { figures, misses })
}

/// Formats a percentage with more digits near zero, because one segment of a million is not zero.
fn fine_percent(value: f64) -> String {
    if value > 0.0 && value < 0.01 { format!("{value:.5} %") } else { percent(value) }
}

/// Joins both findings, or returns `None` if there is no first one.
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

/// Compares two systems for far downloads. `None` if no cell has both.
fn compare(results: &Results, ours: Name, theirs: Name) -> Option<Found> {
    let pairs = pairs(results, ours, theirs, is_far_download);
    if pairs.is_empty() {
        return None;
    }
    let (figures, misses) = columns(&pairs, theirs);
    let most_lost = |rows: &mut dyn Iterator<Item = &Row>| {
        let lost = rows.filter_map(|row| lost(&row.summary.inside));
        Spread::of(lost).map_or_else(|| "-".into(), |lost| percent(lost.max))
    };
    let ours = most_lost(&mut pairs.iter().map(|pair| pair.0));
    let theirs = most_lost(&mut pairs.iter().map(|pair| pair.1));
    Some(Found { figures: format!("{figures}; pings lost at most {ours} beside {theirs}"), misses })
}

/// How much more than its limit any cgroup may get, and how much less all may get together, in percent.
const NESTED_OVER: f64 = 1.0;
const NESTED_UNDER: f64 = 2.0;

fn nested(results: &Results) -> Option<Found> {
    let mut figures = Vec::new();
    let mut misses = Vec::new();
    for nested in results.nested.iter().filter(|nested| nested.not_here.is_none()) {
        let way = format!("{} {} ms", nested.way.name(), nested.rtt_ms);
        let (child, all) = nested_errors(nested);
        // The child may get less, because its sibling takes the rest of the parent's limit.
        for (who, errors, under) in [("child", child, f64::INFINITY), ("both", all, NESTED_UNDER)] {
            let Some(spread) = Spread::of(errors.iter().copied()) else {
                misses.push(format!("{way}: {who}: every run failed"));
                continue;
            };
            let Spread { median, min, max } = spread;
            let [median, min, max] = [median, min, max].map(signed_percent);
            figures.push(format!("{way}: {who} {median}, runs {min} to {max}"));
            let beyond =
                errors.iter().map(|error| (error - NESTED_OVER).max(-under - error).max(0.0));
            let beyond = Spread::of(beyond).map_or(0.0, |beyond| beyond.median);
            if beyond > 0.0 {
                misses.push(format!("{way}: {who} {} beyond what is allowed", percent(beyond)));
            }
        }
    }
    (!(figures.is_empty() && misses.is_empty()))
        .then(|| Found { figures: figures.join("; "), misses })
}

/// Returns the errors of the child and of all together in each run, in percent of their limits.
fn nested_errors(nested: &Nested) -> (Vec<f64>, Vec<f64>) {
    let carried = SEGMENT / 1500.0;
    let error = |got: f64, limit: u64| (got / (limit as f64 * carried) - 1.0) * 100.0;
    let runs = nested.runs.iter().filter_map(|run| match run {
        NestedRun::Measured { child, sibling } => Some((
            error(*child, nested.child.bytes_per_second()),
            error(child + sibling, nested.parent.bytes_per_second()),
        )),
        NestedRun::Failed(_) => None,
    });
    runs.unzip()
}

/// Judges probes in the cgroup. A shaper on the cgroup delays only its traffic, but tbf delays the whole interface.
fn latency(results: &Results) -> Option<Found> {
    let pairs = pairs(results, Name::Ours, Name::Tbf, |_| true);
    let mut figures = Vec::new();
    let mut misses = Vec::new();
    for (ours, theirs) in &pairs {
        let cell = &ours.cell;
        let figure = |row: &Row| {
            let inside = &row.summary.inside;
            let (p50, p99) = (median(inside.of_all_p50_ms)?, median(inside.of_all_p99_ms)?);
            Some((p50, p99, lost(inside)?))
        };
        let (Some(ours), Some(theirs)) = (figure(ours), figure(theirs)) else {
            misses.push(format!("no pings to compare ({cell})"));
            continue;
        };
        let told = |(p50, p99, lost): (f64, f64, f64)| {
            format!("{}/{}, {} lost", time(p50), time(p99), percent(lost))
        };
        figures.push(format!("{} beside {} ({cell})", told(ours), told(theirs)));
        for (which, ours, theirs) in [("p50", ours.0, theirs.0), ("p99", ours.1, theirs.1)] {
            if ours >= theirs {
                misses.push(format!("{which} {}, not below {} ({cell})", time(ours), time(theirs)));
            }
        }
        if ours.2 > theirs.2 {
            misses.push(format!("{} more pings lost ({cell})", percent(ours.2 - theirs.2)));
        }
    }
    (!pairs.is_empty()).then(|| Found { figures: figures.join("; "), misses })
}

/// Formats the time of a probe, which may be lost.
fn time(ms: f64) -> String {
    if ms.is_finite() { format!("{} ms", number(ms)) } else { "never".into() }
}

#[cfg(test)]
#[path = "goals_tests.rs"]
mod tests;
