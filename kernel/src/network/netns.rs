//! The network namespaces of a cgroup's processes, or of the whole host. The kernel lists sockets and devices by
//! namespace.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};

use crate::cgroup::{mounts, threads};
use crate::error::{Call, Error, Kind, Result};

/// The target that errors name.
const TARGET: &str = "a network namespace of the cgroup";

/// The mount point of procfs.
const PROC: &str = "/proc";

/// This thread's own network namespace.
const OWN: &str = "/proc/thread-self/ns/net";

/// Runs a function in the caller's network namespace, and in each one of the processes of a cgroup and its descendants.
/// Returns the number of threads with an unknown namespace too.
///
/// The caller stays in its namespace. Other namespaces need `CAP_SYS_ADMIN`.
///
/// # Errors
/// The first error of the function, or of entering a namespace.
pub fn in_each<T: Send>(
    cgroup: &Path,
    what: impl Fn() -> Result<T> + Sync,
) -> Result<(Vec<T>, u64)> {
    let mut done = vec![what()?];
    let Members { namespaces, untold, .. } = Members::of(cgroup, PROC)?;
    let inode = |file: &File| file.metadata().map(|it| it.ino()).ok();
    let own = File::open(OWN).ok().and_then(|file| inode(&file));
    let others: Vec<_> = namespaces.into_iter().filter(|file| inode(file) != own).collect();
    if !others.is_empty() {
        // A new thread visits the namespaces, because a thread cannot go back.
        let visit =
            || -> Result<Vec<T>> { others.into_iter().map(|it| within(it, &what)).collect() };
        done.extend(in_a_thread(visit)?);
    }
    Ok((done, untold))
}

fn within<T>(namespace: File, what: impl FnOnce() -> Result<T>) -> Result<T> {
    setns(namespace, CloneFlags::CLONE_NEWNET)
        .map_err(|errno| Error::new(Call::ReadProc, TARGET, errno))?;
    what()
}

/// Runs a function in a network namespace. The caller stays in its own. Needs `CAP_SYS_ADMIN`.
///
/// # Errors
/// The error of the function, or of entering the namespace.
pub fn inside<T: Send>(namespace: &File, what: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let namespace =
        namespace.try_clone().map_err(|error| Error::from_io(Call::ReadProc, TARGET, &error))?;
    in_a_thread(|| within(namespace, what))
}

/// Runs a function in a new network namespace, which ends with the function. The namespace has only a loopback device,
/// which is down. The caller stays in its own. Needs `CAP_SYS_ADMIN`.
///
/// # Errors
/// The error of the function, or of creating the namespace.
pub fn in_a_new_one<T: Send>(what: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    in_a_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET)
            .map_err(|errno| Error::new(Call::Unshare, "a new network namespace", errno))?;
        what()
    })
}

fn in_a_thread<T: Send>(what: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let started = std::thread::Builder::new().spawn_scoped(scope, what);
        let thread = started.map_err(|error| Error::from_io(Call::ReadProc, TARGET, &error))?;
        let panicked = |_| Err(Error::found(Call::ReadProc, TARGET, Errno::ECANCELED));
        thread.join().unwrap_or_else(panicked)
    })
}

/// Returns the one network namespace of all processes of a cgroup and its descendants, or the caller's without any
/// process.
///
/// # Errors
/// When there are several namespaces, or some are unknown.
pub fn only(cgroup: &Path) -> Result<File> {
    let mut found = told(cgroup)?;
    match found.len() {
        0 => File::open(OWN).map_err(|error| Error::from_io(Call::ReadProc, OWN, &error)),
        1 => Ok(found.remove(0)),
        several => Err(Error::found(Call::ReadProc, TARGET, Errno::EINVAL).with_detail(format!(
            "its processes live in {several} of them, and a queue is in one"
        ))),
    }
}

