//! `chadthrottle rm`: ends pinned throttles.

use std::os::unix::ffi::OsStrExt;

use anyhow::Result;
use auditor::escape::escape_bytes;
use bpf::LinuxBpf;
use throttle_core::Error;
use throttle_core::ledger::LedgerDir;
use throttle_core::settle::remove_recorded;

use crate::cli::RmArgs;
use crate::words::print;

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
        _ => Err(Error::Several(errors).into()),
    }
}
