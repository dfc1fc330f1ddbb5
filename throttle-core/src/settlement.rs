//! What became of what dead owners left.

use std::path::PathBuf;

use bpf::queue::Swept;

use crate::error::Error;

/// The result of settling the ledger.
#[derive(Debug)]
pub struct Settlement {
    /// Removed throttles of dead owners: name and cgroup.
    pub removed: Vec<(String, PathBuf)>,
    /// Throttles of dead owners that had left only their ledger entries: name and cgroup.
    pub forgotten: Vec<(String, PathBuf)>,
    /// Files that are no ledger entries. Settling leaves them alone.
    pub unreadable: Vec<(PathBuf, String)>,
    /// Entries that could not be settled, with the error. The next start tries again.
    pub failed: Vec<(String, Error)>,
    /// The swept queues of dead owners in this network namespace. An error if the devices could not be listed.
    pub queues: kernel::Result<Swept>,
}

impl Default for Settlement {
    fn default() -> Self {
        Self {
            removed: Vec::new(),
            forgotten: Vec::new(),
            unreadable: Vec::new(),
            failed: Vec::new(),
            queues: Ok(Swept::default()),
        }
    }
}
