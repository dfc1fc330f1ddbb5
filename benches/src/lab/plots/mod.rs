//! Turns results into plots and decides what each shows. `draw` draws them.

mod draw;
mod scale;

use anyhow::Result;

use super::cell::Cell;
use super::results::{Results, Row};
use super::stats::Spread;
use super::systems::Name;

/// A figure to plot.
#[derive(Debug)]
struct Kind {
    /// The figure's part of the file name.
    word: &'static str,
    title: &'static str,
    /// The unit of the axis.
    unit: &'static str,
    /// Values within this distance of 0 are good.
    good: Option<f64>,
    value: fn(&Row) -> Option<Spread>,
    /// The systems without such a figure.
    without: &'static [Name],
}

const KINDS: [Kind; 3] = [
    Kind {
        word: "error",
        title: "Goodput: how far off its limit",
        unit: "%",
        good: Some(1.0),
        // A sender that is too slow is no error of the limit.
        value: |row| row.summary.error_percent.filter(|_| row.is_loaded()),
        without: &[Name::None],
    },
    Kind {
        word: "again",
        title: "TCP segments sent again",
        unit: "%",
        good: None,
        value: |row| row.summary.resent_percent,
        without: &[],
    },
    Kind {
        word: "latency",
        title: "Added to a ping in the throttled cgroup (99 of 100 take no longer)",
        unit: "ms",
        good: None,
        value: |row| row.summary.inside.p99_ms.map(at_least_nothing),
        without: &[],
    },
];

/// Sets negative values to 0. Traffic that is faster under load than without was so by chance.
fn at_least_nothing(Spread { median, min, max }: Spread) -> Spread {
    Spread { median: median.max(0.0), min: min.max(0.0), max: max.max(0.0) }
}

/// Cells that differ only in their limit and their number of flows.
#[derive(Debug, PartialEq)]
struct Panel {
    title: String,
    /// The systems in any of the groups. Each system has the same place in all groups.
    systems: Vec<Name>,
    groups: Vec<Group>,
}

/// The bars of one cell.
#[derive(Debug, PartialEq)]
struct Group {
    label: String,
    /// One bar for each tried system. `None` means that the figure could not be measured.
    bars: Vec<(Name, Option<Spread>)>,
}

/// Draws all plots of these results as SVG, each with its word. It skips figures without values.
///
/// # Errors
/// Fails if drawing fails.
pub fn all(results: &Results) -> Result<Vec<(&'static str, String)>> {
    let mut plots = Vec::new();
    for kind in &KINDS {
        let panels = panels(results, kind);
        if !panels.is_empty() {
            plots.push((kind.word, draw::svg(kind, &panels, &results.machine.told())?));
        }
    }
    Ok(plots)
}

fn panels(results: &Results, kind: &Kind) -> Vec<Panel> {
    let mut panels: Vec<Panel> = Vec::new();
    for row in results.rows.iter().filter(|row| !kind.without.contains(&row.system)) {
        // UDP sends no datagram again.
        if kind.word == "again" && !row.cell.sender.is_tcp() {
            continue;
        }
        let title = title(&row.cell);
        let label = format!("{} x{}", row.cell.rate, row.cell.flows);
        let panel = or_new(
            &mut panels,
            |panel| panel.title == title,
            || Panel { title: title.clone(), systems: Vec::new(), groups: Vec::new() },
        );
        if !panel.systems.contains(&row.system) {
            panel.systems.push(row.system);
            panel.systems.sort();
        }
        let group = or_new(
            &mut panel.groups,
            |group| group.label == label,
            || Group { label: label.clone(), bars: Vec::new() },
        );
        group.bars.push((row.system, (kind.value)(row)));
    }
    // An empty panel shows nothing. The table gives the reason.
    panels.retain(|panel| {
        panel.groups.iter().any(|group| group.bars.iter().any(|(_, value)| value.is_some()))
    });
    panels
}

fn title(cell: &Cell) -> String {
    let Cell { way, sender, rtt_ms, loss_percent, .. } = cell;
    let mut words = vec![way.name().to_owned(), sender.name().to_owned()];
    if *rtt_ms > 0 {
        words.push(format!("{rtt_ms} ms of round trip"));
    }
    if *loss_percent > 0 {
        words.push(format!("{loss_percent} % lost on the way"));
    }
    words.join(", ")
}

fn or_new<T>(list: &mut Vec<T>, is_it: impl Fn(&T) -> bool, new: impl Fn() -> T) -> &mut T {
    let at = list.iter().position(is_it).unwrap_or_else(|| {
        list.push(new());
        list.len() - 1
    });
    &mut list[at]
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn every_system_of_a_cell_has_its_place_measured_or_not() {
        let panels = panels(&samples::results(), &KINDS[0]);
        assert_eq!(panels.len(), 1);
        assert_eq!(panels[0].title, "upload, cubic");
        assert_eq!(panels[0].systems, [Name::Ours, Name::Tbf, Name::Police]);
        let group = &panels[0].groups[0];
        assert_eq!(group.label, "1.25 MB/s x1");
        assert!(group.bars[0].1.is_some() && group.bars[1].1.is_none());
    }

    #[test]
    fn what_nobody_has_is_not_plotted() {
        let mut results = samples::results();
        results.rows.retain(|row| row.system != Name::Ours);
        assert_eq!(panels(&results, &KINDS[0]), []);
        assert!(all(&results).unwrap().is_empty());
    }

    #[test]
    fn a_limit_is_not_to_blame_for_a_sender_that_is_too_slow() {
        let mut results = samples::results();
        results.rows[0].cell.sender = super::super::cell::Sender::Udp;
        let bar = |results: &Results| panels(results, &KINDS[0]).first()?.groups[0].bars[0].1;
        assert!(bar(&results).is_some());
        results.rows[0].summary.offered = Some(Spread { median: 1.0, min: 1.0, max: 1.0 });
        assert_eq!(bar(&results), None);
    }

    #[test]
    fn a_ping_that_was_faster_than_without_load_is_no_gain() {
        let faster = Spread { median: -1.0, min: -2.0, max: 0.5 };
        assert_eq!(at_least_nothing(faster), Spread { median: 0.0, min: 0.0, max: 0.5 });
    }

    #[test]
    fn a_plot_names_what_it_shows_and_where_it_was_measured() {
        let plots = all(&samples::results()).unwrap();
        let words: Vec<_> = plots.iter().map(|(word, _)| *word).collect();
        assert_eq!(words, ["error", "again", "latency"]);
        let svg = &plots[0].1;
        for text in ["Goodput: how far off", "upload, cubic", "1.25 MB/s x1", "police", "6.18.0"] {
            assert!(svg.contains(text), "{text}\nis not in\n{svg}");
        }
    }
}
