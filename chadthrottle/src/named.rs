//! Checks whether the process that the user named (`--pid`) still lives in the limited cgroup. A process that moves
//! leaves its open sockets in the old cgroup. It opens the next ones in the new cgroup.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Error;
use kernel::cgroup::{Home, home};
use kernel::{CgroupId, process::start_time};
use terminal::escape;
use terminal::exit::not_done;

use crate::in_force::Pace;
use crate::words::shown;
use crate::words::{say, warn};

/// A process and its last known place.
#[derive(Debug)]
pub(crate) struct Named {
    pid: u32,
    name: String,
    /// The start time of the process. The kernel may give its pid to another process later.
    start_time: u64,
    /// The directory of the limited cgroup.
    limited: PathBuf,
    at: At,
    pace: Pace,
}

/// The place of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
enum At {
    /// The limited cgroup, or one below it.
    Home,
    /// Another cgroup, with this directory.
    Elsewhere(PathBuf),
    /// A cgroup that is invisible from here.
    OutOfSight,
}

impl Named {
    /// Creates the record of a process. Returns `None` if the process has ended.
    pub(crate) fn new(pid: u32, limited: &Path) -> Option<Self> {
        let start_time = start_time(pid).ok().flatten()?;
        let name = std::fs::read(format!("/proc/{pid}/comm")).ok()?;
        let name = String::from_utf8_lossy(&name).trim_end().to_owned();
        Some(Self {
            pid,
            name,
            start_time,
            limited: limited.to_owned(),
            at: At::Home,
            pace: Pace::new(),
        })
    }

    /// Looks for the process if it is time to, and prints what is new. `armed` is the cgroup that is limited now.
    pub(crate) fn look(&mut self, armed: Option<CgroupId>) {
        if self.pace.is_due() {
            let began = Instant::now();
            self.look_now(armed);
            self.pace.note(began);
        }
    }

    /// Looks for the process at once. It prints nothing if the place is unknown.
    pub(crate) fn look_now(&mut self, armed: Option<CgroupId>) {
        let found = home(self.pid);
        let started = start_time(self.pid).ok().flatten();
        let at = self.judge(found, started, armed);
        let Some(at) = self.note(at) else { return };
        match left(at) {
            Some(left) => warn(&format!("{} {left}", self.called())),
            None => say(&format!("{} is back in the limited cgroup", self.called())),
        }
    }

    /// Returns the place of the process. The caller read the place before the start time, so an unchanged start time
    /// proves that the place belongs to this process.
    fn judge(
        &self,
        found: kernel::Result<Home>,
        started: Option<u64>,
        armed: Option<CgroupId>,
    ) -> Option<At> {
        started.filter(|&it| it == self.start_time)?;
        match found {
            Ok(found) => at(&found, armed, &self.limited),
            Err(error) => {
                tracing::debug!("where process {} lives cannot be seen: {error}", self.pid);
                None
            }
        }
    }

    /// Notes the place and returns it if it is new. While the place is unknown, the last known place stays.
    fn note(&mut self, at: Option<At>) -> Option<&At> {
        self.at = at.filter(|at| *at != self.at)?;
        Some(&self.at)
    }

    /// Returns why the limit fell short, if the last known place of the process was elsewhere.
    pub(crate) fn short(&self) -> Option<Error> {
        let why = || {
            format!(
                "{} left the limited cgroup, so the limit did not hold it to the end",
                self.called()
            )
        };
        (self.at != At::Home).then(|| not_done(why()).into())
    }

    fn called(&self) -> String {
        format!("process {} ({})", self.pid, escape(&self.name))
    }
}

/// Returns the place of the process. `None` means that it has no cgroup any more, or that nobody can tell.
fn at(found: &Home, armed: Option<CgroupId>, limited: &Path) -> Option<At> {
    match found {
        Home::In { cgroup, .. } => Some(place(Some(cgroup.path()), cgroup.id(), armed, limited)),
        Home::OutOfSight { id, .. } => Some(place(None, (*id)?, armed, limited)),
        Home::Removed | Home::Ended | Home::Nowhere => None,
    }
}

/// Returns which place a cgroup is. The id decides first, because another mount may cover the path of the limited
/// cgroup. For cgroups below, the path decides if it is visible.
fn place(path: Option<&Path>, id: CgroupId, armed: Option<CgroupId>, limited: &Path) -> At {
    match path {
        _ if Some(id) == armed => At::Home,
        Some(path) if path.starts_with(limited) => At::Home,
        Some(path) => At::Elsewhere(path.to_owned()),
        None => At::OutOfSight,
    }
}

