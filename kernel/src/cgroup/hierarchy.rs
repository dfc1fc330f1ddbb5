//! The mounts of the cgroup2 hierarchy: how much each shows, and finding cgroups through them.
//!
//! `/proc/PID/cgroup` and mountinfo name cgroups relative to the reader's cgroup namespace. A mount keeps the top that
//! it had when it was made. So a path alone proves nothing, and ids decide whether two cgroups are the same.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::DirEntryExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;

use super::{Cgroup, Mount, ROOT_CGROUP_ID, mounts, shown};
use crate::error::{Call, Error, Kind, Result};
use crate::object::ids::CgroupId;

/// How much of the hierarchy a mount shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shows {
    /// The whole hierarchy.
    Everything,
    /// The part that belongs to this thread's cgroup namespace, such as a container's.
    Namespace,
    /// Another part, whose top is mounted here.
    Part,
}

/// A mount of the cgroup2 hierarchy that no other mount covers.
#[derive(Debug)]
pub struct View {
    /// The path of the mount's top, relative to the root of this thread's cgroup namespace. `/..` is above that root.
    root: PathBuf,
    point: PathBuf,
    top: Cgroup,
}

impl View {
    /// Returns the mount that shows the most. Among equals, returns the one with the plainest path.
    ///
    /// # Errors
    /// `Vanished` when cgroup2 is not mounted, or another mount covers it.
    pub fn best() -> Result<Self> {
        // `views` fails instead of returning an empty list.
        Ok(views()?.swap_remove(0))
    }

    /// Returns the mount point.
    pub fn point(&self) -> &Path {
        &self.point
    }

    /// Returns the cgroup at the mount's top.
    pub fn top(&self) -> &Cgroup {
        &self.top
    }

    /// Returns the path of the mount's top as mountinfo names it, relative to the root of this thread's cgroup
    /// namespace.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Returns how much of the hierarchy the mount shows.
    pub fn shows(&self) -> Shows {
        if self.top.id() == ROOT_CGROUP_ID {
            Shows::Everything
        } else if self.root == Path::new("/") {
            Shows::Namespace
        } else {
            Shows::Part
        }
    }

    /// Describes the mount's top in words. `None` if the top is the hierarchy's root.
    pub fn top_in_words(&self) -> Option<&'static str> {
        match self.shows() {
            Shows::Everything => None,
            Shows::Namespace => Some(
                "the root of a cgroup namespace (a container's, say), which hides what is beside it",
            ),
            Shows::Part => Some("not the hierarchy's root, but a part of it that is mounted there"),
        }
    }

    /// Finds a cgroup by its id, with its path below this mount. `None` if the mount does not show the cgroup, or it is
    /// gone.
    ///
    /// # Errors
    /// When the mount cannot be searched.
    pub fn find(&self, id: CgroupId) -> Result<Option<Cgroup>> {
        if id == self.top.id() {
            return Ok(self.at(&self.point, id));
        }
        match Cgroup::open_by_id(&self.top, id) {
            Ok(found) => Ok(self.at(found.path(), id)),
            Err(error) if error.kind() == Kind::Vanished => Ok(None),
            // Opening by id needs a capability. Without it, search every cgroup.
            Err(_) => Ok(self.search(id)?.and_then(|path| self.at(&path, id))),
        }
    }

    /// Returns the cgroup at a path, if the path is below this mount and the cgroup has this id.
    fn at(&self, path: &Path, id: CgroupId) -> Option<Cgroup> {
        let is_here = path.starts_with(&self.point);
        Cgroup::open(path).ok().filter(|found| is_here && found.id() == id)
    }

    fn search(&self, id: CgroupId) -> Result<Option<PathBuf>> {
        let mut folders = vec![self.point.clone()];
        while let Some(folder) = folders.pop() {
            for child in children(&folder)? {
                if child.ino() == id.0 {
                    return Ok(Some(child.path()));
                }
                folders.push(child.path());
            }
        }
        Ok(None)
    }

    /// Returns the possible directories, below this mount, of a cgroup path relative to this thread's cgroup namespace.
    /// There are several if names in between are unknown.
    pub(super) fn candidates(&self, path: &Path) -> Result<Vec<PathBuf>> {
        let Some(Beneath { unnamed, tail }) = beneath(&self.root, path) else {
            return Ok(Vec::new());
        };
        let mut folders = vec![self.point.clone()];
        for _ in 0..unnamed {
            let mut next = Vec::new();
            for folder in &folders {
                next.extend(children(folder)?.into_iter().map(|child| child.path()));
            }
            folders = next;
        }
        Ok(folders.into_iter().map(|folder| folder.join(&tail)).collect())
    }
}

