//! Determines which cells a goal needs, and how many of them were measured.

use super::cell::{Cell, Way};
use super::plan::{Choice, entries};
use super::presets::Preset;
use super::results::{Nested, NestedRun, Results, Row};
use super::systems::Name;

/// The runs that a cell needs to count as measured.
const RUNS: usize = 3;

/// How many of a goal's cells were measured with all of its systems, without a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measured {
    /// The number of measured cells.
    pub cells: usize,
    /// The number of cells in all.
    pub of: usize,
}

impl Measured {
    /// Returns a note that cells are missing, or `None` if all were measured.
    pub fn incomplete(self) -> Option<String> {
        let Self { cells, of } = self;
        (cells < of).then(|| format!("incomplete: {cells} of {of} cells"))
    }
}

/// Counts the cells of a goal and the measured ones among them. The cells are the goal's cells of the preset, at this
/// round trip and with all of these systems. Other matching cells that were tried count too. `None` if none was tried.
pub fn of_rows(
    results: &Results,
    is_it: fn(&Cell) -> bool,
    rtt_ms: u32,
    systems: &[Name],
) -> Option<Measured> {
    let needed = needed(is_it, rtt_ms, systems);
    let mut cells = tried(results, is_it, systems, &needed);
    if cells.is_empty() {
        return None;
    }
    cells.extend(needed);
    cells.sort_unstable();
    cells.dedup();
    let is_whole = |cell: &&Cell| {
        systems.iter().all(|system| {
            let row = results.rows.iter().find(|row| (&row.cell, &row.system) == (*cell, system));
            row.is_some_and(is_measured)
        })
    };
    Some(Measured { cells: cells.iter().filter(is_whole).count(), of: cells.len() })
}

/// Returns the cells of the preset that the goal needs.
pub fn needed(is_it: fn(&Cell) -> bool, rtt_ms: u32, systems: &[Name]) -> Vec<Cell> {
    let entries = entries(Some(Preset::Goals), &Choice::default()).unwrap_or_default();
    let entries = entries.into_iter().filter(|entry| {
        is_it(&entry.cell)
            && entry.cell.rtt_ms == rtt_ms
            && systems.iter().all(|system| entry.systems.contains(system))
    });
    entries.map(|entry| entry.cell).collect()
}

/// Returns the matching cells in which the first system was tried. A cell that the goal does not need counts only if
/// the other systems have a row too.
fn tried(
    results: &Results,
    is_it: fn(&Cell) -> bool,
    systems: &[Name],
    needed: &[Cell],
) -> Vec<Cell> {
    let has = |cell: &Cell, system: &Name| {
        results.rows.iter().any(|row| (&row.cell, &row.system) == (cell, system))
    };
    let rows = results.rows.iter().filter(|row| {
        systems.first() == Some(&row.system)
            && row.not_here.is_none()
            && is_it(&row.cell)
            && (needed.contains(&row.cell) || systems.iter().all(|system| has(&row.cell, system)))
    });
    rows.map(|row| row.cell).collect()
}

fn is_measured(row: &Row) -> bool {
    let measured = row.measured();
    row.not_here.is_none() && measured >= RUNS && measured == row.runs.len() && row.is_loaded()
}

/// Counts the limits within limits in both directions, at each round trip that was tried.
pub fn of_nested(results: &Results) -> Option<Measured> {
    let tried = || results.nested.iter().filter(|nested| nested.not_here.is_none());
    let mut rtts: Vec<_> = tried().map(|nested| nested.rtt_ms).collect();
    rtts.sort_unstable();
    rtts.dedup();
    let is_whole = |nested: &Nested| {
        let failed = nested.runs.iter().any(|run| matches!(run, NestedRun::Failed(_)));
        nested.runs.len() >= RUNS && !failed
    };
    let whole = |rtt_ms: &u32, way: Way| {
        tried().any(|it| (it.rtt_ms, it.way) == (*rtt_ms, way) && is_whole(it))
    };
    let cells = rtts
        .iter()
        .flat_map(|rtt| [Way::Up, Way::Down].map(|way| whole(rtt, way)))
        .filter(|whole| *whole)
        .count();
    (!rtts.is_empty()).then_some(Measured { cells, of: 2 * rtts.len() })
}
