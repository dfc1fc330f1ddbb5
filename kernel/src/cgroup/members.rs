//! The members of a cgroup.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::{Cgroup, parse_proc_cgroup, shown};
use crate::error::{Call, Error, Kind, Result};

/// Lists the pids in a cgroup, without its descendants. For a threaded cgroup, lists the processes that have a thread
/// there. 0 stands for a process outside this pid namespace.
///
/// # Errors
/// When the files cannot be read.
pub fn processes(cgroup: &Path) -> Result<Vec<u32>> {
    match list(&cgroup.join("cgroup.procs")) {
        Err(error) if error.kind() == Kind::Unsupported => {}
        listed => return listed,
    }
    let mut found = BTreeSet::new();
    for thread in threads(cgroup)? {
        // A thread that has ended meanwhile belongs to no process.
        found.extend(if thread == 0 { Some(0) } else { process_of(thread)? });
    }
    Ok(found.into_iter().collect())
}

/// Lists the ids of the threads in a cgroup, without its descendants. The first thread's id is the pid. 0 stands for a
/// thread outside this pid namespace.
///
/// A threaded cgroup lists nothing else.
///
/// # Errors
/// When the file cannot be read.
pub fn threads(cgroup: &Path) -> Result<Vec<u32>> {
    list(&cgroup.join("cgroup.threads"))
}

fn list(path: &Path) -> Result<Vec<u32>> {
    let text = fs::read_to_string(path)
        .map_err(|error| Error::from_io(Call::ReadProc, shown(path), &error))?;
    Ok(numbers(&text).collect())
}

fn numbers(text: &str) -> impl Iterator<Item = u32> {
    text.lines().filter_map(|line| line.parse().ok())
}

/// Returns the process of a thread; `None` if there is no such thread.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn process_of(thread: u32) -> Result<Option<u32>> {
    let path = format!("/proc/{thread}/status");
    match fs::read_to_string(&path) {
        Ok(text) => Ok(tgid(&text)),
        Err(error) => {
            let error = Error::from_io(Call::ReadProc, path, &error);
            if error.kind() == Kind::Vanished { Ok(None) } else { Err(error) }
        }
    }
}

fn tgid(status: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}

impl Cgroup {
    /// Tells whether a process or a thread is in this cgroup, without its descendants. Reads the open cgroup, even if
    /// its path now names another.
    ///
    /// # Errors
    /// When the cgroup cannot be read; `Vanished` when it was removed.
    pub fn has(&self, id: u32) -> Result<bool> {
        is_listed(id, |file| self.read(file)).map_err(|error| self.unread(&error))
    }

    /// Tells whether the cgroup is threaded. The threads of one process may be in several threaded cgroups.
    ///
    /// # Errors
    /// When the cgroup cannot be read.
    pub fn is_threaded(&self) -> Result<bool> {
        match self.read("cgroup.type") {
            // The hierarchy's root has no type.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            read => Ok(read.map_err(|error| self.unread(&error))?.trim_end() == "threaded"),
        }
    }

    fn read(&self, file: &str) -> io::Result<String> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let mut text = String::new();
        File::from(openat(self.as_fd(), file, flags, Mode::empty())?).read_to_string(&mut text)?;
        Ok(text)
    }

    fn unread(&self, error: &io::Error) -> Error {
        Error::from_io(Call::ReadProc, format!("the processes of {}", shown(&self.path)), error)
    }
}

/// Tells whether a file of the cgroup lists a process or a thread. Only `cgroup.procs` lists a process after its first
/// thread has ended. Only the other file lists other threads.
fn is_listed(id: u32, read: impl Fn(&str) -> io::Result<String>) -> io::Result<bool> {
    let has = |text: &str| numbers(text).any(|found| found == id);
    match read("cgroup.procs") {
        // A threaded cgroup lists only threads.
        Err(error) if error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => {}
        processes => {
            if has(&processes?) {
                return Ok(true);
            }
        }
    }
    Ok(has(&read("cgroup.threads")?))
}

/// Lists the pids in a cgroup and its descendants, and tells whether the list is complete. A cgroup that vanishes
/// meanwhile does not matter.
pub fn processes_below(path: &Path) -> (Vec<u32>, bool) {
    let mut pids = Vec::new();
    let complete = collect_below(path, &mut pids);
    (pids, complete)
}

fn collect_below(path: &Path, pids: &mut Vec<u32>) -> bool {
    let mut complete = match processes(path) {
        Ok(own) => {
            // 0 stands for a process outside this pid namespace.
            let is_complete = !own.contains(&0);
            pids.extend(own.into_iter().filter(|pid| *pid != 0));
            is_complete
        }
        Err(error) => error.kind() == Kind::Vanished,
    };
    let Ok(listing) = fs::read_dir(path) else { return !path.exists() && complete };
    for entry in listing.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            complete &= collect_below(&entry.path(), pids);
        }
    }
    complete
}

