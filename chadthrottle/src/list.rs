//! `chadthrottle list` shows every throttle on this host.

mod table;

use anyhow::Result;
use auditor::collect::{Options, Unusable, collect};
use kernel::AttachType;
use terminal::COLUMNS;
use terminal::exit::{self, Ends};
use terminal::gathered;

use self::table::text;
use crate::cli::{Format, ListArgs};
use crate::throttles::{Throttles, throttles};
use crate::waiting::{self, Here};
use crate::words::{print, warn};

pub(crate) fn run(args: &ListArgs) -> Result<()> {
    let options = Options {
        attach_types: vec![AttachType::INET_INGRESS, AttachType::INET_EGRESS, AttachType::SOCK_OPS],
        ..Options::default()
    };
    let snapshot = collect(&options).map_err(|error| as_an_audit(&error))?;
    let mut found = throttles(&snapshot);
    let here = Here::look();
    found.rows.extend(waiting::rows(&snapshot, &here));
    found.rows.extend(waiting::detached(&snapshot, &here, &found.rows));
    match args.format {
        Format::Json => print(&(serde_json::to_string_pretty(&found)? + "\n"))?,
        Format::Text if args.wide => print(&text(&found, None))?,
        Format::Text => print(&text(&found, Some(width())))?,
    }
    let (warnings, result) = ending(&found);
    warnings.iter().map(String::as_str).for_each(warn);
    Ok(result?)
}

/// Ends the program with the exit status of an audit.
fn as_an_audit(error: &anyhow::Error) -> Ends {
    match error.downcast_ref::<Unusable>() {
        Some(error) => exit::usage(error.to_string()),
        None => exit::as_an_audit(error),
    }
}

/// Returns the warnings beside the table, and the exit status, which tells whether the table is complete.
fn ending(found: &Throttles) -> (Vec<String>, Result<(), Ends>) {
    let mut warnings = Vec::new();
    if found.rows.iter().any(|row| row.detached) {
        let what = "what is detached limits nothing: 'chadthrottle rearm ID' arms it again, 'chadthrottle rm ID' ends it";
        warnings.push(what.to_owned());
    }
    if found.leaked > 0 {
        warnings.push(format!(
            "leaks: {}; 'chadthrottle-audit scan' says which and why, 'chadthrottle-audit clean' \
             removes them",
            found.leaked
        ));
    }
    warnings.extend(
        gathered(found.gaps.iter().map(|gap| (&*gap.what, &*gap.why)))
            .iter()
            .map(|line| format!("not seen: {line}")),
    );
    let result = if found.gaps.is_empty() {
        Ok(())
    } else if found.rows.is_empty() {
        Err(exit::incomplete("whether there are throttles could not be seen"))
    } else {
        Err(exit::incomplete("not everything could be seen, so there may be more throttles"))
    };
    (warnings, result)
}

/// Returns the number of columns of the terminal.
fn width() -> usize {
    comfy_table::Table::new().width().unwrap_or(COLUMNS).into()
}

#[cfg(test)]
mod tests {
    use auditor::facts::Note;

    use super::*;
    use crate::words::exit_status;

    /// Returns how a list ends: the exit status, the message, and the first words of each warning.
    fn ended(detached: bool, leaked: usize, gaps: usize, rows: usize) -> (u8, String, Vec<String>) {
        let active = include_str!("../../auditor/tests/snapshots-in/active.json");
        let mut found = throttles(&serde_json::from_str(active).unwrap());
        assert!(!found.rows.is_empty() && found.gaps.is_empty());
        found.rows.truncate(rows);
        found.rows.iter_mut().for_each(|row| row.detached = detached);
        found.leaked = leaked;
        let gap =
            |nth| Note { what: format!("/{nth}"), why: "no right to (open: EACCES)".to_owned() };
        found.gaps = (0..gaps).map(gap).collect();
        let (warnings, result) = ending(&found);
        let begin = |text: &String| text.split_once(':').unwrap().0.to_owned();
        let error = result.err().map(anyhow::Error::from);
        let status = error.as_ref().map_or(0, exit_status);
        let message = error.map(|error| error.to_string()).unwrap_or_default();
        (status, message, warnings.iter().map(begin).collect())
    }

    #[test]
    fn a_list_ends_with_2_whenever_something_was_not_seen_and_says_everything_else_as_well() {
        let more = "not everything could be seen, so there may be more throttles";
        let whether = "whether there are throttles could not be seen";
        let (detached, leaks, unseen) = ("what is detached limits nothing", "leaks", "not seen");
        let cases = [
            (false, 0, 0, 0, 0, "", vec![]),
            (false, 0, 0, 1, 0, "", vec![]),
            (true, 0, 0, 1, 0, "", vec![detached]),
            (false, 2, 0, 1, 0, "", vec![leaks]),
            (false, 0, 1, 0, 2, whether, vec![unseen]),
            (false, 0, 1, 1, 2, more, vec![unseen]),
            // Warnings with the same reason share one line.
            (false, 0, 2, 1, 2, more, vec![unseen]),
            (true, 1, 2, 1, 2, more, vec![detached, leaks, unseen]),
        ];
        for (is_detached, leaked, gaps, rows, status, message, warnings) in cases {
            let ended = ended(is_detached, leaked, gaps, rows);
            assert_eq!((ended.0, &*ended.1), (status, message), "{ended:?}");
            assert_eq!(ended.2, warnings);
        }
    }
}
