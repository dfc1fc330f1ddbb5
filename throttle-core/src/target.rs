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
                Ok(Resolved { cgroup: cgroup::resolve(&mount, named), neighbours: Vec::new() })
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
                let mut pids = Vec::new();
                processes_below(&cgroup, &mut pids);
                pids.retain(|other| other != pid);
                pids.sort_unstable();
                let neighbours = pids.into_iter().filter_map(neighbour).collect();
                Ok(Resolved { cgroup, neighbours })
            }
        }
    }
}

/// The pids in a cgroup and below. What goes away or cannot be read meanwhile is not named: this is to
/// warn the user, and nothing rests on it.
fn processes_below(path: &Path, pids: &mut Vec<u32>) {
    pids.extend(cgroup::processes(path).unwrap_or_default());
    let Ok(listing) = fs::read_dir(path) else { return };
    for entry in listing.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            processes_below(&entry.path(), pids);
        }
    }
}

fn neighbour(pid: u32) -> Option<Neighbour> {
    let comm = fs::read(format!("/proc/{pid}/comm")).ok()?;
    Some(Neighbour { pid, comm: String::from_utf8_lossy(&comm).trim_end().to_owned() })
}
