//! The file operations that the ledger needs, as a trait, so that the test harness can keep a ledger in memory
//! and end a process, or make a call fail, at any of them.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// A lock that is held until this is dropped, or the process dies.
pub trait Lock: Debug {}

/// Operations on files. The errors are the file system's.
pub trait Files: Debug {
    /// Whether there is anything at that path.
    fn exists(&self, path: &Path) -> bool;
    /// Makes a folder, and those above it.
    fn make_folder(&self, folder: &Path) -> io::Result<()>;
    /// Waits for the exclusive lock on a file, which is made if it is missing.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>>;
    /// The files of a folder.
    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>>;
    /// A file's contents.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Writes a file, in place of what was there.
    fn write(&self, path: &Path, contents: &[u8]) -> io::Result<()>;
    /// Gives a file another's name and place, in one piece.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Writes a new file that only its owner can read; fails where there is one.
    fn write_secret(&self, path: &Path, contents: &[u8]) -> io::Result<()>;
    /// Gives a file a second name; fails where that is taken.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes up a number that nobody can guess.
    fn random(&self) -> io::Result<u64>;
}

/// The file system.
#[derive(Debug, Clone, Copy)]
pub struct FileSystem;

impl Lock for Flock<File> {}

impl Files for FileSystem {
    fn exists(&self, path: &Path) -> bool {
        path.symlink_metadata().is_ok()
    }

    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(folder)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let mut file = File::options().create(true).truncate(false).write(true).open(path)?;
        loop {
            match Flock::lock(file, FlockArg::LockExclusive) {
                Ok(lock) => return Ok(Box::new(lock)),
                Err((again, Errno::EINTR)) => file = again,
                Err((_, errno)) => return Err(errno.into()),
            }
        }
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        fs::read_dir(folder)?.map(|file| Ok(file?.path())).collect()
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn write(&self, path: &Path, contents: &[u8]) -> io::Result<()> {
        fs::write(path, contents)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn write_secret(&self, path: &Path, contents: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(contents)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn random(&self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }
}
