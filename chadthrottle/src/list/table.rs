//! Formats throttles as text.
//!
//! It wraps and cuts nothing, because users copy the path of a cgroup. If the table is wider than the terminal, a list
//! with one entry for each row replaces it.

use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;

use auditor::facts::Count;
use auditor::judge::Finding;
use bpf::limits::Bytes;
use comfy_table::{Table, presets};
use terminal::{escape, escape_bytes};

use crate::armed::way;
use crate::throttles::{Row, Throttles};
use crate::words::count;

/// Formats the throttles for a terminal with `width` columns. Without a width it shows every column.
pub(super) fn text(found: &Throttles, width: Option<usize>) -> String {
    let mut text = String::new();
    if found.rows.is_empty() && found.gaps.is_empty() {
        text.push_str("no throttles\n");
    } else if !found.rows.is_empty() {
        text.push_str(&match width {
            None => table(&WIDE, found.rows.iter().map(wide)),
            Some(width) => fitting(&found.rows, width),
        });
    }
    if found.unreadable > 0 {
        let _ = writeln!(
            text,
            "programs named chadthrottle* without a limit that can be read: {}",
            found.unreadable
        );
    }
    text
}

fn fitting(rows: &[Row], width: usize) -> String {
    let table = table(&NARROW, rows.iter().map(narrow));
    if table.lines().all(|line| line.chars().count() <= width) {
        return table;
    }
    rows.iter().map(entry).collect()
}

fn table<const N: usize>(header: &[&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).force_no_tty().set_header(header);
    rows.for_each(|row| _ = table.add_row(row));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt() + "\n"
}

const NARROW: [&str; 7] = ["ID", "LIMIT", "ATTACH", "OWNER", "PASSED", "DROPPED", "CGROUP"];

fn narrow(row: &Row) -> [String; 7] {
    [
        id(row),
        limit(row),
        attach(row),
        match row.owner_alive {
            Some(false) => "ended".to_owned(),
            _ => owner(row),
        },
        Bytes(row.passed.bytes).to_string(),
        Bytes(row.dropped.bytes).to_string(),
        cgroup(row),
    ]
}

/// Formats one row: the cgroup on a line of its own, and below it as much as fits in 80 columns.
fn entry(row: &Row) -> String {
    let [id, limit, attach, owner, passed, dropped, cgroup] = narrow(row);
    format!(
        "{cgroup}\n    id {id}, {limit}, {attach}, owner {owner}\n    passed {passed}, dropped {dropped}\n"
    )
}

const WIDE: [&str; 13] = [
    "ID",
    "LIMIT",
    "BURST",
    "TRAFFIC",
    "TCP",
    "OTHER",
    "ATTACH",
    "OWNER",
    "PASSED",
    "DROPPED",
    "HELD BACK",
    "FINDING",
    "CGROUP",
];

fn wide(row: &Row) -> [String; 13] {
    let packets = |n: Count| count(bpf::state::Count { packets: n.packets, bytes: n.bytes });
    [
        id(row),
        rate(row),
        format!("{} ms", row.burst_ms),
        escape(&row.traffic),
        row.tcp.to_string(),
        if row.departures { "fq" } else { "police" }.to_owned(),
        attach(row),
        owner(row),
        packets(row.passed),
        packets(row.dropped),
        match row.held_back.packets {
            0 => "-".to_owned(),
            times => format!("{times} times"),
        },
        row.finding.map_or_else(|| "-".to_owned(), |finding| finding.to_string()),
        cgroup(row),
    ]
}

fn id(row: &Row) -> String {
    row.id.as_deref().map_or_else(|| "-".to_owned(), escape)
}

fn cgroup(row: &Row) -> String {
    let path = escape_bytes(row.cgroup.as_os_str().as_bytes());
    if row.cgroup_elsewhere { path + " (elsewhere)" } else { path }
}

fn rate(row: &Row) -> String {
    format!("{}/s {}", Bytes(row.rate_bytes_per_second), way(row.direction))
}

fn limit(row: &Row) -> String {
    match &*row.traffic {
        "all" => rate(row),
        some => format!("{} ({})", rate(row), escape(some)),
    }
}

fn attach(row: &Row) -> String {
    match row.finding {
        _ if row.detached => format!("{}, detached", row.attach),
        Some(Finding::Waiting) => format!("{}, waiting", row.attach),
        _ => row.attach.to_string(),
    }
}

fn owner(row: &Row) -> String {
    match (row.owner_pid, row.owner_alive) {
        (None, _) => "-".to_owned(),
        (Some(pid), Some(true)) => pid.to_string(),
        (Some(pid), Some(false)) => format!("{pid} (ended)"),
        (Some(pid), None) => format!("{pid} (elsewhere)"),
    }
}

#[cfg(test)]
mod tests {
    use throttle_core::Direction;
    use throttle_core::mode::{Mode, Tcp};

    use super::*;

    fn row(cgroup: &str) -> Row {
        Row {
            id: Some("1".to_owned()),
            cgroup: cgroup.into(),
            cgroup_elsewhere: false,
            direction: Direction::Download,
            rate_bytes_per_second: 2_000_000,
            burst_ms: 250.0,
            traffic: "all".to_owned(),
            tcp: Tcp::Shape,
            departures: false,
            fq_devices: Vec::new(),
            attach: Mode::Pinned,
            owner_pid: Some(4711),
            owner_alive: Some(true),
            finding: Some(Finding::Pinned),
            detached: false,
            passed: Count { packets: 8_412, bytes: 12_300_000 },
            dropped: Count { packets: 1, bytes: 1_500 },
            held_back: Count { packets: 3, bytes: 4_500 },
        }
    }

