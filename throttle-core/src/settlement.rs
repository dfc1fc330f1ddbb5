//! What became of what dead owners left.

use std::path::PathBuf;

use bpf::queue::Swept;

use crate::error::Error;

/// What was found in the ledger, and what became of it.
#[derive(Debug)]
pub struct Settlement {
    /// Throttles of dead owners that were removed: name and cgroup.
    pub removed: Vec<(String, PathBuf)>,
    /// Throttles that had left nothing but their records: name and cgroup.
    pub forgotten: Vec<(String, PathBuf)>,
    /// Files that are not entries. They are left alone.
    pub unreadable: Vec<(PathBuf, String)>,
    /// Entries that could not be settled; the next start tries again.
    pub failed: Vec<(String, Error)>,
    /// Queues of dead owners in this network namespace; an error where the devices could not be listed.
    pub queues: kernel::Result<Swept>,
}
