//! Reads from the ledger which throttles are meant to stay.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use bpf::ledger::Stage;
use throttle_core::files::{FileSystem, Files};
use throttle_core::ledger::LedgerDir;

use super::system::Recorded;

/// A ledger's files.
#[derive(Debug)]
pub(super) struct Records {
    files: Rc<dyn Files>,
    folder: PathBuf,
    boot_id: String,
}

impl Records {
    /// Reads those in that folder, without entries of other boots.
    pub(super) fn new(files: Rc<dyn Files>, folder: &Path, boot_id: &str) -> Self {
        Self { files, folder: folder.to_owned(), boot_id: boot_id.to_owned() }
    }

    /// Reads those of this host.
    pub(super) fn of_this_host() -> Result<Self, String> {
        let boot_id = kernel::process::boot_id().map_err(|error| error.to_string())?;
        Ok(Self::new(Rc::new(FileSystem), Path::new(bpf::ledger::DEFAULT_DIR), &boot_id))
    }

    /// Returns the files and their folder.
    pub(super) fn place(&self) -> (Rc<dyn Files>, PathBuf) {
        (Rc::clone(&self.files), self.folder.clone())
    }

    /// Returns the throttles that are meant to outlive their owners.
    ///
    /// # Panics
    /// Panics if the ledger cannot be read. Nobody else uses it.
    pub(super) fn recorded(&self) -> Vec<Recorded> {
        let ledger = LedgerDir::on(Rc::clone(&self.files), &self.folder).read();
        let ledger = ledger.unwrap_or_else(|error| panic!("the ledger cannot be read: {error}"));
        let entries = ledger.entries.into_iter().map(|(_, entry)| entry);
        entries
            .filter(|entry| entry.owner.boot_id == self.boot_id)
            .filter(|entry| entry.persist && entry.stage == Stage::Attached)
            .map(|entry| Recorded {
                name: entry.throttle,
                cgroup: entry.cgroup_path,
                cgroup_id: entry.cgroup_id,
                programs: entry.attachments.iter().map(|it| it.program_id).collect(),
            })
            .collect()
    }
}
