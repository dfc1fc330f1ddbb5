//! Who made a throttle, and whether they still live.

use serde::{Deserialize, Serialize};

/// The process that loaded a program, told apart from later processes with the same pid.
///
/// It stands in the program's `bpf_metadata_*` variables, so that the auditor needs nothing but the
/// kernel to learn it, and in the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Owner {
    /// The pid, in the pid namespace `pid_namespace`.
    pub pid: u32,
    /// When the process started: field 22 of `/proc/PID/stat`, in clock ticks since boot.
    pub start_time: u64,
    /// The inode number of the pid namespace that `pid` was read in.
    pub pid_namespace: u32,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// The version of chadthrottle.
    pub version: String,
}
