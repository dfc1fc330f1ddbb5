//! Finding the cgroup of a process, with proof.

use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::hierarchy::{View, views};
use super::{Cgroup, members, of_process, shown};
use crate::error::{Call, Error, Kind, Result};
use crate::host::process::{birth, is_proc_ours, start_time};
use crate::object::ids::CgroupId;
use crate::sys;

/// The most attempts at finding a process that keeps moving between cgroups.
const ATTEMPTS: usize = 8;

/// The location of a process.
#[derive(Debug)]
pub enum Home<C = Cgroup> {
    /// In this cgroup. Either the cgroup has the id that the kernel reports for the process (6.13), or it lists the
    /// process.
    In {
        /// The cgroup. Its path is below the best of the mounts that show it.
        cgroup: C,
        /// The process's pid. The caller may have asked for another of its threads.
        process: u32,
    },
    /// In a cgroup that no visible mount shows.
    OutOfSight {
        /// The cgroup's path relative to the root of this thread's cgroup namespace, if `/proc` has it.
        listed: Option<PathBuf>,
        /// The cgroup's id, if the kernel reports it.
        id: Option<CgroupId>,
    },
    /// In a removed cgroup.
    Removed,
    /// The process is ending, or is a zombie: it has ended, and its parent has not waited for it.
    Ended,
    /// There is no such process.
    Nowhere,
}

/// Finds the cgroup of a process, or of a thread, of this pid namespace.
///
/// A path alone is no proof. A path is relative to one cgroup namespace, and a mount need not be.
///
/// # Errors
/// When no mount of the hierarchy is visible, when no source names the cgroup, or when the process keeps moving.
pub fn home(pid: u32) -> Result<Home> {
    home_as_told(pid, &sys::task)
}

/// Finds the cgroup. For `ask`, see [`sys::task`].
fn home_as_told(pid: u32, ask: &dyn Fn(u32) -> nix::Result<sys::Task>) -> Result<Home> {
    for _ in 0..ATTEMPTS {
        if let Some(home) = look(pid, &views()?, ask)? {
            return Ok(home);
        }
    }
    Err(untold(pid, Errno::EAGAIN, "it keeps moving between cgroups: try again"))
}

/// Looks once. Returns `None` if the process has moved meanwhile.
fn look(
    pid: u32,
    views: &[View],
    ask: &dyn Fn(u32) -> nix::Result<sys::Task>,
) -> Result<Option<Home>> {
    let told = match ask(pid) {
        Err(Errno::ESRCH) => return Ok(Some(Home::Nowhere)),
        told => told.ok(),
    };
    // A `/proc` of another pid namespace describes another process under this pid.
    let listed = if is_proc_ours().unwrap_or(false) { Some(of_process(pid)) } else { None };
    let listed = match (told, listed) {
        (Some(_), listed) => listed.and_then(Result::ok),
        (None, Some(Err(error))) if error.kind() == Kind::Vanished => {
            return Ok(Some(Home::Nowhere));
        }
        (None, Some(listed)) => Some(listed?),
        (None, None) => {
            let why = "/proc is of another pid namespace, so which cgroup it lives in cannot be told: mount -t proc \
                       proc /proc, or run it on the host";
            return Err(untold(pid, Errno::ENODATA, why));
        }
    };
    let id = told.map(|task| CgroupId(task.cgroup));
    let found = match (id, &listed) {
        (Some(id), _) => by_id(views, id)?,
        (None, Some(listed)) => by_path(views, listed, |cgroup| cgroup.has(pid))?,
        (None, None) => None,
    };
    // The mount shows the cgroup that the kernel reports.
    let is_shown = id.is_some() && found.is_some();
    let is_there = match &found {
        Some(cgroup) => match cgroup.has(pid) {
            Err(error) if error.kind() == Kind::Vanished => false,
            // The kernel's id is a proof too.
            Err(_) if id.is_some() => true,
            listed => listed?,
        },
        None => false,
    };
    if let (Some(cgroup), true) = (found, is_there) {
        let process = match told {
            Some(task) => task.process,
            None => members::process_of(pid)?.unwrap_or(pid),
        };
        return Ok(Some(Home::In { cgroup, process }));
    }
    if start_time(pid) == Ok(None) {
        // A zombie stays visible until its parent has waited for it.
        let is_left = birth(pid)?.is_some();
        return Ok(Some(if is_left { Home::Ended } else { Home::Nowhere }));
    }
    // Only a process that has not moved meanwhile is out of sight.
    if ask(pid).ok() != told || (id.is_none() && of_process(pid).ok() != listed) {
        return Ok(None);
    }
    if is_shown {
        // A cgroup stops listing an ending process some time before the process is a zombie.
        return Ok(Some(Home::Ended));
    }
    let is_removed =
        listed.as_ref().is_some_and(|path| path.as_os_str().as_encoded_bytes().ends_with(REMOVED));
    Ok(Some(if is_removed { Home::Removed } else { Home::OutOfSight { listed, id } }))
}

/// The text that the kernel appends to the path of a removed cgroup. A name may end like that too.
const REMOVED: &[u8] = b" (deleted)";

