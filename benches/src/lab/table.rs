//! Formats the figures of a row, the same way in every table.

use super::cell::Cell;
use super::results::{Results, Row, Run};
use super::stats::Spread;
use super::summary::Added;
use super::systems::Name;

/// The titles of the columns after the cell and the system.
pub const COLUMNS: [&str; 9] = [
    "goodput",
    "error",
    "off in 100 ms (p95)",
    "sent again",
    "lost",
    "ping in it +p50/p99",
    "ping beside +p50/p99",
    "CPU s/GB",
    "runs",
];

/// Returns the figures, one for each of [`COLUMNS`].
pub fn figures(row: &Row) -> Vec<String> {
    if let Some(why) = &row.not_here {
        return alone(format!("not here: {why}"));
    }
    let summary = &row.summary;
    let done = row.measured();
    if done == 0 {
        let why = row.runs.iter().find_map(|run| match run {
            Run::Failed(why) => Some(why.as_str()),
            Run::Measured(_) => None,
        });
        let first_line = why.and_then(|why| why.lines().next());
        return alone(format!("failed: {}", first_line.unwrap_or("not measured")));
    }
    let windows = match (summary.window_mean_percent, summary.window_p95_percent) {
        (Some(mean), Some(p95)) => {
            format!("{} % ({} %)", number(mean.median), number(p95.median))
        }
        _ => nothing(),
    };
    vec![
        of(summary.goodput, rate),
        if row.is_loaded() {
            of(summary.error_percent, signed_percent)
        } else {
            "sender too slow".into()
        },
        windows,
        of(summary.resent_percent, percent),
        of(summary.lost_percent, percent),
        ping(&summary.inside),
        ping(&summary.outside),
        of(summary.cpu_seconds_per_gb, number),
        format!("{done} of {}", row.runs.len()),
    ]
}

/// Returns a word that replaces all figures.
fn alone(word: String) -> Vec<String> {
    let mut cells = vec![String::new(); COLUMNS.len()];
    cells[0] = word;
    cells
}

fn nothing() -> String {
    "-".into()
}

fn of(spread: Option<Spread>, show: impl Fn(f64) -> String) -> String {
    spread.map_or_else(nothing, |spread| show(spread.median))
}

fn ping(added: &Added) -> String {
    let (Some(p50), Some(p99)) = (added.p50_ms, added.p99_ms) else {
        return if added.lost_percent.is_some() { "all lost".into() } else { nothing() };
    };
    let lost = added.lost_percent.filter(|lost| lost.median > 0.0);
    let lost = lost.map_or_else(String::new, |lost| format!(", {} lost", percent(lost.median)));
    format!("{}/{} ms{lost}", number(p50.median), number(p99.median))
}

/// Formats a rate, such as `1.21 MB/s`.
pub fn rate(bytes_per_second: f64) -> String {
    let (value, unit) = match bytes_per_second {
        value if value < 1e6 => (value / 1e3, "kB/s"),
        value if value < 1e9 => (value / 1e6, "MB/s"),
        value => (value / 1e9, "GB/s"),
    };
    format!("{} {unit}", significant(value))
}

/// Formats a value with four significant digits.
fn significant(value: f64) -> String {
    match value.abs() {
        value_abs if value_abs >= 100.0 => format!("{value:.1}"),
        value_abs if value_abs >= 10.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Formats a value with as many digits as are meaningful.
pub fn number(value: f64) -> String {
    let shown = match value.abs() {
        value_abs if value_abs >= 100.0 => format!("{value:.0}"),
        value_abs if value_abs >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    };
    // -0.00 becomes 0.
    if shown.trim_start_matches('-').chars().all(|char| matches!(char, '0' | '.')) {
        shown.trim_start_matches('-').to_owned()
    } else {
        shown
    }
}

/// Formats a percentage, such as `0.31 %`.
pub fn percent(value: f64) -> String {
    format!("{} %", number(value))
}

/// Formats a percentage with its sign, such as `+0.31 %`.
pub fn signed_percent(value: f64) -> String {
    let shown = percent(value);
    if shown.starts_with('-') || shown.starts_with("0.00 ") { shown } else { format!("+{shown}") }
}

/// The titles of the columns before the figures.
pub const CELL: [&str; 5] = ["limit", "flows", "RTT", "loss", "system"];

/// Returns the words before the figures.
pub fn cell(cell: &Cell, system: Name) -> Vec<String> {
    vec![
        cell.rate.to_string(),
        cell.flows.to_string(),
        format!("{} ms", cell.rtt_ms),
        format!("{} %", cell.loss_percent),
        system.name().to_owned(),
    ]
}

/// The longest cell, so that a terminal does not wrap the lines. The report has the full text, and failures are printed
/// anyway.
const LONGEST: usize = 48;

fn short(cell: String) -> String {
    if cell.chars().count() <= LONGEST {
        return cell;
    }
    cell.chars().take(LONGEST - 1).chain(['\u{2026}']).collect()
}

/// Formats all rows as an aligned table for a terminal.
pub fn aligned(results: &Results) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    let head = ["way", "sender"].into_iter().chain(CELL).chain(COLUMNS);
    table.set_header(head);
    for row in &results.rows {
        let way = [row.cell.way.name().to_owned(), row.cell.sender.name().to_owned()];
        let words = way.into_iter().chain(cell(&row.cell, row.system)).chain(figures(row));
        table.add_row(words.map(short));
    }
    table.trim_fmt()
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn numbers_have_as_many_digits_as_say_something() {
        assert_eq!(rate(1_206_432.0), "1.206 MB/s");
        assert_eq!(rate(120_643.0), "120.6 kB/s");
        assert_eq!(rate(1_890_000_000.0), "1.890 GB/s");
        assert_eq!(percent(17.26), "17.3 %");
        assert_eq!(signed_percent(0.313), "+0.31 %");
        assert_eq!(signed_percent(-0.001), "0.00 %");
        assert_eq!(signed_percent(-90.04), "-90.0 %");
        assert_eq!(number(1234.5), "1234");
    }

    #[test]
    fn a_long_cell_is_cut_for_a_terminal() {
        assert_eq!(short("x".repeat(48)), "x".repeat(48));
        assert_eq!(short("x".repeat(49)), format!("{}\u{2026}", "x".repeat(47)));
        let mut results = samples::results();
        results.rows[2].not_here = Some("y".repeat(100));
        let table = aligned(&results);
        assert!(
            table.contains("upload  cubic   1.25 MB/s") && !table.contains(&"y".repeat(50)),
            "{table}"
        );
    }

    #[test]
    fn a_row_says_what_was_measured_what_failed_and_what_is_not_here() {
        let results = samples::results();
        let ours = figures(&results.rows[0]);
        assert_eq!(ours.len(), COLUMNS.len());
        assert_eq!(
            ours,
            [
                "1.200 MB/s",
                "-0.50 %",
                "1.00 % (2.00 %)",
                "0.00 %",
                "-",
                "3.00/7.00 ms, 10.0 % lost",
                "0.50/2.00 ms",
                "2.00",
                "3 of 3"
            ]
        );
        assert_eq!(figures(&results.rows[1])[0], "failed: it hung");
        assert_eq!(figures(&results.rows[2])[0], "not here: Failed to load TC action module");
    }
}
