//! The network namespaces that a cgroup's processes live in: sockets and devices are told of by namespace.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};

use crate::error::{Call, Error, Result};

/// What errors name.
const TARGET: &str = "a network namespace of the cgroup";

/// This thread's own.
const OWN: &str = "/proc/thread-self/ns/net";

/// Does something in the caller's network namespace, and in those of the processes of a cgroup and below it, each
/// once. The caller stays where it is. Other namespaces than its own need `CAP_SYS_ADMIN`.
///
/// # Errors
/// The first one; or that a namespace could not be entered.
pub(crate) fn in_each<T: Send>(
    cgroup: &Path,
    what: impl Fn() -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let mut done = vec![what()?];
    let others = others(cgroup)?;
    if !others.is_empty() {
        // A thread of its own: a namespace that was entered is not left again.
        let visit =
            || -> Result<Vec<T>> { others.into_iter().map(|it| within(it, &what)).collect() };
        done.extend(in_a_thread(visit)?);
    }
    Ok(done)
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
pub(crate) fn inside<T: Send>(
    namespace: &File,
    what: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    let namespace =
        namespace.try_clone().map_err(|error| Error::from_io(Call::ReadProc, TARGET, &error))?;
    in_a_thread(|| within(namespace, what))
}

fn in_a_thread<T: Send>(what: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let started = std::thread::Builder::new().spawn_scoped(scope, what);
        let thread = started.map_err(|error| Error::from_io(Call::ReadProc, TARGET, &error))?;
        let panicked = |_| Err(Error::new(Call::ReadProc, TARGET, Errno::ECANCELED));
        thread.join().unwrap_or_else(panicked)
    })
}

/// The one network namespace in which all processes of a cgroup live, and those below it; the caller's if there are none.
///
/// # Errors
/// When there are several.
pub(crate) fn only(cgroup: &Path) -> Result<File> {
    let mut found = of_processes(cgroup)?;
    match found.len() {
        0 => File::open(OWN).map_err(|error| Error::from_io(Call::ReadProc, OWN, &error)),
        1 => Ok(found.remove(0)),
        several => Err(Error::new(Call::ReadProc, TARGET, Errno::EINVAL).with_detail(format!(
            "its processes live in {several} of them, and a queue is in one"
        ))),
    }
}

/// The namespaces of the processes in a cgroup and below it, but for this thread's own.
fn others(cgroup: &Path) -> Result<Vec<File>> {
    let inode = |file: &File| file.metadata().map(|it| it.ino()).ok();
    let own = File::open(OWN).ok().and_then(|file| inode(&file));
    Ok(of_processes(cgroup)?.into_iter().filter(|file| inode(file) != own).collect())
}

/// The namespaces of the processes in a cgroup and below it, each once. A process or a cgroup that goes meanwhile has
/// none any more.
pub(crate) fn of_processes(cgroup: &Path) -> Result<Vec<File>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![cgroup.to_owned()];
    while let Some(folder) = folders.pop() {
        let list = folder.join("cgroup.procs");
        for pid in unless_gone(&list, fs::read_to_string(&list))?.unwrap_or_default().lines() {
            let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
            let Some(file) = unless_gone(&path, File::open(&path))? else { continue };
            if let Ok(facts) = file.metadata() {
                found.insert(facts.ino(), file);
            }
        }
        let below = unless_gone(&folder, fs::read_dir(&folder))?.into_iter().flatten().flatten();
        folders.extend(
            below.filter(|it| it.file_type().is_ok_and(|it| it.is_dir())).map(|it| it.path()),
        );
    }
    Ok(found.into_values().collect())
}

/// What is gone has nothing to tell. A threaded cgroup (`EOPNOTSUPP`) tells of its processes in the one above.
fn unless_gone<T>(path: &Path, read: std::io::Result<T>) -> Result<Option<T>> {
    let gone = [Errno::ENOENT, Errno::ESRCH, Errno::ENODEV, Errno::EOPNOTSUPP].map(|it| it as i32);
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) if error.raw_os_error().is_some_and(|errno| gone.contains(&errno)) => Ok(None),
        Err(error) => Err(Error::from_io(Call::ReadProc, path.display().to_string(), &error)),
    }
}
