//! Scratch cgroups.

use std::ffi::CString;
use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

/// The prefix of the names of all scratch cgroups.
pub const PREFIX: &str = "chadtest";

/// A private cgroup directly below the cgroup2 mount. Dropping this removes it with everything below it. If the test
/// itself is killed, a watcher kills the processes in the cgroup and removes it.
#[derive(Debug)]
pub struct ScratchCgroup {
    path: PathBuf,
    /// Ends with this process and then removes the cgroup.
    watcher: Option<Child>,
}

/// The scratch cgroups that this process has made.
static MADE: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Tells whether this process made the cgroup as a scratch cgroup.
pub fn is_scratch(path: &Path) -> bool {
    MADE.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|made| made == path)
}

/// Waits until the test has ended. It does nothing if the test writes a word first.
const WATCHER: &str = r#"read -r word && exit
echo 1 >"$1/cgroup.kill"
for try in $(seq 50); do
	find "$1" -depth -type d -exec rmdir {} + 2>/dev/null
	[ -d "$1" ] || exit 0
	sleep 0.2
done"#;

fn watch(path: &Path) -> io::Result<Child> {
    let mut watcher = Command::new("sh");
    watcher.args(["-c", WATCHER, "watcher"]).arg(path);
    // The watcher has its own process group, because Ctrl-C is for the test only.
    watcher.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    watcher.spawn()
}

impl ScratchCgroup {
    /// Creates a scratch cgroup.
    ///
    /// # Panics
    /// Panics without root or without cgroup2.
    #[must_use]
    pub fn new(label: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mount = kernel::cgroup::cgroup2_mount().expect("cgroup2 is mounted");
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = mount.join(format!("{PREFIX}-{}-{count}-{label}", std::process::id()));
        fs::create_dir(&path)
            .unwrap_or_else(|error| panic!("{}: {error}; run as root", path.display()));
        MADE.lock().unwrap_or_else(PoisonError::into_inner).push(path.clone());
        // A virtual machine disappears with its cgroups, and an exec is slow there.
        let watcher = std::env::var_os("VMTESTS_KERNEL").is_none().then(|| watch(&path));
        let watcher = watcher.map(|started| started.expect("sh starts"));
        Self { path, watcher }
    }

    /// Returns its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns its path relative to the cgroup2 mount, with a leading `/`.
    ///
    /// # Panics
    /// Never panics, because the cgroup is directly below the mount.
    pub fn relative(&self) -> PathBuf {
        Path::new("/").join(self.path.file_name().expect("a scratch cgroup has a name"))
    }

    /// Creates a cgroup below it with any name, and returns its directory.
    ///
    /// # Panics
    /// Panics if the cgroup cannot be created.
    pub fn child(&self, name: impl AsRef<Path>) -> PathBuf {
        let path = self.path.join(name);
        fs::create_dir_all(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }

    /// Moves this process into the cgroup. Its new sockets belong to the cgroup until the guard is dropped.
    ///
    /// # Panics
    /// Panics if the process cannot be moved.
    pub fn enter(&self) -> Entered {
        enter(&self.path)
    }
}

impl Drop for ScratchCgroup {
    fn drop(&mut self) {
        self.remove();
        let Some(watcher) = &mut self.watcher else { return };
        if let Some(mut word) = watcher.stdin.take() {
            // A watcher that has ended already needs no word.
            let _ = word.write_all(b"done\n");
        }
        let _ = watcher.wait();
    }
}

impl ScratchCgroup {
    fn remove(&self) {
        // The processes of a test end a moment after the test has waited for them.
        let deadline = Instant::now() + Duration::from_secs(30);
        while let Err(error) = remove_tree(&self.path) {
            if Instant::now() > deadline {
                eprintln!("{} stays behind: {error}", self.path.display());
                return;
            }
            sleep(Duration::from_millis(10));
        }
    }
}

/// Removes a cgroup and everything below it, however deep. A whole path may be longer than the kernel accepts. So this
/// opens and removes each cgroup from its parent, and holds two descriptors at a time.
///
/// # Errors
/// `EBUSY` while a process lives in one of them.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let mut here = open(parent, FOLDER, Mode::empty())?;
    // For each cgroup from the top to `here`, the names of the cgroups to remove in it.
    let mut levels = vec![vec![CString::new(name.as_bytes())?]];
    while let Some(names) = levels.last_mut() {
        let Some(name) = names.last() else {
            levels.pop();
            if let Some(name) = levels.last_mut().and_then(Vec::pop) {
                here = openat(&here, c"..", FOLDER, Mode::empty())?;
                unless_gone(unlinkat(&here, name.as_c_str(), UnlinkatFlags::RemoveDir))?;
            }
            continue;
        };
        if let Some(below) = unless_gone(openat(&here, name.as_c_str(), FOLDER, Mode::empty()))? {
            here = below;
            levels.push(folders(&here)?);
        } else {
            names.pop();
        }
    }
    Ok(())
}