    fn widest(cgroup: &str) -> Row {
        let most = Count { packets: u64::MAX, bytes: 999_999_000_000_000 };
        Row {
            id: Some("999999".to_owned()),
            rate_bytes_per_second: 12_345_678_901,
            traffic: "internet".to_owned(),
            owner_pid: Some(4_194_304),
            owner_alive: None,
            passed: most,
            dropped: most,
            held_back: most,
            ..row(cgroup)
        }
    }

    fn all(rows: Vec<Row>) -> Throttles {
        Throttles { schema_version: 1, rows, unreadable: 0, leaked: 0, gaps: Vec::new() }
    }

    #[test]
    fn a_table_that_fits_is_a_table() {
        assert_eq!(
            text(&all(vec![row("/system.slice/x")]), Some(80)),
            "ID  LIMIT        ATTACH  OWNER  PASSED   DROPPED  CGROUP\n\
             1   2 MB/s down  pinned  4711   12.3 MB  1.5 kB   /system.slice/x\n"
        );
    }

    #[test]
    fn a_table_may_take_every_column_that_there_is_and_no_more() {
        let found = all(vec![row("/system.slice/x")]);
        let table = text(&found, Some(80));
        let width = table.lines().map(|line| line.chars().count()).max().unwrap();
        assert_eq!(text(&found, Some(width)), table);
        assert!(text(&found, Some(width - 1)).starts_with("/system.slice/x\n"));
    }

    #[test]
    fn an_owner_that_ended_and_a_throttle_that_waits_or_is_detached_are_told() {
        let ended = Row { owner_alive: Some(false), ..row("/x") };
        let said = text(&all(vec![ended]), Some(80));
        assert!(said.contains("  pinned  ended  "), "{said}");
        let waiting = Row { finding: Some(Finding::Waiting), ..row("/x") };
        assert!(text(&all(vec![waiting]), Some(80)).contains("  pinned, waiting  "));
        let detached = || Row { finding: None, detached: true, ..row("/x") };
        assert!(text(&all(vec![detached()]), Some(80)).contains("  pinned, detached  "));
        assert!(text(&all(vec![detached()]), None).contains("  3 times    -        /x\n"));
    }

    #[test]
    fn what_was_never_held_back_is_a_dash() {
        let none = Row { held_back: Count::default(), ..row("/x") };
        assert!(text(&all(vec![none]), None).contains("  -          pinned   /x\n"));
    }

    #[test]
    fn what_does_not_fit_in_80_columns_is_a_list_that_does() {
        let path = "/system.slice/a-service-with-a-long-name.service";
        let said = text(&all(vec![row("/x"), widest(path)]), Some(80));
        assert!(said.lines().all(|line| line.chars().count() <= 80), "{said}");
        let lines: Vec<_> = said.lines().collect();
        assert_eq!(lines.len(), 6, "{said}");
        assert_eq!(lines[1], "    id 1, 2 MB/s down, pinned, owner 4711");
        assert_eq!(lines[2], "    passed 12.3 MB, dropped 1.5 kB");
        assert_eq!(lines[3], path);
        assert!(lines[4].contains("(internet)") && lines[4].contains("(elsewhere)"), "{said}");
        let wider = text(&all(vec![row("/x"), widest(path)]), Some(160));
        assert!(wider.starts_with("ID ") && wider.lines().count() == 3, "{wider}");
    }

    #[test]
    fn a_path_that_means_nothing_here_is_said_to_be_of_elsewhere() {
        let row = Row { cgroup_elsewhere: true, ..row("/x") };
        assert!(text(&all(vec![row]), Some(80)).contains("/x (elsewhere)\n"));
    }

    #[test]
    fn a_path_is_never_cut_and_obeyed_by_no_terminal() {
        let path = format!("/{}\x1b[31m\n", "x".repeat(200));
        let said = text(&all(vec![row(&path)]), Some(80));
        assert_eq!(said.lines().next().unwrap(), format!("/{}\\x1b[31m\\n", "x".repeat(200)));
    }

    #[test]
    fn wide_shows_every_column_in_one_line_however_long() {
        let said = text(&all(vec![widest("/x")]), None);
        let [header, line] = said.lines().collect::<Vec<_>>()[..] else { panic!("{said}") };
        assert!(WIDE.iter().all(|name| header.contains(name)), "{said}");
        for part in ["250 ms", "internet", "shape", "police", "packets", "times", "pinned"] {
            assert!(line.contains(part), "{part}: {said}");
        }
    }

    #[test]
    fn nothing_to_show_is_said_only_where_all_was_seen() {
        assert_eq!(text(&all(Vec::new()), Some(80)), "no throttles\n");
        let gap = auditor::facts::Note { what: "x".to_owned(), why: "y".to_owned() };
        let blind = Throttles { gaps: vec![gap], ..all(Vec::new()) };
        assert_eq!(text(&blind, Some(80)), "");
    }
}
