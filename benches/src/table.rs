//! Formats tables as Markdown, so that the printed table can go into a page.

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};

use crate::turns::Figure;

/// Creates a table. The first columns are left-aligned, and the others are numbers and right-aligned.
pub fn table<const N: usize>(
    header: [&str; N],
    left: usize,
    rows: impl IntoIterator<Item = [String; N]>,
) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header(header);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(left) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Shows what each contestant took relative to a peer, which may be one of them.
pub fn beside(peer: &Figure, figures: &[Figure]) -> Table {
    let header = ["", "median", "above", "times", "lowest", "highest"];
    let mut table = table(
        header,
        1,
        figures.iter().map(|figure| {
            [
                figure.name.clone(),
                time(figure.nanos()),
                time(figure.above(peer)),
                format!("{:.2}", figure.ratio_to(peer)),
                time(figure.lowest()),
                time(figure.highest()),
            ]
        }),
    );
    table.set_header(header.map(|word| match word {
        "above" => format!("above {}", peer.name),
        "times" => format!("times {}", peer.name),
        word => word.to_owned(),
    }));
    table
}

/// Formats nanoseconds in a unit that leaves few digits.
pub fn time(nanos: f64) -> String {
    match nanos.abs() {
        small if small < 1e3 => format!("{nanos:.1} ns"),
        middle if middle < 1e6 => format!("{:.1} µs", nanos / 1e3),
        _ => format!("{:.1} ms", nanos / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_few_digits() {
        let shown = [12.34, 340_000.0, -12_340_000.0].map(time);
        assert_eq!(shown, ["12.3 ns", "340.0 µs", "-12.3 ms"]);
    }

    #[test]
    fn a_figure_stands_beside_its_peer_with_its_edges() {
        let figure =
            |name: &str, rounds: &[f64]| Figure { name: name.to_owned(), rounds: rounds.to_vec() };
        let (own, peer) = (figure("own", &[30.0, 20.0, 90.0]), figure("peer", &[15.0, 10.0, 10.0]));
        let shown = beside(&peer, &[own]).to_string();
        let words: Vec<&str> = shown.lines().last().unwrap().split('|').map(str::trim).collect();
        let expected = ["", "own", "30.0 ns", "15.0 ns", "2.00", "20.0 ns", "90.0 ns", ""];
        assert_eq!(words, expected, "{shown}");
        assert!(shown.lines().next().unwrap().contains("above peer"), "{shown}");
    }
}
