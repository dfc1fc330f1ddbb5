//! Scratch cgroups.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// What the names of all scratch cgroups begin with.
pub const PREFIX: &str = "chadtest";

/// A cgroup of the test's own directly below the cgroup2 mount, removed with everything below it when
/// this is dropped.
#[derive(Debug)]
pub struct ScratchCgroup {
    path: PathBuf,
}

impl ScratchCgroup {
    /// Makes one.
    ///
    /// # Panics
    /// When it cannot be made: without root, or without cgroup2.
    #[must_use]
    pub fn new(label: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mount = bpf::cgroup::cgroup2_mount().expect("cgroup2 is mounted");
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = mount.join(format!("{PREFIX}-{}-{count}-{label}", std::process::id()));
        fs::create_dir(&path)
            .unwrap_or_else(|error| panic!("{}: {error}; run as root", path.display()));
        Self { path }
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its path relative to the cgroup2 mount, beginning with `/`.
    ///
    /// # Panics
    /// Never: it was made directly below the mount.
    pub fn relative(&self) -> PathBuf {
        Path::new("/").join(self.path.file_name().expect("a scratch cgroup has a name"))
    }

    /// Makes a cgroup below it, with any name, and returns its directory.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn child(&self, name: impl AsRef<Path>) -> PathBuf {
        let path = self.path.join(name);
        fs::create_dir_all(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }

    /// Moves this process in; sockets that it makes from now on belong to the cgroup, until the guard is
    /// dropped.
    ///
    /// # Panics
    /// When it cannot move.
    pub fn enter(&self) -> Entered {
        enter(&self.path)
    }
}

impl Drop for ScratchCgroup {
    fn drop(&mut self) {
        // The processes of a test end a moment after it has waited for them.
        let deadline = Instant::now() + Duration::from_secs(5);
        while let Err(error) = remove_tree(&self.path) {
            if Instant::now() > deadline {
                eprintln!("{} stays behind: {error}", self.path.display());
                return;
            }
            sleep(Duration::from_millis(10));
        }
    }
}

/// Removes a cgroup and everything below it.
///
/// # Errors
/// `EBUSY` while a process lives in one of them.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let listing = match fs::read_dir(path) {
        Ok(listing) => listing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in listing {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// This process is in another cgroup; dropping this moves it back.
#[must_use = "dropping this moves the process back at once"]
#[derive(Debug)]
pub struct Entered {
    back: PathBuf,
}

/// Moves this process into a cgroup.
///
/// # Panics
/// When it cannot move.
pub fn enter(cgroup: &Path) -> Entered {
    let mount = bpf::cgroup::cgroup2_mount().expect("cgroup2 is mounted");
    let own = bpf::cgroup::of_process(std::process::id()).expect("this process has a cgroup");
    fs::write(cgroup.join("cgroup.procs"), "0")
        .unwrap_or_else(|error| panic!("{}: {error}", cgroup.display()));
    Entered { back: bpf::cgroup::below(&mount, &own) }
}

impl Drop for Entered {
    fn drop(&mut self) {
        if let Err(error) = fs::write(self.back.join("cgroup.procs"), "0") {
            eprintln!("{}: {error}", self.back.display());
        }
    }
}
