//! The ledger's file operations as a trait. The test harness keeps a ledger in memory, and can end a process or fail a
//! call at any operation.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// A held lock. Dropping it, or the death of the process, releases it.
pub trait Lock: Debug {}

/// File operations. Errors are those of the file system.
pub trait Files: Debug {
    /// Tells whether anything exists at a path.
    fn exists(&self, path: &Path) -> bool;
    /// Creates a folder and its missing parents.
    fn make_folder(&self, folder: &Path) -> io::Result<()>;
    /// Waits for the exclusive lock on a file. Creates the file if it is missing.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>>;
    /// Lists the files of a folder.
    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>>;
    /// Reads a file's contents.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Writes a file, and replaces what was there.
    fn write(&self, path: &Path, contents: &[u8]) -> io::Result<()>;
    /// Renames a file atomically.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Writes a new file that only its owner can read. Fails if the path exists.
    fn write_secret(&self, path: &Path, contents: &[u8]) -> io::Result<()>;
    /// Creates a hard link to a file. Fails if the path exists.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Returns a random number that nobody can guess.
    fn random(&self) -> io::Result<u64>;
}

/// The host's file system.
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
