//! Finding the one cgroup that a user's text names.

use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, statfs};

use super::hierarchy::{Shows, View, views};
use super::home::namespace_root;
use super::{Cgroup, ROOT_CGROUP_ID, below, shown};
use crate::error::{Call, Error, Result};

/// What belongs to a cgroup that is the top of something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// The whole host, because the cgroup is the hierarchy's root.
    Host,
    /// The whole cgroup namespace of this thread, such as a container, because the cgroup is its root.
    Namespace,
    /// Everything in a partial mount of the hierarchy, because the cgroup is the mount's top.
    Mount,
    /// The cgroup and its descendants, as for any other cgroup.
    Itself,
}

/// Finds the cgroup that a user names. Three kinds of name are possible:
/// - its directory, on any mount, or a symbolic link to it;
/// - a path from the working directory, if it begins with `.` or `..`;
/// - its path below the cgroup2 mount, with or without a leading `/`.
///
/// In a cgroup namespace, the last may also be relative to the namespace's root, as in `/proc/PID/cgroup`.
///
/// The cgroup's path is below the mount that shows the most, if that mount shows the cgroup.
///
/// # Errors
/// When the name is not one cgroup. The error says what it is: nothing, a file, a directory of cgroup v1 or of no
/// cgroup, or two cgroups at once.
pub fn find(named: &Path) -> Result<Cgroup> {
    // Without a working directory, `.` means nothing.
    find_from(&std::env::current_dir().unwrap_or_default(), named)
}

fn find_from(here: &Path, named: &Path) -> Result<Cgroup> {
    if named.as_os_str().is_empty() {
        return Err(not_one(named, Errno::EINVAL)
            .with_detail("an empty path names no cgroup; / is the top of what is mounted"));
    }
    let views = views()?;
    let first = named.components().next();
    let is_from_here = matches!(first, Some(Component::CurDir | Component::ParentDir));
    let directory = if is_from_here { here.join(named) } else { named.to_owned() };
    let as_directory = if is_from_here || named.is_absolute() { opened(&directory)? } else { None };
    let found = match as_directory {
        Some(found) => found,
        None if is_from_here => return Err(diagnosed(&views, named, &directory)),
        None => by_relative(&views, named)?
            .ok_or_else(|| diagnosed(&views, named, &here.join(named)))?,
    };
    // Messages use the kernel's path. If the cgroup is gone already, the engine finds out.
    let canonical = found.path().canonicalize().unwrap_or_else(|_| found.path().to_owned());
    if canonical.starts_with(views[0].point()) {
        return Ok(Cgroup { path: canonical, ..found });
    }
    match views[0].find(found.id()) {
        Ok(Some(known)) => Ok(known),
        _ => Ok(Cgroup { path: canonical, ..found }),
    }
}

/// Returns the cgroup with this path below the mount or below the root of this cgroup namespace. Fails if the two are
/// different cgroups.
fn by_relative(views: &[View], named: &Path) -> Result<Option<Cgroup>> {
    let view = &views[0];
    let of_mount = opened(&below(view.point(), named))?;
    if view.root() == Path::new("/") {
        return Ok(of_mount);
    }
    let of_namespace = match namespace_root(views, view)? {
        Some(root) => opened(&below(root.path(), named))?,
        None => None,
    };
    match (of_mount, of_namespace) {
        (Some(one), Some(other)) if one.id() != other.id() => {
            Err(not_one(named, Errno::EINVAL).with_detail(format!(
                "two cgroups have this path: {} by the mount, {} in this cgroup namespace; name the directory of the \
                 one that you mean",
                shown(one.path()),
                shown(other.path())
            )))
        }
        (one, other) => Ok(one.or(other)),
    }
}

