//! `chadthrottle rm`: ends pinned throttles.

use std::os::unix::ffi::OsStrExt;

use anyhow::{Result, bail};
use auditor::escape::escape_bytes;
use bpf::LinuxBpf;
use throttle_core::ledger::LedgerDir;
use throttle_core::settle::remove_recorded;

use crate::cli::RmArgs;
use crate::words::{print, say};

pub(crate) fn run(args: &RmArgs) -> Result<()> {
    let kernel = LinuxBpf::new()?;
    let boot_id = bpf::boot_id()?;
    let ledger = LedgerDir::new(bpf::ledger::DEFAULT_DIR);
    let mut errors = Vec::new();
    for id in &args.ids {
        match remove_recorded(&kernel, &ledger, id, &boot_id) {
            Ok(entry) => {
                let cgroup = escape_bytes(entry.cgroup_path.as_os_str().as_bytes());
                print(&format!("removed {id} from {cgroup}\n"))?;
            }
            Err(error) => errors.push(error),
        }
    }
    match errors.len() {
        0 => Ok(()),
        1 => Err(errors.remove(0).into()),
        failed => {
            for error in &errors {
                say(&error.to_string());
            }
            bail!("{failed} of {} throttles could not be removed", args.ids.len())
        }
    }
}