/// Returns the network namespaces of the processes of a cgroup and its descendants, without duplicates.
///
/// # Errors
/// When some namespaces are unknown.
pub fn told(cgroup: &Path) -> Result<Vec<File>> {
    let Members { namespaces, untold, why } = Members::of(cgroup, PROC)?;
    match (untold, why) {
        (0, _) => Ok(namespaces),
        (_, Some(error)) => Err(error),
        (untold, None) => Err(Error::found(Call::ReadProc, TARGET, Errno::ESRCH).with_detail(format!(
            "{untold} threads of the cgroup are outside of this pid namespace, so their network namespaces cannot \
             be told: run this on the host"
        ))),
    }
}

/// The network namespaces of a cgroup's processes.
pub struct Members {
    /// The namespaces, without duplicates.
    pub namespaces: Vec<File>,
    /// The number of threads that are hidden or outside this pid namespace, so that their network namespace is unknown.
    pub untold: u64,
    /// The error of the first hidden thread.
    why: Option<Error>,
}

impl Members {
    /// Finds the namespaces of a cgroup and its descendants. Each thread may be in its own one, and a threaded cgroup
    /// lists only threads. Threads and cgroups that vanish meanwhile do not count. `proc` is the mount point of procfs.
    fn of(cgroup: &Path, proc: &str) -> Result<Self> {
        let mut found = BTreeMap::new();
        let (mut untold, mut why) = (0, None);
        let mut folders = vec![cgroup.to_owned()];
        while let Some(folder) = folders.pop() {
            let listed = match threads(&folder) {
                Err(error) if error.kind() == Kind::Vanished => Vec::new(),
                listed => listed?,
            };
            for thread in listed {
                if thread == 0 {
                    untold += 1;
                    continue;
                }
                let path = PathBuf::from(format!("{proc}/{thread}/ns/net"));
                // The link's name identifies the namespace, and most threads are in a known one.
                let opened = unless_gone(&path, fs::read_link(&path)).and_then(|link| {
                    let is_known = |it: &u64| found.contains_key(it);
                    match link.map(|it| it.to_str().and_then(inode_of)) {
                        Some(inode) if !inode.as_ref().is_some_and(is_known) => {
                            unless_gone(&path, File::open(&path))
                        }
                        _ => Ok(None),
                    }
                });
                let file = match opened {
                    Ok(Some(file)) => file,
                    Ok(None) => continue,
                    Err(_) if has_ended(&path) => continue,
                    Err(error) if error.kind() == Kind::Denied => {
                        untold += 1;
                        why.get_or_insert(error);
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                if let Ok(facts) = file.metadata() {
                    found.insert(facts.ino(), file);
                }
            }
            let below =
                unless_gone(&folder, fs::read_dir(&folder))?.into_iter().flatten().flatten();
            folders.extend(
                below.filter(|it| it.file_type().is_ok_and(|it| it.is_dir())).map(|it| it.path()),
            );
        }
        Ok(Self { namespaces: found.into_values().collect(), untold, why })
    }
}

/// A network namespace.
#[derive(Debug)]
pub struct Namespace {
    /// The inode number, which no other existing namespace has.
    pub inode: u64,
    /// The path through which it was found; `None` for the caller's own.
    pub path: Option<PathBuf>,
}

/// A namespace where the function could not run.
#[derive(Debug)]
pub enum Unseen {
    /// A known namespace that could not be entered.
    Closed(Error),
    /// A process or a mount with an unknown namespace.
    Untold(Error),
}

/// Runs a function in every network namespace that can be found, once in each. With `wanted`, runs it only in that
/// namespace, if found.
///
/// Visits the caller's own, then mounted ones (`nsfs`), then those of all processes. The caller stays in its own. Other
/// namespaces need `CAP_SYS_ADMIN`, and other users' processes need `CAP_SYS_PTRACE`.
///
/// # Errors
/// The first error of the function. When processes or mounts cannot be listed, or when the own namespace is unknown.
pub fn in_every(
    wanted: Option<u64>,
    what: impl FnMut(&Namespace) -> Result<()> + Send,
) -> Result<Vec<Unseen>> {
    // A new thread visits the namespaces, because a thread cannot go back.
    in_a_thread(|| Tour { wanted, what, seen: HashSet::new(), unseen: Vec::new() }.go())
}

/// A tour through the namespaces.
struct Tour<F> {
    wanted: Option<u64>,
    what: F,
    seen: HashSet<u64>,
    unseen: Vec<Unseen>,
}

impl<F: FnMut(&Namespace) -> Result<()>> Tour<F> {
    fn go(mut self) -> Result<Vec<Unseen>> {
        let own = fs::metadata(OWN).map_err(|error| Error::from_io(Call::ReadProc, OWN, &error))?;
        if self.is_new(own.ino()) {
            (self.what)(&Namespace { inode: own.ino(), path: None })?;
        }
        for mount in mounts("nsfs")? {
            if let Some(inode) = mount.root.to_str().and_then(inode_of) {
                self.enter(inode, mount.point)?;
            }
        }
        let list = |error: &std::io::Error| Error::from_io(Call::ReadProc, "/proc", error);
        for process in fs::read_dir("/proc").map_err(|error| list(&error))? {
            let process = process.map_err(|error| list(&error))?;
            let is_process = |name: &str| name.bytes().all(|it| it.is_ascii_digit());
            if process.file_name().to_str().is_some_and(is_process) {
                self.enter_that_of(&process.path().join("ns/net"))?;
            }
        }
        Ok(self.unseen)
    }

    fn enter_that_of(&mut self, path: &Path) -> Result<()> {
        match unless_gone(path, fs::read_link(path)) {
            Ok(Some(name)) => match name.to_str().and_then(inode_of) {
                Some(inode) => self.enter(inode, path.to_owned()),
                None => Ok(()),
            },
            // The process has ended meanwhile.
            Ok(None) => Ok(()),
            Err(_) if has_ended(path) => Ok(()),
            Err(error) => {
                self.unseen.push(Unseen::Untold(error));
                Ok(())
            }
        }
    }

    fn enter(&mut self, inode: u64, path: PathBuf) -> Result<()> {
        if !self.is_new(inode) {
            return Ok(());
        }
        let opened = match unless_gone(&path, File::open(&path)) {
            Ok(Some(file)) if file.metadata().is_ok_and(|it| it.ino() == inode) => Ok(file),
            // The process has ended or changed its namespace, or another mount covers this one. Another path may still
            // lead there.
            Ok(_) => {
                self.seen.remove(&inode);
                return Ok(());
            }
            Err(_) if has_ended(&path) => {
                self.seen.remove(&inode);
                return Ok(());
            }
            Err(error) => Err(error),
        };
        let entered = opened.and_then(|file| {
            setns(file, CloneFlags::CLONE_NEWNET)
                .map_err(|errno| Error::new(Call::SetNs, path.display().to_string(), errno))
        });
        match entered {
            Ok(()) => (self.what)(&Namespace { inode, path: Some(path) }),
            Err(error) => {
                self.unseen.push(Unseen::Closed(error));
                Ok(())
            }
        }
    }

    fn is_new(&mut self, inode: u64) -> bool {
        self.wanted.is_none_or(|wanted| wanted == inode) && self.seen.insert(inode)
    }
}

/// Tells whether the process of a `/proc/PID/ns/net` has ended. Just after its end, procfs answers `EACCES`.
fn has_ended(path: &Path) -> bool {
    path.starts_with("/proc") && path.ancestors().nth(2).is_some_and(|process| !process.exists())
}

/// Parses the number in `net:[4026531840]`, the name of a namespace in `/proc` and mountinfo.
fn inode_of(name: &str) -> Option<u64> {
    name.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

/// Returns what was read, `None` if the process or cgroup is gone. A threaded cgroup (`EOPNOTSUPP`) has no list of
/// processes; its parent has it.
pub fn unless_gone<T>(path: &Path, read: std::io::Result<T>) -> Result<Option<T>> {
    let gone = [Errno::ENOENT, Errno::ESRCH, Errno::ENODEV, Errno::EOPNOTSUPP].map(|it| it as i32);
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) if error.raw_os_error().is_some_and(|errno| gone.contains(&errno)) => Ok(None),
        Err(error) => Err(Error::from_io(Call::ReadProc, path.display().to_string(), &error)),
    }
}

#[cfg(test)]
#[path = "netns_tests.rs"]
mod tests;
