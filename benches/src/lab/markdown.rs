//! Formats results as Markdown.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::cell::{Sender, Way};
use super::goals::{Standing, standings};
use super::results::{NOT_QUIET, Nested, NestedRun, Results, names};
use super::stats::Spread;
use super::table::{CELL, COLUMNS, cell, figures, number, rate};

const HEAD: &str = "# The traffic lab\n\n\
    Written by `lab report` from the JSON files beside this one; do not edit.\n\n";

const LEGEND: &str = "\
    - **goodput**: payload that arrived (median of the runs). **error**: against what the limit lets through if \
    it is kept to the byte, headers counted and the probes' bytes taken off. Ours \
    count from the IP header on, so that TCP carries 1,448 of 1,500 bytes; `tc` counts the Ethernet header as \
    well, so that it carries 1,448 of 1,514. `nft`, and `police` on downloads, count the headers once for all \
    segments of a GSO or GRO packet, so that TCP carries anything from 1,448 of 1,500 bytes to all of them: they \
    are held to that range, and what lies in it is no error. Each system is held to its own.\n\
    - **off in 100 ms**: how far windows of 100 ms at the receiver are from that, too much or too little, on \
    average, and (p95) in the worst of twenty.\n\
    - **sent again**: TCP segments that the sender retransmitted, of those it sent, from the first second to \
    the last, those that do not count otherwise among them. **lost**: datagrams that did \
    not arrive; half as much again as the limit is sent, so a third has to be lost.\n\
    - **ping in it / beside**: what the load adds to the round trip of small datagrams (20 a second), of half and \
    of 99 of 100 of those that came back, from a socket in the throttled cgroup and from one outside of it. What \
    limits the interface delays both; a limit on the cgroup only the first.\n\
    - **CPU s/GB**: processor seconds of the whole machine, iperf3's at both ends among them, for 10^9 bytes of \
    payload, less what it takes when idle; none where that is above a tenth of the machine. At small rates that is mostly iperf3's timers: compare with `none`.\n\
    - At a loss above 0, segments are sent one by one (`gso_max_segs 1`), so that one is lost at a time.\n\
    - *not here*: what this kernel or host lacks, in the words of the tool.\n";

/// Returns the whole report. `plots` has the file names of the plots for each of the results.
pub fn report(all: &[Results], plots: &[Vec<String>]) -> String {
    let mut text = HEAD.to_owned();
    text += "## Goals\n";
    text += "The worst cell of each goal counts, by the median of its runs, of how far they are off without the sign; \
        the lowest and the highest run stand beside it. A probe that did not come back is slower than all that did. \
        A cell counts as measured with three runs and none that failed.\n\n";
    text += &goals(&standings(all));
    text += "\n## How to read the tables\n";
    text += LEGEND;
    text += &systems(all);
    let plots = plots.iter().map(Vec::as_slice).chain(std::iter::repeat(&[][..]));
    for ((results, name), plots) in all.iter().zip(names(all)).zip(plots) {
        text += &machine(results, &name, plots);
    }
    text
}

/// Returns the goals as a table.
pub fn goals(standings: &[Standing]) -> String {
    let rows = standings.iter().map(|standing| {
        let Standing { what, goal, machine, figures, .. } = standing;
        let words = [*what, *goal, machine, figures];
        words.into_iter().map(str::to_owned).chain([standing.verdict()]).collect()
    });
    table(&["what", "goal", "where", "median", "verdict"], rows)
}

fn systems(all: &[Results]) -> String {
    let names: BTreeSet<_> = all.iter().flat_map(|it| &it.rows).map(|row| row.system).collect();
    let rows = names.iter().map(|name| vec![name.name().into(), name.system().note().into()]);
    format!("\n{}", table(&["system", "what it is"], rows))
}

