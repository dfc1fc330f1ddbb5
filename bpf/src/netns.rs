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

fn within<T>(namespace: File, what: impl Fn() -> Result<T>) -> Result<T> {
    setns(namespace, CloneFlags::CLONE_NEWNET)
        .map_err(|errno| Error::new(Call::ReadProc, TARGET, errno))?;
    what()
}

/// The namespaces of the processes in a cgroup and below it, each once, but for this thread's own. A process that
/// ends meanwhile has none any more.
fn others(cgroup: &Path) -> Vec<File> {
    let open = |path: &str| {
        let file = File::open(path).ok()?;
        Some((file.metadata().ok()?.ino(), file))
    };
    let own = open("/proc/thread-self/ns/net").map(|(inode, _)| inode);
    let mut found = BTreeMap::new();
    let mut folders = vec![cgroup.to_owned()];
    while let Some(folder) = folders.pop() {
        for pid in fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default().lines() {
            found.extend(
                open(&format!("/proc/{pid}/ns/net")).filter(|(inode, _)| Some(*inode) != own),
            );
        }
        let below = fs::read_dir(&folder).into_iter().flatten().flatten();
        folders.extend(
            below.filter(|it| it.file_type().is_ok_and(|it| it.is_dir())).map(|it| it.path()),
        );
    }
    found.into_values().collect()
}