/// Lists the child cgroups. A folder that vanishes meanwhile has none.
pub(super) fn children(folder: &Path) -> Result<Vec<fs::DirEntry>> {
    let listed = match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => {
            listed.map_err(|error| Error::from_io(Call::OpenCgroup, shown(folder), &error))?
        }
    };
    let is_folder = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    Ok(listed.flatten().filter(is_folder).collect())
}

/// The path from one cgroup down to another.
#[derive(Debug, PartialEq, Eq)]
struct Beneath {
    /// The number of levels with unknown names at the beginning.
    unnamed: usize,
    tail: PathBuf,
}

/// Returns the path from `top` down to `path`, `None` if `path` is not below `top`.
///
/// Both are relative to the root of one cgroup namespace, as the kernel writes them. `..` comes only at the beginning,
/// and only as often as needed.
fn beneath(top: &Path, path: &Path) -> Option<Beneath> {
    let (up, down) = split(path);
    let (top_up, top_down) = split(top);
    let unnamed = top_up.checked_sub(up)?;
    match unnamed {
        0 => Some(Beneath { unnamed, tail: down.strip_prefix(top_down).ok()?.to_owned() }),
        // If `path` were below `top`, the kernel would have written fewer `..`.
        _ if top_down != Path::new("") => None,
        unnamed => Some(Beneath { unnamed, tail: down }),
    }
}

/// Splits a path into the number of its `..` and the names after them.
fn split(path: &Path) -> (usize, PathBuf) {
    let up = path.components().filter(|it| *it == Component::ParentDir).count();
    (up, path.components().filter(|it| matches!(it, Component::Normal(_))).collect())
}

