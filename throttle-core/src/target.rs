//! Finding the cgroup that a user means.

use std::path::{Path, PathBuf};

use kernel::cgroup::{self, Home, Reach};
use kernel::{Cgroup, CgroupId, process};

use crate::error::{Error, Result};

/// The host's answers about targets, as a trait, so that a simulated host can take its place.
pub trait Places {
    /// An open cgroup.
    type Cgroup;

    /// Finds a cgroup by its directory or its path below the cgroup2 mount; see [`cgroup::find`].
    fn find(&self, named: &Path) -> kernel::Result<Self::Cgroup>;
    /// Returns a cgroup's directory and id.
    fn place(&self, cgroup: &Self::Cgroup) -> (PathBuf, CgroupId);
    /// Tells what belongs to a cgroup; see [`cgroup::reach`].
    fn reach(&self, cgroup: &Self::Cgroup) -> kernel::Result<Reach>;
    /// Tells whether single threads may be in a cgroup; see [`Cgroup::is_threaded`].
    fn is_threaded(&self, cgroup: &Self::Cgroup) -> kernel::Result<bool>;
    /// Finds the cgroup of a process, with proof; see [`cgroup::home`].
    fn home(&self, pid: u32) -> kernel::Result<Home<Self::Cgroup>>;
    /// Describes a cgroup out of sight; see [`cgroup::seen_instead`].
    fn seen_instead(&self, listed: Option<&Path>, id: Option<CgroupId>) -> kernel::Result<String>;
    /// Lists the cgroups of a process's threads other than `thread`; see [`cgroup::threads_elsewhere`].
    fn threads_elsewhere(&self, process: u32, thread: u32) -> kernel::Result<Vec<PathBuf>>;
    /// Lists the pids in a cgroup and its descendants, and tells whether the list is complete.
    fn processes_below(&self, cgroup: &Path) -> (Vec<u32>, bool);
    /// Returns the name of a process; `None` if it has ended.
    fn name_of(&self, pid: u32) -> Option<String>;
}

/// The target that a user names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A cgroup's directory, or its path below the cgroup2 mount; see [`cgroup::find`].
    Cgroup(PathBuf),
    /// A process, which stands for its current cgroup. Its sockets stay limited even if the process moves to another
    /// cgroup.
    Process(u32),
}

/// Another process in the same cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// The process's pid.
    pub pid: u32,
    /// The process's name.
    pub comm: String,
}

/// A target's cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The cgroup's directory.
    pub cgroup: PathBuf,
    /// The cgroup's id. A new directory at that path, or the same path in another namespace, is another cgroup.
    pub cgroup_id: CgroupId,
    /// What belongs to the cgroup, if it is the top of something.
    pub reach: Reach,
    /// For a process, the other processes in its cgroup and the descendants. The throttle will limit them too.
    pub neighbours: Vec<Neighbour>,
    /// The processes of some descendants could not be listed, so there may be more neighbours.
    pub neighbours_hidden: bool,
    /// For a thread, its process.
    pub thread_of: Option<u32>,
    /// The cgroups of the process's other threads, as `/proc` names them. The throttle will not limit these threads.
    /// `None` if unknown.
    pub threads_elsewhere: Option<Vec<PathBuf>>,
}

impl Target {
    /// Finds a target's cgroup. For a process, also verifies that the process is in that cgroup.
    ///
    /// # Errors
    /// When there is no such cgroup or process, or when cgroup2 is not mounted. When the process is in the root cgroup,
    /// or in a cgroup that cannot be seen from here.
    pub fn resolve<P: Places>(&self, places: &P) -> Result<Resolved> {
        match self {
            Target::Cgroup(named) => of_cgroup(places, &places.find(named)?),
            Target::Process(pid) => of_process(places, *pid),
        }
    }
}

fn of_cgroup<P: Places>(places: &P, found: &P::Cgroup) -> Result<Resolved> {
    let (cgroup, cgroup_id) = places.place(found);
    Ok(Resolved {
        cgroup,
        cgroup_id,
        reach: places.reach(found)?,
        neighbours: Vec::new(),
        neighbours_hidden: false,
        thread_of: None,
        threads_elsewhere: Some(Vec::new()),
    })
}

fn of_process<P: Places>(places: &P, pid: u32) -> Result<Resolved> {
    let (found, process) = match places.home(pid)? {
        Home::In { cgroup, process } => (cgroup, process),
        Home::Nowhere => return Err(Error::NoSuchProcess(pid)),
        Home::Removed => return Err(Error::CgroupRemoved(pid)),
        Home::Ended => return Err(Error::Ended(pid)),
        Home::OutOfSight { listed, id } => {
            let seen = places.seen_instead(listed.as_deref(), id)?;
            return Err(Error::CgroupOutOfSight { pid, seen });
        }
    };
    let resolved = of_cgroup(places, &found)?;
    if resolved.reach == Reach::Host {
        return Err(Error::RootCgroup(pid));
    }
    let threads_elsewhere = match places.is_threaded(&found) {
        Ok(false) => Some(Vec::new()),
        _ => places.threads_elsewhere(process, pid).ok(),
    };
    Ok(resolved.of_the_process(places, pid, process, threads_elsewhere))
}

impl Resolved {
    /// Finds the cgroup of a process or of one of its threads. `named` is the number that the user gave.
    fn of_the_process<P: Places>(
        self,
        places: &P,
        named: u32,
        process: u32,
        threads_elsewhere: Option<Vec<PathBuf>>,
    ) -> Self {
        let (mut pids, complete) = places.processes_below(&self.cgroup);
        pids.retain(|other| *other != process);
        pids.sort_unstable();
        // The threads of a process may be in several cgroups.
        pids.dedup();
        let neighbour = |pid| places.name_of(pid).map(|comm| Neighbour { pid, comm });
        Self {
            neighbours: pids.into_iter().filter_map(neighbour).collect(),
            neighbours_hidden: !complete,
            thread_of: (process != named).then_some(process),
            threads_elsewhere,
            ..self
        }
    }
}

/// The host that this process runs on.
#[derive(Debug, Clone, Copy)]
pub struct ThisHost;

impl Places for ThisHost {
    type Cgroup = Cgroup;

    fn find(&self, named: &Path) -> kernel::Result<Cgroup> {
        cgroup::find(named)
    }

    fn place(&self, cgroup: &Cgroup) -> (PathBuf, CgroupId) {
        (cgroup.path().to_owned(), cgroup.id())
    }

    fn reach(&self, cgroup: &Cgroup) -> kernel::Result<Reach> {
        cgroup::reach(cgroup)
    }

    fn is_threaded(&self, cgroup: &Cgroup) -> kernel::Result<bool> {
        cgroup.is_threaded()
    }

    fn home(&self, pid: u32) -> kernel::Result<Home> {
        cgroup::home(pid)
    }

    fn seen_instead(&self, listed: Option<&Path>, id: Option<CgroupId>) -> kernel::Result<String> {
        cgroup::seen_instead(listed, id)
    }

    fn threads_elsewhere(&self, process: u32, thread: u32) -> kernel::Result<Vec<PathBuf>> {
        Ok(cgroup::threads_elsewhere(process, thread)?.into_iter().collect())
    }

    fn processes_below(&self, cgroup: &Path) -> (Vec<u32>, bool) {
        cgroup::processes_below(cgroup)
    }

    fn name_of(&self, pid: u32) -> Option<String> {
        process::name(pid)
    }
}

#[cfg(test)]
#[path = "target_tests.rs"]
mod tests;