/// Returns the warning that the process has left, and what to do about it.
fn left(at: &At) -> Option<String> {
    let unlimited = "this limit does not hold what it opens there";
    match at {
        At::Home => None,
        At::Elsewhere(cgroup) => Some(format!(
            "has left the limited cgroup for {cgroup}: {unlimited}; to hold that, limit that cgroup as well (--cgroup \
             {cgroup})",
            cgroup = shown(cgroup)
        )),
        At::OutOfSight => Some(format!(
            "has left the limited cgroup for one that cannot be seen from here: {unlimited}; limit it on the host"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_ended_or_cannot_be_seen_is_not_taken_for_moved() {
        let at = |found: &Home| at(found, Some(CgroupId(7)), Path::new("/sys/fs/cgroup/a"));
        assert_eq!(
            [Home::Removed, Home::Ended, Home::Nowhere].map(|it| at(&it)),
            [None, None, None]
        );
        let hidden = |id| at(&Home::OutOfSight { listed: Some("/../b".into()), id });
        assert_eq!(hidden(Some(CgroupId(8))), Some(At::OutOfSight));
        assert_eq!(hidden(Some(CgroupId(7))), Some(At::Home), "something is mounted over it");
        assert_eq!(hidden(None), None);
        assert!(left(&At::OutOfSight).unwrap().contains("cannot be seen"));
        assert_eq!(left(&At::Home), None);
    }

    #[test]
    fn another_process_that_has_the_number_now_is_not_taken_for_moved() {
        let named = Named::new(std::process::id(), Path::new("/a")).unwrap();
        let judged = |started| {
            let away = Home::OutOfSight { listed: None, id: Some(CgroupId(8)) };
            named.judge(Ok(away), started, Some(CgroupId(7)))
        };
        assert_eq!(judged(Some(named.start_time)), Some(At::OutOfSight));
        assert_eq!(judged(Some(named.start_time + 1)), None, "another one has the number");
        assert_eq!(judged(None), None, "it has ended");
    }

    #[test]
    fn the_limited_cgroup_and_all_below_it_are_home_and_nothing_else_is() {
        const ID: CgroupId = CgroupId(7);
        let at = |path, id, armed| {
            place(Some(Path::new(path)), CgroupId(id), armed, Path::new("/sys/fs/cgroup/a"))
        };
        let elsewhere = |path: &str| At::Elsewhere(path.into());
        for armed in [Some(ID), Some(CgroupId(6)), None] {
            for home in ["/sys/fs/cgroup/a", "/sys/fs/cgroup/a/b", "/sys/fs/cgroup/a/b/c"] {
                assert_eq!(at(home, 8, armed), At::Home, "{home} {armed:?}");
            }
            for other in ["/sys/fs/cgroup", "/sys/fs/cgroup/ab", "/sys/fs/cgroup/b/a", "/"] {
                assert_eq!(at(other, 8, armed), elsewhere(other), "{other} {armed:?}");
            }
        }
        // The limited cgroup at another path, through another mount.
        assert_eq!(at("/mnt/a", 7, Some(ID)), At::Home);
        assert_eq!(at("/mnt/a", 7, Some(CgroupId(6))), elsewhere("/mnt/a"));
    }

    #[test]
    fn what_is_new_is_told_once_and_where_it_was_seen_last_decides_in_the_end() {
        let (away, further) = (At::Elsewhere("/b".into()), At::Elsewhere("/c".into()));
        let mut named = Named::new(std::process::id(), Path::new("/a")).unwrap();
        for (seen, is_new, is_short) in [
            (Some(At::Home), false, false),
            (None, false, false),
            (Some(away.clone()), true, true),
            (Some(away.clone()), false, true),
            (None, false, true),
            (Some(further), true, true),
            (Some(At::OutOfSight), true, true),
            (Some(At::Home), true, false),
            (None, false, false),
            (Some(away), true, true),
        ] {
            let told = named.note(seen.clone()).cloned();
            assert_eq!(told, seen.clone().filter(|_| is_new), "{seen:?}");
            assert_eq!(named.short().is_some(), is_short, "{seen:?}");
        }
        let why = named.short().unwrap();
        assert_eq!(crate::words::exit_status(&why), 1);
        let called = format!("process {} (", std::process::id());
        assert!(why.to_string().starts_with(&called), "{why}");
    }

    #[test]
    fn where_it_went_is_said_as_the_option_takes_it() {
        let said = left(&At::Elsewhere("/sys/fs/cgroup/b".into())).unwrap();
        assert!(said.contains("left the limited cgroup for /sys/fs/cgroup/b: "), "{said}");
        assert!(said.ends_with("(--cgroup /sys/fs/cgroup/b)"), "{said}");
    }
}