/// Lists the visible mounts of the hierarchy, those that show the most first. The list has at least one.
///
/// # Errors
/// `Vanished` when cgroup2 is not mounted or another mount covers it; `Denied` without permission to open it.
pub fn views() -> Result<Vec<View>> {
    let mounts = mounts("cgroup2")?;
    let (mut views, mut refused) = (Vec::new(), None);
    for mount in &mounts {
        match view(mount) {
            Ok(found) => views.extend(found),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    if views.is_empty() {
        return Err(refused.unwrap_or_else(|| none_of(&mounts)));
    }
    // Sorting is stable, so the first in mountinfo wins among equals.
    views.sort_by_key(rank);
    Ok(views)
}

/// Says why no mount is visible.
fn none_of(mounts: &[Mount]) -> Error {
    let what = match mounts.first() {
        None => "it is not mounted here".to_owned(),
        Some(mount) => {
            format!(
                "it is mounted on {}, but something else lies on top of it",
                shown(&mount.point)
            )
        }
    };
    Error::found(Call::FindCgroup2, "the cgroup2 hierarchy", Errno::ENOENT).with_detail(format!(
        "{what}, so nobody can tell what is attached to it: mount it on a directory of its own (mount -t cgroup2 none \
         DIRECTORY), or run this on the host"
    ))
}

/// Ranks a mount that shows more lower. In a cgroup namespace `/` is the namespace's root, and the host's root looks
/// like `/../..`, so only the id identifies it.
fn rank(view: &View) -> (bool, usize) {
    (view.top.id() != ROOT_CGROUP_ID, split(&view.root).1.components().count())
}

/// Opens a mount. Returns `None` if another mount covers it.
///
/// # Errors
/// When the mount cannot be opened.
fn view(mount: &Mount) -> Result<Option<View>> {
    let top = match Cgroup::open(&mount.point) {
        Err(error) if error.is_no_cgroup() => return Ok(None),
        opened => opened?,
    };
    if mount_id(&top).is_some_and(|id| id != mount.id) {
        return Ok(None);
    }
    let point = mount.point.canonicalize().unwrap_or_else(|_| mount.point.clone());
    Ok(Some(View { root: mount.root.clone(), point, top }))
}

/// Returns the id of the mount through which the cgroup was opened. `None` if `/proc` does not have it.
fn mount_id(cgroup: &Cgroup) -> Option<u64> {
    let path = format!("/proc/thread-self/fdinfo/{}", cgroup.as_fd().as_raw_fd());
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(top: &str, path: &str) -> Option<(usize, String)> {
        let found = beneath(Path::new(top), Path::new(path))?;
        Some((found.unnamed, found.tail.to_str().unwrap().to_owned()))
    }

    #[test]
    fn what_lies_below_a_mount_is_found_by_the_names_that_are_known() {
        let at = |unnamed, tail: &str| Some((unnamed, tail.to_owned()));
        // The host's mount on the host, a container's own mount in it, and a partial mount on the host.
        assert_eq!(way("/", "/a/b"), at(0, "a/b"));
        assert_eq!(way("/", "/"), at(0, ""));
        assert_eq!(way("/a", "/a/b"), at(0, "b"));
        // The host's mount in a container.
        assert_eq!(way("/../..", "/app"), at(2, "app"));
        assert_eq!(way("/../..", "/"), at(2, ""));
        assert_eq!(way("/../..", "/../beside"), at(1, "beside"));
        assert_eq!(way("/../..", "/../../other"), at(0, "other"));
        assert_eq!(way("/../a", "/../a/b"), at(0, "b"));
    }

    #[test]
    fn what_a_mount_does_not_show_is_not_looked_for_below_it() {
        for (top, path) in [
            ("/", "/../other"),
            ("/a", "/b"),
            ("/a/b", "/a"),
            ("/a", "/ab"),
            ("/../a", "/app"),
            ("/../a", "/../b"),
            ("/..", "/../../other"),
        ] {
            assert_eq!(way(top, path), None, "{top} {path}");
        }
    }

    fn view_of(root: &str, id: u64) -> View {
        let top = Cgroup::for_tests(CgroupId(id));
        View { root: root.into(), point: "/x".into(), top }
    }

    #[test]
    fn of_several_mounts_the_one_that_shows_the_most_comes_first() {
        let order = |views: &[(&str, u64)]| {
            let mut views: Vec<_> = views.iter().map(|(root, id)| view_of(root, *id)).collect();
            views.sort_by_key(rank);
            views[0].root.to_str().unwrap().to_owned()
        };
        assert_eq!(order(&[("/a/b", 70), ("/", 40), ("/../..", 1)]), "/../..");
        assert_eq!(order(&[("/a/b", 70), ("/", 40)]), "/");
        assert_eq!(order(&[("/a/b", 1), ("/", 1), ("/../..", 1)]), "/", "the plainest");
    }

    #[test]
    fn only_the_topmost_cgroup_is_everything() {
        assert_eq!(view_of("/", 1).shows(), Shows::Everything);
        assert_eq!(view_of("/../..", 1).shows(), Shows::Everything);
        assert_eq!(view_of("/", 40).shows(), Shows::Namespace);
        assert_eq!(view_of("/a", 40).shows(), Shows::Part);
        assert_eq!(view_of("/..", 40).shows(), Shows::Part);
        assert_eq!(view_of("/", 1).top_in_words(), None);
        assert!(view_of("/", 40).top_in_words().unwrap().contains("a container's"));
        assert!(view_of("/a", 40).top_in_words().unwrap().contains("a part of it"));
    }
}
