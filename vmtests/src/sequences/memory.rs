//! A file system in memory.

use std::cell::{Cell, RefCell};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use throttle_core::files::{Files, Lock};

/// Files and folders. All users are in one thread, so nobody can wait for a lock. A lock that is taken means a bug.
#[derive(Debug, Default)]
pub struct MemoryFiles {
    files: RefCell<BTreeMap<PathBuf, Vec<u8>>>,
    folders: RefCell<BTreeSet<PathBuf>>,
    locked: Rc<Cell<bool>>,
    last_random: Cell<u64>,
}

#[derive(Debug)]
struct MemoryLock(Rc<Cell<bool>>);

impl Lock for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl MemoryFiles {
    /// Adds a file. Fails if the file exists.
    fn add(&self, path: &Path, contents: Vec<u8>) -> io::Result<()> {
        match self.files.borrow_mut().entry(path.to_owned()) {
            Entry::Occupied(_) => Err(io::ErrorKind::AlreadyExists.into()),
            Entry::Vacant(free) => {
                free.insert(contents);
                Ok(())
            }
        }
    }
}

impl Files for MemoryFiles {
    fn exists(&self, path: &Path) -> bool {
        self.folders.borrow().contains(path) || self.files.borrow().contains_key(path)
    }

    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        self.folders.borrow_mut().insert(folder.to_owned());
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        if self.locked.replace(true) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.files.borrow_mut().entry(path.to_owned()).or_default();
        Ok(Box::new(MemoryLock(Rc::clone(&self.locked))))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        if !self.folders.borrow().contains(folder) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let files = self.files.borrow();
        Ok(files.keys().filter(|path| path.parent() == Some(folder)).cloned().collect())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.files.borrow().get(path).cloned().ok_or(io::ErrorKind::NotFound.into())
    }

    fn write(&self, path: &Path, contents: &[u8]) -> io::Result<()> {
        self.files.borrow_mut().insert(path.to_owned(), contents.to_owned());
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = self.files.borrow_mut();
        let contents = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), contents);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.files.borrow_mut().remove(path).map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn write_secret(&self, path: &Path, contents: &[u8]) -> io::Result<()> {
        self.add(path, contents.to_owned())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let contents = self.read(from)?;
        self.add(to, contents)
    }

    fn random(&self) -> io::Result<u64> {
        let next = self.last_random.get() + 1;
        self.last_random.set(next);
        Ok(next)
    }
}