fn machine(results: &Results, name: &str, plots: &[String]) -> String {
    let mut text = format!("\n## {name}\n{}. ", results.machine.told());
    let Results { seconds, omitted_seconds, runs, .. } = results;
    let _ = writeln!(
        text,
        "{runs} runs of {seconds} s each (three times that below 1 MB/s), after {omitted_seconds} s that do not count.\n"
    );
    if !results.is_quiet() {
        let _ = writeln!(text, "- {NOT_QUIET}.");
    }
    for idle in &results.idle {
        let quantile = |value: Option<f64>| value.map_or_else(|| "-".into(), number);
        let _ = writeln!(
            text,
            "- Without load, at a round trip of {} ms and {} % of loss: ping {}/{} ms (p50/p99), {} processors busy.",
            idle.rtt_ms,
            idle.loss_percent,
            quantile(idle.echoes.p50_ms),
            quantile(idle.echoes.p99_ms),
            number(idle.busy_processors),
        );
    }
    text.push('\n');
    for plot in plots {
        let _ = writeln!(text, "![{plot}]({plot})\n");
    }
    for way in [Way::Up, Way::Down] {
        for sender in [Sender::Cubic, Sender::Bbr, Sender::Udp] {
            let rows = results.rows.iter();
            let rows = rows.filter(|row| (row.cell.way, row.cell.sender) == (way, sender));
            let rows: Vec<_> =
                rows.map(|row| [cell(&row.cell, row.system), figures(row)].concat()).collect();
            if !rows.is_empty() {
                let head: Vec<_> = CELL.into_iter().chain(COLUMNS).collect();
                let _ = write!(text, "\n### {}, {}\n", way.name(), sender.name());
                text += &table(&head, rows);
            }
        }
    }
    if !results.nested.is_empty() {
        text += "\n### parent and child\n";
        text += &nested(results);
    }
    text
}

/// Returns limits within limits as a table.
pub fn nested(results: &Results) -> String {
    let rows = results.nested.iter().map(|nested| {
        let Nested { way, rtt_ms, parent, child, not_here, runs } = nested;
        let got = |of: fn(f64, f64) -> f64| {
            let measured = runs.iter().filter_map(|run| match run {
                NestedRun::Measured { child, sibling } => Some(of(*child, *sibling)),
                NestedRun::Failed(_) => None,
            });
            let missing = || match not_here {
                Some(why) => format!("not here: {why}"),
                None => "failed".into(),
            };
            Spread::of(measured).map_or_else(missing, |spread| rate(spread.median))
        };
        vec![
            way.name().into(),
            format!("{rtt_ms} ms"),
            parent.to_string(),
            child.to_string(),
            got(|child, _| child),
            got(|_, sibling| sibling),
            got(|child, sibling| child + sibling),
        ]
    });
    let head = ["way", "RTT", "parent", "child", "child got", "sibling got", "both got"];
    table(&head, rows)
}

fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut text = format!("| {} |\n|{}\n", head.join(" | "), " --- |".repeat(head.len()));
    for row in rows {
        let cells: Vec<_> =
            row.iter().map(|cell| cell.replace('|', "\\|").replace('\n', " ")).collect();
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn the_report_shows_the_goals_the_machine_every_row_and_every_plot() {
        let plots = ["lab-host-6.18-error.svg", "lab-host-6.18-2-error.svg"];
        let text = report(
            &[samples::results(), samples::results()],
            &plots.map(|plot| vec![plot.to_owned()]),
        );
        for line in [
            "| upload, TCP, 1.25 to 125 MB/s, 1 to 16 flows | within 1 %, nothing sent again | host-6.18 |",
            "## host-6.18\nhost, Linux 6.18.0, 2 x A processor, 2026-01-02T03:04:05Z;",
            "3 runs of 4 s each (three times that below 1 MB/s), after 1 s that do not count.",
            "- Without load, at a round trip of 0 ms and 0 % of loss: ping 1.00/1.00 ms (p50/p99), 0.05 processors",
            "\n![lab-host-6.18-error.svg](lab-host-6.18-error.svg)\n",
            "### upload, cubic\n| limit | flows |",
            "| 1.25 MB/s | 1 | 0 ms | 0 % | ours | 1.200 MB/s | -0.50 % |",
            "| tbf | failed: it hung |",
            "| police | not here: Failed to load TC action module |",
            "| upload | 0 ms | 2 MB/s | 1 MB/s | 965.0 kB/s | 965.0 kB/s | 1.930 MB/s |",
        ] {
            assert!(text.contains(line), "{line}\nis not in\n{text}");
        }
        let (_, second) = text.split_once("\n## host-6.18-2\n").unwrap();
        assert!(second.contains("](lab-host-6.18-2-error.svg)"), "{text}");
        assert_eq!(text.matches(".svg)").count(), 2, "{text}");
    }

    #[test]
    fn a_machine_that_is_not_quiet_is_told() {
        let mut results = samples::results();
        assert!(!report(&[results.clone()], &[]).contains("not quiet"));
        results.idle[0].busy_processors = 1.0;
        assert!(report(&[results], &[]).contains("\n- machine not quiet: "));
    }

    #[test]
    fn a_cell_of_a_table_stays_one() {
        let text = table(&["a", "b"], [vec!["x|y".into(), "1\n2".into()]]);
        assert_eq!(text, "| a | b |\n| --- | --- |\n| x\\|y | 1 2 |\n");
    }
}
