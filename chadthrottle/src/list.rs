//! `chadthrottle list`: every throttle on this host.

use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;

use anyhow::Result;
use auditor::classify::Finding;
use auditor::collect::{Options, collect};
use auditor::escape::escape_bytes;
use auditor::exit;
use auditor::gathered::gathered;
use bpf::AttachType;
use bpf::limits::Bytes;
use bpf::state::Count;
use comfy_table::{Table, presets};

use crate::cli::{Format, ListArgs};
use crate::throttles::{Row, Throttles, throttles};
use crate::waiting;
use crate::words::{count, print, warn};

pub(crate) fn run(args: &ListArgs) -> Result<()> {
    let options = Options {
        attach_types: vec![AttachType::INET_INGRESS, AttachType::INET_EGRESS, AttachType::SOCK_OPS],
        ..Options::default()
    };
    // Whatever keeps it from looking, what there is was not seen.
    let snapshot = collect(&options).map_err(|error| exit::incomplete(format!("{error:#}")))?;
    let mut found = throttles(&snapshot);
    found.rows.extend(waiting::rows(&snapshot, bpf::cgroup::cgroup2_mount().ok().as_deref()));
    match args.format {
        Format::Json => print(&(serde_json::to_string_pretty(&found)? + "\n"))?,
        Format::Text => print(&text(&found))?,
    }
    if found.leaked > 0 {
        warn(&format!(
            "leaks: {}; 'chadthrottle-audit scan' says which and why, 'chadthrottle-audit clean' \
             removes them",
            found.leaked
        ));
    }
    for line in gathered(&found.gaps) {
        warn(&format!("not seen: {line}"));
    }
    if !found.gaps.is_empty() {
        let message = if found.rows.is_empty() {
            "whether there are throttles could not be seen"
        } else {
            "not everything could be seen, so there may be more throttles"
        };
        return Err(exit::incomplete(message).into());
    }
    Ok(())
}

fn text(found: &Throttles) -> String {
    let mut text = String::new();
    if found.rows.is_empty() && found.gaps.is_empty() {
        text.push_str("no throttles\n");
    } else if !found.rows.is_empty() {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).force_no_tty().set_header([
            "ID",
            "CGROUP",
            "DIRECTION",
            "RATE",
            "BURST",
            "TRAFFIC",
            "TCP",
            "OTHER",
            "ATTACH",
            "OWNER",
            "PASSED",
            "DROPPED",
            "HELD BACK",
        ]);
        for row in &found.rows {
            table.add_row(cells(row));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        text.push_str(&table.trim_fmt());
        text.push('\n');
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

fn cells(row: &Row) -> [String; 13] {
    let packets = |n: auditor::snapshot::Count| count(Count { packets: n.packets, bytes: n.bytes });
    let owner = match (row.owner_pid, row.owner_alive) {
        (None, _) => "-".to_owned(),
        (Some(pid), Some(true)) => pid.to_string(),
        (Some(pid), Some(false)) => format!("{pid} (ended)"),
        (Some(pid), None) => format!("{pid} (elsewhere)"),
    };
    [
        row.id.clone().unwrap_or_else(|| "-".to_owned()),
        escape_bytes(row.cgroup.as_os_str().as_bytes()),
        row.direction.to_string(),
        format!("{}/s", Bytes(row.rate_bytes_per_second)),
        format!("{} ms", row.burst_ms),
        row.traffic.clone(),
        row.tcp.to_string(),
        if row.departures { "fq" } else { "police" }.to_owned(),
        match row.finding {
            Finding::Waiting => format!("{}, waiting", row.attach),
            _ => row.attach.to_string(),
        },
        owner,
        packets(row.passed),
        packets(row.dropped),
        match row.held_back.packets {
            0 => "-".to_owned(),
            times => format!("{times} times"),
        },
    ]
}
