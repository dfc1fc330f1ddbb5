//! Writing the ledger. [`bpf::ledger`] defines the format and reads it.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bpf::ledger::{Entry, Ledger, parse};

use crate::error::{Action, Error, Result};
use crate::files::{FileSystem, Files, Lock};

/// The suffix of files that are still being written.
const DRAFT: &str = ".json.draft";

/// The folder of a ledger. The first write creates it.
#[derive(Debug, Clone)]
pub struct LedgerDir {
    dir: PathBuf,
    files: Rc<dyn Files>,
}

/// The lock on a ledger. Dropping it, or the death of the process, releases it.
#[must_use = "dropping this lets others in"]
#[derive(Debug)]
pub struct Locked {
    _lock: Box<dyn Lock>,
}

/// Tells whether two entries belong to one throttle. A load serves each place only once, so owner, cgroup and programs
/// identify a throttle. Former attachments do not count, because any start may have removed them.
fn is_same(found: &Entry, entry: &Entry) -> bool {
    let programs = |entry: &Entry| -> Vec<_> {
        let own = entry.attachments.iter().filter(|it| it.former_cgroup.is_none());
        own.map(|it| it.program_id).collect()
    };
    found.owner == entry.owner
        && found.cgroup_id == entry.cgroup_id
        && programs(found) == programs(entry)
}

impl LedgerDir {
    /// Creates the value for a ledger in this folder.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self::on(Rc::new(FileSystem), dir)
    }

    /// Creates the value for a ledger in this folder of other files than the host's.
    pub fn on(files: Rc<dyn Files>, dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), files }
    }

    /// Tells whether the folder exists.
    pub fn exists(&self) -> bool {
        self.files.exists(&self.dir)
    }

    /// Locks the ledger, so that no other process names or settles throttles. Waits for the current holder. Owners hold
    /// the lock only for moments.
    ///
    /// # Errors
    /// When the folder or the lock file cannot be created, which needs root.
    pub fn lock(&self) -> Result<Locked> {
        let made = self.files.make_folder(&self.dir);
        made.map_err(|source| fail(Action::MakeLedger, &self.dir, source))?;
        let path = self.dir.join("lock");
        let lock = self.files.lock(&path).map_err(|source| fail(Action::Lock, &path, source))?;
        Ok(Locked { _lock: lock })
    }

    /// Reads every entry, and every file that is not one. A missing folder counts as an empty ledger.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn read(&self) -> Result<Ledger> {
        let listed = match self.files.list(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            listed => listed.map_err(|source| fail(Action::List, &self.dir, source))?,
        };
        let files = listed.into_iter().filter(|path| bpf::ledger::is_entry(path));
        Ok(Ledger::collect(files.map(|path| (self.files.read(&path), path))))
    }

    /// Returns a name for a new throttle: the lowest number that neither the ledger nor `is_taken` knows. The name is
    /// valid only while the caller holds the lock.
    pub fn free_name(&self, _lock: &Locked, is_taken: impl Fn(&str) -> bool) -> String {
        let mut number: u64 = 1;
        loop {
            let name = number.to_string();
            // A file with that name belongs to somebody, even if it is unreadable.
            if !self.files.exists(&self.path(&name)) && !is_taken(&name) {
                return name;
            }
            number += 1;
        }
    }

    /// Writes an entry atomically. A reader sees the old entry or the new one. The caller holds the lock.
    ///
    /// # Errors
    /// When the entry cannot be written. The old entry then stays.
    pub fn write(&self, _lock: &Locked, entry: &Entry) -> Result<()> {
        let path = self.path(&entry.throttle);
        let draft = self.dir.join(format!(".{}{DRAFT}", entry.throttle));
        let write = || -> io::Result<()> {
            let mut text = serde_json::to_vec_pretty(entry)?;
            text.push(b'\n');
            self.files.write(&draft, &text)?;
            self.files.rename(&draft, &path)
        };
        write().map_err(|source| fail(Action::Write, &path, source))
    }

    /// Tells whether the ledger still has this throttle's entry. Somebody may have removed the entry, and another
    /// throttle may have taken its name.
    ///
    /// A damaged file under the throttle's name counts as its entry.
    ///
    /// # Errors
    /// When the file cannot be read. It may then be anybody's.
    pub fn has(&self, _lock: &Locked, entry: &Entry) -> Result<bool> {
        let text = self.text_of(entry)?;
        Ok(text.is_some_and(|text| parse(&text).map_or(true, |found| is_same(&found, entry))))
    }

    /// Returns the throttle's current entry. `None` if somebody has removed it, or if it is damaged.
    ///
    /// # Errors
    /// When the file cannot be read. It may then be anybody's.
    pub fn find(&self, _lock: &Locked, entry: &Entry) -> Result<Option<Entry>> {
        let found = self.text_of(entry)?.and_then(|text| parse(&text).ok());
        Ok(found.filter(|found| is_same(found, entry)))
    }

    fn text_of(&self, entry: &Entry) -> Result<Option<Vec<u8>>> {
        let path = self.path(&entry.throttle);
        match self.files.read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some).map_err(|source| fail(Action::Read, &path, source)),
        }
    }

    /// Removes the drafts of killed writers. Nobody writes while the caller holds the lock.
    ///
    /// # Errors
    /// When the folder cannot be listed, or a file cannot be removed.
    pub fn sweep(&self, _lock: &Locked) -> Result<()> {
        let listed = self.files.list(&self.dir);
        for path in listed.map_err(|source| fail(Action::List, &self.dir, source))? {
            let name = path.file_name().unwrap_or_default();
            if name.as_encoded_bytes().ends_with(DRAFT.as_bytes()) {
                self.remove(&path)?;
            }
        }
        Ok(())
    }

    /// Removes an entry. Removing an entry that is already gone succeeds.
    ///
    /// # Errors
    /// When the entry cannot be removed.
    pub fn remove(&self, path: &Path) -> Result<()> {
        match self.files.remove(path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(fail(Action::Remove, path, source))
            }
            _ => Ok(()),
        }
    }

    /// Returns the path of a throttle's file.
    pub fn path(&self, throttle: &str) -> PathBuf {
        self.dir.join(format!("{throttle}.json"))
    }
}

pub(crate) fn fail(action: Action, path: &Path, error: io::Error) -> Error {
    Error::Ledger { action, path: path.to_owned(), error }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
