//! From what a user names to the cgroup that is limited.

use std::fs;
use std::path::{Path, PathBuf};

use bpf::cgroup;
use bpf::error::Kind;

use crate::error::{Error, Result};

/// What a user names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A cgroup: its directory, or its path below the cgroup2 mount.
    Cgroup(PathBuf),
    /// A process: the cgroup that it is in now. Its sockets stay in that cgroup's limit even if it moves.
    Process(u32),
}

/// A process that shares a cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// Its pid.
    pub pid: u32,
    /// Its name.
    pub comm: String,
}

/// The cgroup of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Its directory.
    pub cgroup: PathBuf,
    /// For a process: the others that live in its cgroup or below, and will be limited with it.
    pub neighbours: Vec<Neighbour>,
    /// Some cgroups below could not be asked for their processes, so there may be more neighbours.
    pub neighbours_hidden: bool,
    /// It is the root cgroup: the whole host is limited.
    pub is_root: bool,
}

impl Target {
    /// Finds the cgroup.
    ///
    /// # Errors
    /// When the process does not exist or lives in the root cgroup, or cgroup2 is not mounted. That a
    /// cgroup exists is for the engine to find out.
    pub fn resolve(&self) -> Result<Resolved> {
        let mount = cgroup::cgroup2_mount()?;
        match self {
            Target::Cgroup(named) => {
                let path = cgroup::resolve(&mount, named);
                // As the kernel names it, for messages and the ledger; one that does not exist stays as it is.
                let cgroup = path.canonicalize().unwrap_or(path);
                let is_root = mount.canonicalize().is_ok_and(|mount| mount == cgroup);
                Ok(Resolved { cgroup, neighbours: Vec::new(), neighbours_hidden: false, is_root })
            }
            Target::Process(pid) => {
                let relative = cgroup::of_process(*pid).map_err(|error| match error.kind() {
                    Kind::Vanished => Error::NoSuchProcess(*pid),
                    _ => error.into(),
                })?;
                if relative == Path::new("/") {
                    return Err(Error::RootCgroup(*pid));
                }
                let cgroup = cgroup::below(&mount, &relative);
                if is_removed(&cgroup, *pid) {
                    return Err(Error::CgroupRemoved(*pid));
                }
                let mut pids = Vec::new();
                let complete = processes_below(&cgroup, &mut pids);
                pids.retain(|other| other != pid);
                pids.sort_unstable();
                let neighbours = pids.into_iter().filter_map(neighbour).collect();
                Ok(Resolved { cgroup, neighbours, neighbours_hidden: !complete, is_root: false })
            }
        }
    }
}

/// The kernel appends ` (deleted)` to the path of a cgroup that was removed, but a cgroup may also be called
/// that: then the process is in it.
fn is_removed(cgroup: &Path, pid: u32) -> bool {
    cgroup.as_os_str().as_encoded_bytes().ends_with(b" (deleted)")
        && !cgroup::processes(cgroup).is_ok_and(|pids| pids.contains(&pid))
}

/// The pids in a cgroup and below, and whether that is all of them. What goes away meanwhile is no loss.
fn processes_below(path: &Path, pids: &mut Vec<u32>) -> bool {
    let mut complete = match cgroup::processes(path) {
        Ok(own) => {
            pids.extend(own);
            true
        }
        Err(error) => error.kind() == Kind::Vanished,
    };
    let Ok(listing) = fs::read_dir(path) else { return !path.exists() && complete };
    for entry in listing.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            complete &= processes_below(&entry.path(), pids);
        }
    }
    complete
}

fn neighbour(pid: u32) -> Option<Neighbour> {
    let comm = fs::read(format!("/proc/{pid}/comm")).ok()?;
    Some(Neighbour { pid, comm: String::from_utf8_lossy(&comm).trim_end().to_owned() })
}

#[cfg(test)]
#[path = "target_tests.rs"]
mod tests;
