//! `chadthrottle rm` ends pinned throttles.

use std::os::unix::ffi::OsStrExt;

use anyhow::Result;
use bpf::LinuxBpf;
use terminal::escape_bytes;
use throttle_core::Error;
use throttle_core::ledger::LedgerDir;
use throttle_core::settle::{RemovedRecord, remove_recorded};

use crate::cli::RmArgs;
use crate::words::{once, print};

pub(crate) fn run(args: &RmArgs) -> Result<()> {
    let kernel = LinuxBpf::new()?;
    let boot_id = kernel::process::boot_id()?;
    let ledger = LedgerDir::new(bpf::ledger::DEFAULT_DIR);
    let remove = |id: &str| remove_recorded(&kernel, &ledger, id, &boot_id);
    remove_each(&once(&args.ids), remove, print)
}

/// Ends each throttle, even if another one fails or printing fails. It collects all failures in one error.
fn remove_each(
    ids: &[&String],
    remove: impl Fn(&str) -> throttle_core::Result<RemovedRecord>,
    print: impl Fn(&str) -> Result<()>,
) -> Result<()> {
    let (mut errors, mut printed) = (Vec::new(), Ok(()));
    for id in ids {
        match remove(id) {
            Ok(removed) => printed = printed.and(print(&said(id, &removed))),
            Err(error) => errors.push(error),
        }
    }
    Error::collect(errors)?;
    printed
}

fn said(id: &str, removed: &RemovedRecord) -> String {
    let cgroup = escape_bytes(removed.entry.cgroup_path.as_os_str().as_bytes());
    if removed.was_only_record {
        format!("removed the record of {id} on {cgroup}: nothing else of it was left\n")
    } else {
        format!("removed {id} from {cgroup}\n")
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use auditor::facts::Snapshot;

    use super::*;
    use crate::words::exit_status;

    fn removed(id: &str) -> throttle_core::Result<RemovedRecord> {
        let waiting = include_str!("../../auditor/tests/snapshots-in/waiting.json");
        let mut snapshot: Snapshot = serde_json::from_str(waiting).unwrap();
        let entry = snapshot.looks[0].ledger.remove(0);
        match id {
            "contended" => Err(Error::Contended("the list".to_owned())),
            "missing" | "gone" => Err(Error::NoSuchRecord(id.to_owned())),
            _ => Ok(RemovedRecord { entry, was_only_record: id == "record" }),
        }
    }

    /// Returns what ending these throttles prints, the exit status, and the message.
    fn ended(ids: &str, is_full: bool) -> (String, u8, String) {
        let ids: Vec<_> = ids.split(' ').map(str::to_owned).collect();
        let printed = RefCell::new(String::new());
        let print = |text: &str| {
            printed.borrow_mut().push_str(
                text.split_once(" on ").unwrap_or_else(|| text.split_once(" from ").unwrap()).0,
            );
            printed.borrow_mut().push(';');
            if is_full { Err(anyhow::anyhow!("cannot write")) } else { Ok(()) }
        };
        let result = remove_each(&ids.iter().collect::<Vec<_>>(), removed, print);
        let status = result.as_ref().err().map_or(0, exit_status);
        let message = result.err().map(|error| error.to_string()).unwrap_or_default();
        (printed.into_inner(), status, message)
    }

    #[test]
    fn each_is_ended_and_every_one_that_could_not_be_is_told_of() {
        let contended = removed("contended").unwrap_err().to_string();
        let missing = removed("missing").unwrap_err().to_string();
        let both = Error::NoSuchRecords(vec!["missing".to_owned(), "gone".to_owned()]).to_string();
        let cases = [
            ("1", false, "removed 1;", 0, vec![]),
            ("1 record", false, "removed 1;removed the record of record;", 0, vec![]),
            ("contended 1", false, "removed 1;", 1, vec![&contended]),
            ("1 contended", false, "removed 1;", 1, vec![&contended]),
            ("missing", false, "", 64, vec![&missing]),
            ("missing 1", false, "removed 1;", 64, vec![&missing]),
            ("missing gone", false, "", 64, vec![&both]),
            ("contended missing", false, "", 1, vec![&contended, &missing]),
            ("missing 1 contended 2", false, "removed 1;removed 2;", 1, vec![&contended, &missing]),
            // A failure to print does not keep a throttle from being ended.
            ("1 2", true, "removed 1;removed 2;", 70, vec![]),
            ("1 contended 2", true, "removed 1;removed 2;", 1, vec![&contended]),
        ];
        for (ids, is_full, printed, status, told) in cases {
            let ended = ended(ids, is_full);
            assert_eq!((&*ended.0, ended.1), (printed, status), "{ids}");
            assert!(told.iter().all(|it| ended.2.contains(*it)), "{ids}: {}", ended.2);
        }
    }
}