fn by_id(views: &[View], id: CgroupId) -> Result<Option<Cgroup>> {
    for view in views {
        if let Some(found) = view.find(id)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Returns the cgroup at a path relative to this thread's cgroup namespace, if it is the expected one.
pub(super) fn by_path(
    views: &[View],
    path: &Path,
    is_it: impl Fn(&Cgroup) -> Result<bool>,
) -> Result<Option<Cgroup>> {
    for view in views {
        for candidate in view.candidates(path)? {
            let found = match Cgroup::open(&candidate) {
                Err(error) if error.kind() == Kind::Vanished => continue,
                opened => opened?,
            };
            match is_it(&found) {
                Ok(true) => return Ok(Some(found)),
                Err(error) if error.kind() != Kind::Vanished => return Err(error),
                _ => {}
            }
        }
    }
    Ok(None)
}

/// Returns the root of this thread's cgroup namespace, with its path below a mount that shows more. `None` if that is
/// unknown.
///
/// # Errors
/// When the mounts cannot be searched.
pub(super) fn namespace_root(views: &[View], seen_in: &View) -> Result<Option<Cgroup>> {
    if seen_in.root() == Path::new("/") {
        return seen_in.find(seen_in.top().id());
    }
    if let Some(own) = views.iter().find(|view| view.root() == Path::new("/")) {
        return seen_in.find(own.top().id());
    }
    let pid = std::process::id();
    let own = of_process(pid)?;
    let at = match sys::task(pid) {
        Ok(task) => seen_in.find(CgroupId(task.cgroup))?,
        Err(_) => by_path(std::slice::from_ref(seen_in), &own, |cgroup| cgroup.has(pid))?,
    };
    let Some(at) = at else { return Ok(None) };
    Ok(without(at.path(), &own).and_then(|path| Cgroup::open(path).ok()))
}

/// Returns the part of a path before the names at its end. `None` if the path does not end like that, or names are
/// unknown.
fn without<'a>(path: &'a Path, end: &Path) -> Option<&'a Path> {
    let end = end.strip_prefix("/").ok()?;
    if end.components().any(|it| it == std::path::Component::ParentDir) || !path.ends_with(end) {
        return None;
    }
    path.ancestors().nth(end.components().count())
}

fn untold(pid: u32, errno: Errno, why: &str) -> Error {
    Error::found(Call::ReadProc, format!("the cgroup of process {pid}"), errno).with_detail(why)
}

