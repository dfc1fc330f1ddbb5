//! Compares two systems in the same cells, column by column.

use super::results::Row;
use super::stats::Spread;
use super::summary::Added;
use super::systems::Name;

/// A figure of a row. Less is better.
type Figure = fn(&Row) -> Option<f64>;

/// The compared columns.
const COMPARED: [(&str, Figure); 11] = [
    ("error", |row| median(row.summary.off_percent)),
    ("off in 100 ms", |row| median(row.summary.window_mean_percent)),
    ("the same, p95", |row| median(row.summary.window_p95_percent)),
    ("sent again", |row| median(row.summary.resent_percent)),
    ("ping p50", |row| median(row.summary.inside.of_all_p50_ms)),
    ("ping p99", |row| median(row.summary.inside.of_all_p99_ms)),
    ("pings lost", |row| lost(&row.summary.inside)),
    ("ping beside p50", |row| median(row.summary.outside.of_all_p50_ms)),
    ("ping beside p99", |row| median(row.summary.outside.of_all_p99_ms)),
    ("pings beside lost", |row| lost(&row.summary.outside)),
    ("CPU", |row| median(row.summary.cpu_seconds_per_gb)),
];

/// Returns the median of the runs.
pub fn median(spread: Option<Spread>) -> Option<f64> {
    Some(spread?.median)
}

/// Returns the part of the probes that did not come back, in percent.
pub fn lost(added: &Added) -> Option<f64> {
    median(added.lost_percent)
}

/// Compares all columns. Returns a summary of the columns in words, and each column where ours is worse in some cell or
/// cannot be compared. A column that is equal in every cell counts as equal, not as better.
pub fn columns(pairs: &[(&Row, &Row)], theirs: Name) -> (String, Vec<String>) {
    let (mut better, mut equal) = (0, 0);
    let mut misses = Vec::new();
    let (theirs, all) = (theirs.name(), pairs.len());
    for (column, value) in COMPARED {
        let values: Vec<_> =
            pairs.iter().map(|(ours, theirs)| (value(ours), value(theirs))).collect();
        let count = |is_it: fn(f64, f64) -> bool| {
            let both = values.iter().filter_map(|(ours, theirs)| ours.zip(*theirs));
            both.filter(|(ours, theirs)| is_it(*ours, *theirs)).count()
        };
        let (worse, is_better) = (count(|ours, theirs| ours > theirs), count(|a, b| a < b) > 0);
        let without =
            values.iter().filter(|(ours, theirs)| ours.is_none() || theirs.is_none()).count();
        if worse > 0 {
            misses.push(format!("{column}: worse than {theirs} in {worse} of {all} cells"));
        }
        if without > 0 {
            misses.push(format!("{column}: nothing to compare in {without} of {all} cells"));
        }
        if worse + without == 0 {
            *(if is_better { &mut better } else { &mut equal }) += 1;
        }
    }
    let figures = format!(
        "beside {theirs} in {all} cells: better in {better} and equal in {equal} of {} columns",
        COMPARED.len()
    );
    (figures, misses)
}