const FOLDER: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Returns the names of the folders in a folder.
fn folders(folder: &OwnedFd) -> nix::Result<Vec<CString>> {
    let mut names = Vec::new();
    let listing = unless_gone(Dir::openat(folder, c".", FOLDER, Mode::empty()))?;
    let Some(mut listing) = listing else { return Ok(names) };
    for entry in listing.iter() {
        let entry = entry?;
        let is_folder = entry.file_type() == Some(Type::Directory)
            && !matches!(entry.file_name().to_bytes(), b"." | b"..");
        if is_folder {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

/// Treats what is gone already as removed.
fn unless_gone<T>(done: nix::Result<T>) -> nix::Result<Option<T>> {
    match done {
        Err(Errno::ENOENT | Errno::ENODEV) => Ok(None),
        done => done.map(Some),
    }
}

/// Marks that this process is in another cgroup. Dropping it moves the process back.
#[must_use = "dropping this moves the process back at once"]
#[derive(Debug)]
pub struct Entered {
    back: PathBuf,
}

/// Moves this process into a cgroup.
///
/// # Panics
/// Panics if the process cannot be moved.
pub fn enter(cgroup: &Path) -> Entered {
    let mount = kernel::cgroup::cgroup2_mount().expect("cgroup2 is mounted");
    let own = kernel::cgroup::of_process(std::process::id()).expect("this process has a cgroup");
    fs::write(cgroup.join("cgroup.procs"), "0")
        .unwrap_or_else(|error| panic!("{}: {error}", cgroup.display()));
    Entered { back: kernel::cgroup::below(&mount, &own) }
}

impl Drop for Entered {
    fn drop(&mut self) {
        if let Err(error) = fs::write(self.back.join("cgroup.procs"), "0") {
            eprintln!("{}: {error}", self.back.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use nix::sys::signal::Signal;

    use super::*;

    #[test]
    fn root_a_tree_of_any_depth_and_width_is_removed() {
        const DEPTH: usize = 1_000;
        let cgroup = ScratchCgroup::new("remove");
        cgroup.child("a/b");
        cgroup.child("c");
        let mut here = open(cgroup.path(), FOLDER, Mode::empty()).unwrap();
        for _ in 0..DEPTH {
            nix::sys::stat::mkdirat(&here, "deep", Mode::S_IRWXU).unwrap();
            here = openat(&here, "deep", FOLDER, Mode::empty()).unwrap();
        }
        drop(here);
        remove_tree(cgroup.path()).unwrap();
        assert!(!cgroup.path().exists());
        remove_tree(cgroup.path()).unwrap();
    }

    #[test]
    fn root_when_a_test_is_killed_its_cgroup_goes_with_all_that_lives_in_it() {
        let cgroup = ScratchCgroup::new("killed");
        cgroup.child("a/b");
        let mut sleeper = Command::new("sleep").arg("1000").spawn().unwrap();
        fs::write(cgroup.path().join("a/cgroup.procs"), sleeper.id().to_string()).unwrap();
        let mut watcher = watch(cgroup.path()).unwrap();
        // The kernel closes the pipe in the same way.
        drop(watcher.stdin.take());
        assert!(watcher.wait().unwrap().success());
        assert!(!cgroup.path().exists());
        assert_eq!(sleeper.wait().unwrap().signal(), Some(Signal::SIGKILL as i32));
    }

    #[test]
    fn root_a_tree_with_a_process_in_it_is_busy() {
        let cgroup = ScratchCgroup::new("busy");
        cgroup.child("a");
        let entered = enter(&cgroup.child("b"));
        assert_eq!(
            remove_tree(cgroup.path()).unwrap_err().raw_os_error(),
            Some(Errno::EBUSY as i32)
        );
        drop(entered);
        remove_tree(cgroup.path()).unwrap();
        assert!(!cgroup.path().exists());
    }
}
