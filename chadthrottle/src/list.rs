//! `chadthrottle list`: every throttle on this host.

mod table;

use anyhow::Result;
use auditor::collect::{Options, collect};
use auditor::exit;
use auditor::formats::COLUMNS;
use auditor::gathered::gathered;
use bpf::AttachType;

use self::table::text;
use crate::cli::{Format, ListArgs};
use crate::throttles::throttles;
use crate::waiting::{self, Here};
use crate::words::{print, warn};

pub(crate) fn run(args: &ListArgs) -> Result<()> {
    let options = Options {
        attach_types: vec![AttachType::INET_INGRESS, AttachType::INET_EGRESS, AttachType::SOCK_OPS],
        ..Options::default()
    };
    let snapshot = collect(&options).map_err(|error| exit::as_an_audit(&error))?;
    let mut found = throttles(&snapshot);
    let here = Here::look();
    found.rows.extend(waiting::rows(&snapshot, &here));
    found.rows.extend(waiting::detached(&snapshot, &here, &found.rows));
    match args.format {
        Format::Json => print(&(serde_json::to_string_pretty(&found)? + "\n"))?,
        Format::Text if args.wide => print(&text(&found, None))?,
        Format::Text => print(&text(&found, Some(width())))?,
    }
    if found.rows.iter().any(|row| row.detached) {
        warn(
            "what is detached limits nothing: 'chadthrottle rearm ID' arms it again, 'chadthrottle rm ID' ends it",
        );
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

/// The terminal's columns.
fn width() -> usize {
    comfy_table::Table::new().width().unwrap_or(COLUMNS).into()
}
