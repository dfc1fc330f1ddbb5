//! `chadthrottle rm`: ends pinned throttles.

use std::os::unix::ffi::OsStrExt;

use anyhow::Result;
use auditor::escape::escape_bytes;
use bpf::LinuxBpf;
use throttle_core::Error;
use throttle_core::ledger::LedgerDir;
use throttle_core::settle::{RemovedRecord, remove_recorded};

use crate::cli::RmArgs;
use crate::words::{once, print};

pub(crate) fn run(args: &RmArgs) -> Result<()> {
    let kernel = LinuxBpf::new()?;
    let boot_id = bpf::boot_id()?;
    let ledger = LedgerDir::new(bpf::ledger::DEFAULT_DIR);
    let mut errors = Vec::new();
    for id in once(&args.ids) {
        match remove_recorded(&kernel, &ledger, id, &boot_id) {
            Ok(removed) => print(&said(id, &removed))?,
            Err(error) => errors.push(error),
        }
    }
    Ok(Error::collect(errors)?)
}

fn said(id: &str, removed: &RemovedRecord) -> String {
    let cgroup = escape_bytes(removed.entry.cgroup_path.as_os_str().as_bytes());
    if removed.was_only_record {
        format!("removed the record of {id} on {cgroup}: nothing else of it was left\n")
    } else {
        format!("removed {id} from {cgroup}\n")
    }
}
