//! The network namespaces that a cgroup's processes live in, or all of the host: sockets and devices are told of by
//! namespace.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};

use crate::cgroup::{mounts, threads};
use crate::error::{Call, Error, Kind, Result};

/// What errors name.
const TARGET: &str = "a network namespace of the cgroup";

/// Where procfs is.
const PROC: &str = "/proc";

/// This thread's own.
const OWN: &str = "/proc/thread-self/ns/net";

/// Does something in the caller's network namespace, and in those of the processes of a cgroup and below it, each
/// once. Also tells how many threads there are whose namespace cannot be told. The caller stays where it is. Other
/// namespaces than its own need `CAP_SYS_ADMIN`.
///
/// # Errors
/// The first one; or that a namespace could not be entered.
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
        // A thread of its own: a namespace that was entered is not left again.
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

/// Does something in a network namespace. The caller stays where it is. Needs `CAP_SYS_ADMIN`.
///
/// # Errors
/// That the namespace could not be entered, or what was to be done fails with.
pub fn inside<T: Send>(namespace: &File, what: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let namespace =
        namespace.try_clone().map_err(|error| Error::from_io(Call::ReadProc, TARGET, &error))?;
    in_a_thread(|| within(namespace, what))
}

/// Does something in a network namespace that is made for it and goes with it: only a loopback device is there, and it is
/// down. The caller stays where it is. Needs `CAP_SYS_ADMIN`.
///
/// # Errors
/// That there is no new namespace, or what was to be done fails with.
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

/// The one network namespace in which all processes of a cgroup live, and those below it; the caller's if there are none.
///
/// # Errors
/// When there are several, or some cannot be told.
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

/// The namespaces of the processes in a cgroup and below it, each once.
///
/// # Errors
/// When they cannot all be told.
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
    /// Each once.
    pub namespaces: Vec<File>,
    /// So many threads are outside of this pid namespace, or hidden: where they live cannot be told.
    pub untold: u64,
    /// What the first hidden one failed with.
    why: Option<Error>,
}

impl Members {
    /// The namespaces of the processes in a cgroup and below it: each thread may be in one of its own, and a threaded cgroup
    /// tells of threads alone. A thread or a cgroup that goes meanwhile has none any more. `proc` is where procfs is.
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
                // Most have one that is known already, which its name tells.
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

/// A network namespace that was found.
#[derive(Debug)]
pub struct Namespace {
    /// Its inode number, which tells it from every other one that there is now.
    pub inode: u64,
    /// Where it was found; none for the caller's own.
    pub path: Option<PathBuf>,
}

/// Where nothing could be done.
#[derive(Debug)]
pub enum Unseen {
    /// A namespace that is known, but could not be entered.
    Closed(Error),
    /// A process or a mount whose namespace could not be told.
    Untold(Error),
}

/// Does something in every network namespace that can be found, each once; or in the `wanted` one alone, if it is
/// found. They are the caller's own, then those that are mounted somewhere (`nsfs`), then those of all processes. The
/// caller stays where it is. Needs `CAP_SYS_ADMIN` for other namespaces than its own, `CAP_SYS_PTRACE` for others'
/// processes.
///
/// # Errors
/// The first one of what is to be done; or that processes or mounts could not be listed, or the own namespace not be
/// told.
pub fn in_every(
    wanted: Option<u64>,
    what: impl FnMut(&Namespace) -> Result<()> + Send,
) -> Result<Vec<Unseen>> {
    // A thread of its own: a namespace that was entered is not left again.
    in_a_thread(|| Tour { wanted, what, seen: HashSet::new(), unseen: Vec::new() }.go())
}

/// A way through namespaces.
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
            // It has ended meanwhile.
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
            // The process has ended, or entered another one; or something lies on top of the mount. Others may be there.
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

/// Whether `/proc/PID/ns/net` is of a process that has ended: of one that has just done so procfs says `EACCES`.
fn has_ended(path: &Path) -> bool {
    path.starts_with("/proc") && path.ancestors().nth(2).is_some_and(|process| !process.exists())
}

/// The number in `net:[4026531840]`, as `/proc` and mountinfo name a namespace.
fn inode_of(name: &str) -> Option<u64> {
    name.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

/// What is gone has nothing to tell. A threaded cgroup (`EOPNOTSUPP`) tells of its processes in the one above.
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