/// Opens a cgroup. Returns `None` if the path is no cgroup.
fn opened(path: &Path) -> Result<Option<Cgroup>> {
    match Cgroup::open(path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_no_cgroup() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Says what a path is that names no cgroup.
fn diagnosed(views: &[View], named: &Path, directory: &Path) -> Error {
    let is = |path: &Path, kind| statfs(path).is_ok_and(|it| it.filesystem_type() == kind);
    let mounted = format!("the cgroup2 hierarchy is mounted on {}", shown(views[0].point()));
    for path in [directory.to_owned(), below(views[0].point(), named)] {
        let Ok(facts) = path.metadata() else { continue };
        let above = path.parent().unwrap_or(&path);
        let (errno, what) = if !facts.is_dir() && is(above, CGROUP2_SUPER_MAGIC) {
            let cgroup = shown(above);
            (Errno::ENOTDIR, format!("it is a file of the cgroup {cgroup}: name that directory"))
        } else if !facts.is_dir() {
            (Errno::ENOTDIR, format!("it is a file, and no cgroup; {mounted}"))
        } else if is(&path, CGROUP_SUPER_MAGIC) {
            let why = "it is a directory of cgroup v1, which has no network programs: name the cgroup of the cgroup2 \
                       hierarchy";
            (Errno::EINVAL, format!("{why}; {mounted}"))
        } else if is(&path, CGROUP2_SUPER_MAGIC) {
            let command = Path::new(".").join(named);
            let name = shown(&command);
            (
                Errno::ENOENT,
                format!("no cgroup has this path below the mount, but {name} is one: name it so"),
            )
        } else {
            (Errno::EINVAL, format!("it is a directory, but of no cgroup; {mounted}"))
        };
        return not_one(named, errno).with_detail(what);
    }
    match Cgroup::open(directory) {
        Err(error) => Error::new(Call::OpenCgroup, shown(named), error.errno()),
        Ok(_) => not_one(named, Errno::ENOENT).with_detail("it was made just now: try again"),
    }
}

fn not_one(named: &Path, errno: Errno) -> Error {
    Error::found(Call::OpenCgroup, shown(named), errno)
}

/// Tells what belongs to a cgroup.
///
/// # Errors
/// When no mount of the hierarchy is visible.
pub fn reach(cgroup: &Cgroup) -> Result<Reach> {
    if cgroup.id() == ROOT_CGROUP_ID {
        return Ok(Reach::Host);
    }
    let tops: Vec<_> = views()?.into_iter().filter(|it| it.top().id() == cgroup.id()).collect();
    Ok(match tops.iter().find(|it| it.shows() == Shows::Namespace).or(tops.first()) {
        Some(top) if top.shows() == Shows::Namespace => Reach::Namespace,
        Some(_) => Reach::Mount,
        None => Reach::Itself,
    })
}

/// Returns a cgroup's path relative to the top of a mount, as `list` and an audit print it.
pub fn relative_to(top: &Path, cgroup: &Path) -> Option<PathBuf> {
    Some(Path::new("/").join(cgroup.strip_prefix(top).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(named: &str) -> (Errno, String) {
        let error = find(Path::new(named)).unwrap_err();
        (error.errno(), error.to_string())
    }

    #[test]
    fn what_is_no_cgroup_is_named_for_what_it_is() {
        for (named, errno, words) in [
            ("", Errno::EINVAL, "an empty path"),
            ("/proc", Errno::EINVAL, "it is a directory, but of no cgroup"),
            ("/proc/self/stat", Errno::ENOTDIR, "it is a file, and no cgroup"),
            ("/cgroup.procs", Errno::ENOTDIR, "it is a file of the cgroup"),
            (".", Errno::EINVAL, "it is a directory, but of no cgroup"),
        ] {
            let (found, text) = why(named);
            assert_eq!(found, errno, "{named}: {text}");
            assert!(text.contains(words), "{named}: {text}");
            // The path could be opened, but as a file. The message must not name that call.
            assert!(!text.contains("(open"), "{named}: {text}");
        }
    }

    #[test]
    fn what_cannot_be_opened_is_told_with_the_kernels_own_answer() {
        let long = format!("/{}", "x".repeat(300));
        for (named, errno) in [
            ("/chadtest-nowhere", Errno::ENOENT),
            ("./chadtest-nowhere", Errno::ENOENT),
            (&long, Errno::ENAMETOOLONG),
        ] {
            let (found, text) = why(named);
            assert_eq!(found, errno, "{named}: {text}");
            assert!(text.ends_with(&format!("(open: {errno:?})")), "{named}: {text}");
        }
    }

    #[test]
    fn the_top_may_be_named_by_its_directory_and_by_its_path() {
        let top = View::best().unwrap();
        for named in [Path::new("/"), top.point()] {
            let found = find(named).unwrap();
            assert_eq!((found.id(), found.path()), (top.top().id(), top.point()));
        }
    }

    #[test]
    fn a_path_is_told_relative_to_the_top() {
        let told = |cgroup| relative_to(Path::new("/m"), Path::new(cgroup));
        assert_eq!(told("/m/a/b").unwrap(), Path::new("/a/b"));
        assert_eq!(told("/m").unwrap(), Path::new("/"));
        assert_eq!(told("/n"), None);
    }
}