/// Describes a cgroup out of sight: its location, and the mounts here.
///
/// # Errors
/// When no mount is visible.
pub fn seen_instead(listed: Option<&Path>, id: Option<CgroupId>) -> Result<String> {
    let views = views()?;
    let what = match (listed, id) {
        (Some(path), Some(id)) => format!("{} (id {id})", shown(path)),
        (Some(path), None) => shown(path),
        (None, Some(id)) => format!("a cgroup with id {id}"),
        (None, None) => "a cgroup that nothing names".to_owned(),
    };
    let mounts: Vec<_> = views
        .iter()
        .map(|view| format!("{} on {}", shown(view.root()), shown(view.point())))
        .collect();
    let listed_outside = listed.is_some_and(|path| path.starts_with("/.."));
    let whose = if listed_outside { ", which is outside of this cgroup namespace" } else { "" };
    Ok(format!("{what}{whose}; what is mounted here: {}", mounts.join(", ")))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::process::Command;

    use testkit::cgroup::{ScratchCgroup, enter};
    use testkit::process::Mortal;

    use super::*;

    #[test]
    fn the_top_of_a_namespace_is_what_stands_before_the_path_in_it() {
        let root = |path: &'static str, end: &str| without(Path::new(path), Path::new(end));
        assert_eq!(root("/mnt/a/b/c", "/b/c"), Some(Path::new("/mnt/a")));
        assert_eq!(root("/mnt/a", "/"), Some(Path::new("/mnt/a")));
        assert_eq!(root("/mnt/a/b", "/../b"), None);
        assert_eq!(root("/mnt/a/b", "/c"), None);
        assert_eq!(root("/mnt/ab", "/b"), None);
    }

    /// Answers like a kernel before 6.13.
    fn before_6_13(_: u32) -> nix::Result<sys::Task> {
        Err(Errno::EOPNOTSUPP)
    }

    fn cgroup_of(home: Result<Home>) -> Cgroup {
        match home {
            Ok(Home::In { cgroup, .. }) => cgroup,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn this_process_is_found_where_it_is_listed() {
        let own = std::process::id();
        let Home::In { cgroup, process } = home(own).unwrap() else { panic!() };
        assert_eq!(process, own);
        assert!(members::processes(cgroup.path()).unwrap().contains(&own));
        assert_eq!(cgroup_of(home_as_told(own, &before_6_13)).id(), cgroup.id());
        assert!(matches!(home_as_told(u32::MAX, &before_6_13), Ok(Home::Nowhere)));
        assert!(matches!(home(u32::MAX), Ok(Home::Nowhere)));
    }

    /// The name of the process's cgroup ends like that of a removed one.
    #[test]
    fn root_a_process_is_found_by_its_id_and_by_its_path_and_told_of_when_it_is_gone() {
        let scratch = ScratchCgroup::new("home");
        let (odd, removed) = (scratch.child("a (deleted)"), scratch.child("b"));
        let start = |command: &str| {
            let _inside = enter(if command == "sleep" { &odd } else { &removed });
            Mortal::from(Command::new(command).arg("1000").spawn().unwrap())
        };
        let sleep = start("sleep");
        let mut ended = start("true");
        let ways: [&dyn Fn(u32) -> nix::Result<sys::Task>; 2] = [&sys::task, &before_6_13];
        for ask in ways {
            assert_eq!(cgroup_of(home_as_told(sleep.id(), ask)).path(), odd);
            // The parent has not waited for the process yet.
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
            while !matches!(home_as_told(ended.id(), ask), Ok(Home::Ended)) {
                assert!(std::time::Instant::now() < deadline);
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
        ended.wait().unwrap();
        // The result is the same if the kernel has just reported the process.
        let told = |process| Ok(sys::Task { process, cgroup: u64::MAX });
        let ways: [&dyn Fn(u32) -> nix::Result<sys::Task>; 3] = [&sys::task, &before_6_13, &told];
        for ask in ways {
            assert!(matches!(home_as_told(ended.id(), ask), Ok(Home::Nowhere)));
        }
        // A cgroup does not list an ending process.
        let other = Cgroup::open(&removed).unwrap().id().0;
        let told = |process| Ok(sys::Task { process, cgroup: other });
        assert!(matches!(home_as_told(sleep.id(), &told), Ok(Home::Ended)));
    }

    /// The process moves between the two looks.
    #[test]
    fn root_a_process_that_moves_meanwhile_is_looked_for_again() {
        let scratch = ScratchCgroup::new("moves");
        let (here, there) = (scratch.child("here"), scratch.child("there"));
        let sleep = {
            let _inside = enter(&here);
            Mortal::from(Command::new("sleep").arg("1000").spawn().unwrap())
        };
        let pid = sleep.id();
        // The kernel reported the cgroup just before the process moved.
        let before = Cgroup::open(&there).unwrap().id().0;
        let asked = Cell::new(0);
        let told_before = |process| {
            asked.set(asked.get() + 1);
            if asked.get() == 1 {
                return Ok(sys::Task { process, cgroup: before });
            }
            sys::task(process)
                .or(Ok(sys::Task { process, cgroup: Cgroup::open(&here).unwrap().id().0 }))
        };
        assert_eq!(cgroup_of(home_as_told(pid, &told_before)).path(), here);
        assert!(asked.get() > 2, "{asked:?}");

        // Before 6.13, `/proc` has the path. No mount shows it here.
        let out_of_sight = look(pid, &[], &before_6_13).unwrap();
        assert!(
            matches!(out_of_sight, Some(Home::OutOfSight { id: None, .. })),
            "{out_of_sight:?}"
        );
        asked.set(0);
        let moving = |process: u32| {
            asked.set(asked.get() + 1);
            if asked.get() == 2 {
                std::fs::write(there.join("cgroup.procs"), process.to_string()).unwrap();
            }
            before_6_13(process)
        };
        assert!(matches!(look(pid, &[], &moving), Ok(None)));
        // A process that keeps moving has no known location.
        let restless = |process| {
            asked.set(asked.get() + 1);
            Ok(sys::Task { process, cgroup: u64::MAX - asked.get() })
        };
        let error = home_as_told(pid, &restless).unwrap_err();
        assert_eq!(error.errno(), Errno::EAGAIN);
    }

    #[test]
    fn root_a_thread_in_a_threaded_cgroup_is_found_there_and_its_process_named() {
        let scratch = ScratchCgroup::new("threaded");
        let (above, inside) = (scratch.child("p"), scratch.child("p/t"));
        let own = std::process::id();
        let _inside = enter(&above);
        std::fs::write(inside.join("cgroup.type"), "threaded").unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let thread = u32::try_from(nix::unistd::gettid().as_raw()).unwrap();
                std::fs::write(inside.join("cgroup.threads"), thread.to_string()).unwrap();
                let ways: [&dyn Fn(u32) -> nix::Result<sys::Task>; 2] = [&sys::task, &before_6_13];
                for ask in ways {
                    let Home::In { cgroup, process } = home_as_told(thread, ask).unwrap() else {
                        panic!()
                    };
                    assert_eq!((cgroup.path(), process), (inside.as_path(), own));
                    assert!(cgroup.is_threaded().unwrap());
                    assert_eq!(cgroup_of(home_as_told(own, ask)).path(), above);
                }
                assert_eq!(members::processes(&inside).unwrap(), [own]);
                assert_eq!(members::threads(&inside).unwrap(), [thread]);
                let elsewhere = members::threads_elsewhere(own, thread).unwrap();
                assert!(elsewhere.iter().all(|it| it.ends_with("p")), "{elsewhere:?}");
                assert_eq!(elsewhere.len(), 1);
                assert!(members::threads_elsewhere(own, own).unwrap().is_empty());
            });
        });
    }
}
