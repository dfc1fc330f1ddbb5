//! From what a user names to the cgroup that is limited.

use std::fs;
use std::path::{Path, PathBuf};

use bpf::CgroupId;
use bpf::cgroup::{self, Cgroup, Home, Reach};
use bpf::error::Kind;

use crate::error::{Error, Result};

/// What a user names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A cgroup, as [`cgroup::find`] takes it: its directory, or its path below the cgroup2 mount.
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
    /// Its id: a directory made again at that path, or seen there from another namespace, is not the same cgroup.
    pub cgroup_id: CgroupId,
    /// What all belongs to it, where it is the top of something.
    pub reach: Reach,
    /// For a process: the others that live in its cgroup or below, and will be limited with it.
    pub neighbours: Vec<Neighbour>,
    /// Some cgroups below could not be asked for their processes, so there may be more neighbours.
    pub neighbours_hidden: bool,
    /// For a thread: the process that it belongs to.
    pub thread_of: Option<u32>,
    /// Cgroups in which the process has other threads, which will not be limited, as `/proc` names them. None where that
    /// cannot be told.
    pub threads_elsewhere: Option<Vec<PathBuf>>,
}

impl Target {
    /// Finds the cgroup, and proves for a process that it lives there.
    ///
    /// # Errors
    /// When there is no such cgroup, when the process does not exist, lives in the root cgroup or where it cannot be seen
    /// from here, or when cgroup2 is not mounted.
    pub fn resolve(&self) -> Result<Resolved> {
        match self {
            Target::Cgroup(named) => Self::of_cgroup(&cgroup::find(named)?),
            Target::Process(pid) => Self::of_process(*pid),
        }
    }

    fn of_cgroup(found: &Cgroup) -> Result<Resolved> {
        Ok(Resolved {
            cgroup: found.path().to_owned(),
            cgroup_id: found.id(),
            reach: cgroup::reach(found)?,
            neighbours: Vec::new(),
            neighbours_hidden: false,
            thread_of: None,
            threads_elsewhere: Some(Vec::new()),
        })
    }

    fn of_process(pid: u32) -> Result<Resolved> {
        let (found, process) = match cgroup::home(pid)? {
            Home::In { cgroup, process } => (cgroup, process),
            Home::Nowhere => return Err(Error::NoSuchProcess(pid)),
            Home::Removed => return Err(Error::CgroupRemoved(pid)),
            Home::Ended => return Err(Error::Ended(pid)),
            Home::OutOfSight { listed, id } => {
                let seen = cgroup::seen_instead(listed.as_deref(), id)?;
                return Err(Error::CgroupOutOfSight { pid, seen });
            }
        };
        let resolved = Self::of_cgroup(&found)?;
        if resolved.reach == Reach::Host {
            return Err(Error::RootCgroup(pid));
        }
        let threads_elsewhere = match found.is_threaded() {
            Ok(false) => Some(Vec::new()),
            _ => cgroup::threads_elsewhere(process, pid)
                .ok()
                .map(|paths| paths.into_iter().collect()),
        };
        Ok(resolved.of_the_process(pid, process, threads_elsewhere))
    }
}

impl Resolved {
    /// The same for a process, or one of its threads: `named` is the number that the user gave.
    fn of_the_process(
        self,
        named: u32,
        process: u32,
        threads_elsewhere: Option<Vec<PathBuf>>,
    ) -> Self {
        let mut pids = Vec::new();
        let complete = processes_below(&self.cgroup, &mut pids);
        pids.retain(|other| *other != process);
        pids.sort_unstable();
        // Threads of a process have several cgroups.
        pids.dedup();
        Self {
            neighbours: pids.into_iter().filter_map(neighbour).collect(),
            neighbours_hidden: !complete,
            thread_of: (process != named).then_some(process),
            threads_elsewhere,
            ..self
        }
    }
}

/// The pids in a cgroup and below, and whether that is all of them. What goes away meanwhile is no loss.
fn processes_below(path: &Path, pids: &mut Vec<u32>) -> bool {
    let mut complete = match cgroup::processes(path) {
        Ok(own) => {
            // 0 is one outside of this pid namespace.
            let is_complete = !own.contains(&0);
            pids.extend(own.into_iter().filter(|pid| *pid != 0));
            is_complete
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