/// Returns the cgroups of a process's threads that are neither in the cgroup of `thread` nor below it. The paths are
/// relative to the root of this thread's cgroup namespace.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn threads_elsewhere(process: u32, thread: u32) -> Result<BTreeSet<PathBuf>> {
    let of = |thread: u32| -> Result<Option<PathBuf>> {
        let path = format!("/proc/{process}/task/{thread}/cgroup");
        match fs::read(&path) {
            Ok(text) => Ok(parse_proc_cgroup(&text)),
            Err(error) => {
                let error = Error::from_io(Call::ReadProc, path, &error);
                if error.kind() == Kind::Vanished { Ok(None) } else { Err(error) }
            }
        }
    };
    let folder = format!("/proc/{process}/task");
    let listed = fs::read_dir(&folder)
        .map_err(|error| Error::from_io(Call::ReadProc, folder.as_str(), &error))?;
    let names = listed.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let Some(here) = of(thread)? else { return Ok(BTreeSet::new()) };
    let mut cgroups = Vec::new();
    for other in names {
        cgroups.extend(of(other)?);
    }
    Ok(elsewhere(&here, cgroups))
}

/// Returns the cgroups that are neither `here` nor below it.
fn elsewhere(here: &Path, cgroups: impl IntoIterator<Item = PathBuf>) -> BTreeSet<PathBuf> {
    cgroups.into_iter().filter(|path| !path.starts_with(here)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_of_a_thread_is_told_by_its_status() {
        assert_eq!(tgid("Name:\tx\nTgid:\t77\nPid:\t78\n"), Some(77));
        assert_eq!(tgid("Name:\tTgid\n"), None);
        let own = std::process::id();
        let thread = std::thread::spawn(|| {
            process_of(u32::try_from(nix::unistd::gettid().as_raw()).unwrap()).unwrap()
        });
        assert_eq!(thread.join().unwrap(), Some(own));
        assert_eq!(process_of(u32::MAX).unwrap(), None);
    }

    #[test]
    fn a_process_or_a_thread_is_there_if_either_list_has_it_and_an_error_is_no_answer() {
        let error = |errno: Errno| Err(io::Error::from_raw_os_error(errno as i32));
        let text = |text: &str| Ok(text.to_owned());
        let has = |processes: &dyn Fn() -> io::Result<String>,
                   threads: &dyn Fn() -> io::Result<String>| {
            let read = |file: &str| match file {
                "cgroup.procs" => processes(),
                "cgroup.threads" => threads(),
                other => panic!("{other}"),
            };
            is_listed(7, read).map_err(|error| error.raw_os_error())
        };
        let (no, yes) = (|| text("1\n77\n70\n"), || text("1\n7\n"));
        let threaded = || error(Errno::EOPNOTSUPP);
        assert_eq!(has(&no, &no), Ok(false));
        assert_eq!(has(&no, &yes), Ok(true), "a thread");
        assert_eq!(has(&yes, &no), Ok(true), "a process whose first thread has ended");
        assert_eq!(has(&threaded, &yes), Ok(true));
        assert_eq!(has(&threaded, &no), Ok(false));
        assert_eq!(has(&|| text(""), &|| text("")), Ok(false));
        let gone = || error(Errno::ENODEV);
        let expected = Err(Some(Errno::ENODEV as i32));
        assert_eq!([has(&gone, &yes), has(&no, &gone), has(&threaded, &gone)], [expected; 3]);
    }

    #[test]
    fn elsewhere_is_what_is_neither_the_cgroup_nor_below_it() {
        let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
        let all = paths(&["/a", "/a/b", "/a/b/c", "/ab", "/", "/d", "/d", "/d/a"]);
        let found = elsewhere(Path::new("/a"), all.clone());
        assert_eq!(found, paths(&["/", "/ab", "/d", "/d/a"]).into_iter().collect());
        assert_eq!(elsewhere(Path::new("/"), all), BTreeSet::new());
    }

    #[test]
    fn the_threads_of_an_ordinary_process_are_together() {
        let own = std::process::id();
        assert_eq!(threads_elsewhere(own, own).unwrap(), BTreeSet::new());
        assert!(threads_elsewhere(u32::MAX, 1).is_err());
    }

    /// Creates a folder like a cgroup's, with these processes.
    fn cgroup(path: &Path, processes: &str) -> PathBuf {
        fs::create_dir_all(path).unwrap();
        fs::write(path.join("cgroup.procs"), processes).unwrap();
        path.to_owned()
    }

    fn below(path: &Path) -> (bool, Vec<u32>) {
        let (mut pids, complete) = processes_below(path);
        pids.sort_unstable();
        (complete, pids)
    }

    #[test]
    fn the_processes_below_a_cgroup_are_those_of_all_its_cgroups() {
        let dir = tempfile::tempdir().unwrap();
        cgroup(dir.path(), "1\n2\n");
        cgroup(&dir.path().join("a"), "");
        cgroup(&dir.path().join("a/b"), "3\n");
        assert_eq!(below(dir.path()), (true, vec![1, 2, 3]));
    }

    #[test]
    fn a_process_outside_of_this_pid_namespace_is_one_more() {
        let dir = tempfile::tempdir().unwrap();
        cgroup(dir.path(), "0\n1\n");
        assert_eq!(below(dir.path()), (false, vec![1]));
    }

    #[test]
    fn a_cgroup_that_goes_away_meanwhile_has_no_processes() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(below(&dir.path().join("gone")), (true, vec![]));
    }

    #[test]
    fn a_cgroup_that_cannot_be_asked_may_have_more_processes() {
        let dir = tempfile::tempdir().unwrap();
        cgroup(dir.path(), "1\n");
        // These files cannot be read.
        fs::create_dir_all(dir.path().join("odd/cgroup.procs")).unwrap();
        assert_eq!(below(dir.path()), (false, vec![1]));
        // This folder can neither be read nor shown to be gone.
        assert_eq!(below(&dir.path().join("long".repeat(100))), (false, vec![]));
    }
}
