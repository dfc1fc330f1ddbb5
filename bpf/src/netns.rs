//! The network namespaces that a cgroup's processes live in: sockets and devices are told of by namespace.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

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
    let others = others(cgroup);
    if !others.is_empty() {
        // A thread of its own: a namespace that was entered is not left again.
        let visit =
            || -> Result<Vec<T>> { others.into_iter().map(|it| within(it, &what)).collect() };
        let visited = std::thread::scope(|scope| {
            let panicked = |_| Err(Error::new(Call::ReadProc, TARGET, Errno::ECANCELED));
            scope.spawn(visit).join().unwrap_or_else(panicked)
        });
        done.extend(visited?);
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
    std::thread::scope(|scope| {
        let panicked = |_| Err(Error::new(Call::ReadProc, TARGET, Errno::ECANCELED));
        scope.spawn(|| within(namespace, what)).join().unwrap_or_else(panicked)
    })
}

/// The one network namespace in which all processes of a cgroup live, and those below it; the caller's if there are none.
///
/// # Errors
/// When there are several.
pub(crate) fn only(cgroup: &Path) -> Result<File> {
    let mut found = of_processes(cgroup);
    match found.len() {
        0 => File::open(OWN).map_err(|error| Error::from_io(Call::ReadProc, OWN, &error)),
        1 => Ok(found.remove(0)),
        several => Err(Error::new(Call::ReadProc, TARGET, Errno::EINVAL).with_detail(format!(
            "its processes live in {several} of them, and a queue is in one"
        ))),
    }
}

/// The namespaces of the processes in a cgroup and below it, but for this thread's own.
fn others(cgroup: &Path) -> Vec<File> {
    let inode = |file: &File| file.metadata().map(|it| it.ino()).ok();
    let own = File::open(OWN).ok().and_then(|file| inode(&file));
    of_processes(cgroup).into_iter().filter(|file| inode(file) != own).collect()
}

/// The namespaces of the processes in a cgroup and below it, each once. A process that ends meanwhile has none any
/// more.
fn of_processes(cgroup: &Path) -> Vec<File> {
    let open = |pid: &str| {
        let file = File::open(format!("/proc/{pid}/ns/net")).ok()?;
        Some((file.metadata().ok()?.ino(), file))
    };
    let mut found = BTreeMap::new();
    let mut folders = vec![cgroup.to_owned()];
    while let Some(folder) = folders.pop() {
        let pids = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        found.extend(pids.lines().filter_map(open));
        let below = fs::read_dir(&folder).into_iter().flatten().flatten();
        folders.extend(
            below.filter(|it| it.file_type().is_ok_and(|it| it.is_dir())).map(|it| it.path()),
        );
    }
    found.into_values().collect()
}
