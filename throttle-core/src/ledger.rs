//! Writing the ledger. Its format, and how it is read, is [`bpf::ledger`].

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bpf::ledger::{Entry, Ledger, parse};

use crate::error::{Action, Error, Result};
use crate::files::{FileSystem, Files, Lock};

/// What the names of files end in that are being written.
const DRAFT: &str = ".json.draft";

/// The folder of a ledger. Nothing is made before the first entry is written.
#[derive(Debug, Clone)]
pub struct LedgerDir {
    dir: PathBuf,
    files: Rc<dyn Files>,
}

/// The ledger is this process's alone until this is dropped (or the process dies).
#[must_use = "dropping this lets others in"]
#[derive(Debug)]
pub struct Locked {
    _lock: Box<dyn Lock>,
}

/// Whether two entries are of one throttle. One load serves many cgroups, but each place once: this is as good as a
/// name of its own. What it was before it was armed again, any start may have let go of.
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
    /// The ledger in that folder.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self::on(Rc::new(FileSystem), dir)
    }

    /// The ledger in that folder of other files than the file system's.
    pub fn on(files: Rc<dyn Files>, dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), files }
    }

    /// Whether there is a folder at all.
    pub fn exists(&self) -> bool {
        self.files.exists(&self.dir)
    }

    /// Waits until no other process is naming or settling throttles, and keeps them out. Owners hold this
    /// for moments only.
    ///
    /// # Errors
    /// When the folder or the lock file cannot be made: without root.
    pub fn lock(&self) -> Result<Locked> {
        let made = self.files.make_folder(&self.dir);
        made.map_err(|source| fail(Action::MakeLedger, &self.dir, source))?;
        let path = self.dir.join("lock");
        let lock = self.files.lock(&path).map_err(|source| fail(Action::Lock, &path, source))?;
        Ok(Locked { _lock: lock })
    }

    /// Every entry, and every file that is none. A folder that does not exist is an empty ledger.
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

    /// A name for a new throttle: the lowest number that neither the ledger nor `is_taken` knows. Only for
    /// who holds the lock, and only until they let go of it.
    pub fn free_name(&self, _lock: &Locked, is_taken: impl Fn(&str) -> bool) -> String {
        let mut number: u64 = 1;
        loop {
            let name = number.to_string();
            // A file under that name, readable or not, is somebody's.
            if !self.files.exists(&self.path(&name)) && !is_taken(&name) {
                return name;
            }
            number += 1;
        }
    }

    /// Writes an entry, in one piece: a reader sees the old one or the new one. Only for who holds the lock.
    ///
    /// # Errors
    /// When it cannot be written; the old one stays then.
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

    /// Whether an entry is still the one that stands in the ledger: somebody may have removed it since, and
    /// somebody else may have taken its name. What is no entry under its name is taken for it: it was damaged.
    ///
    /// # Errors
    /// When the file cannot be read: then it may be anybody's.
    pub fn has(&self, _lock: &Locked, entry: &Entry) -> Result<bool> {
        let text = self.text_of(entry)?;
        Ok(text.is_some_and(|text| parse(&text).map_or(true, |found| is_same(&found, entry))))
    }

    /// An entry as it stands in the ledger now. `None` where somebody has removed it, or it was damaged.
    ///
    /// # Errors
    /// When the file cannot be read: then it may be anybody's.
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

    /// Removes what writers that were killed half way have left: nobody is writing while this one holds the
    /// lock.
    ///
    /// # Errors
    /// When the folder cannot be listed or a file not removed.
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

    /// Removes an entry. One that is gone already is what was asked for.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self, path: &Path) -> Result<()> {
        match self.files.remove(path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(fail(Action::Remove, path, source))
            }
            _ => Ok(()),
        }
    }

    /// The file of a throttle.
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
