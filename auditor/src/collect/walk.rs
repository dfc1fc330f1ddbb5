//! Walking a tree of cgroups, in depth.
//!
//! What costs time on a host with 10,000 cgroups is system calls. Each cgroup is opened by its name
//! relative to its parent, so that the kernel looks up one component and not a whole path. One whose
//! link count is 2 has no child cgroups (a directory's count is 2 and its subdirectories), and is not
//! listed. And only two descriptors are open at a time, however deep the tree is: the way up is `..`,
//! which works in a cgroup that has been removed in the meantime as well.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use bpf::CgroupId;
use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{FileStat, Mode, fstat};

const DIRECTORY: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// What comes of a walk.
pub(super) trait Visitor {
    /// A cgroup, open. Its path is relative to the mount and begins with `/`.
    fn visit(&mut self, cgroup: BorrowedFd<'_>, id: CgroupId, path: &Path);
    /// A cgroup that could not be opened or listed. That it vanished is for the visitor to tell.
    fn fail(&mut self, path: &Path, errno: Errno);
    /// The walk cannot go on: this cgroup's siblings, and those of its ancestors, were not all visited.
    fn stop(&mut self, path: &Path, errno: Errno);
}

/// Visits a cgroup and everything below it, each before its children. `path` is its path relative to the
/// mount. What is made or removed during the walk may be met or not.
pub(super) fn walk(root: BorrowedFd<'_>, path: &Path, visitor: &mut impl Visitor) {
    let mut at = PathStack::new(path);
    let (here, stat) = match open(root, c".") {
        Ok(opened) => opened,
        Err(errno) => return visitor.fail(at.path(), errno),
    };
    visitor.visit(here.as_fd(), CgroupId(stat.st_ino), at.path());
    let mut levels: Vec<Level> = Level::enter(&here, &stat, &at, visitor).into_iter().collect();
    let mut here = here;
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.children.pop() else {
            levels.pop();
            if let Some(parent) = levels.last() {
                match parent.reopen(here.as_fd()) {
                    Ok(fd) => here = fd,
                    Err(errno) => return visitor.stop(at.path(), errno),
                }
                at.truncate(parent.path_len);
            }
            continue;
        };
        at.push(&name);
        match open(here.as_fd(), &name) {
            Ok((child, stat)) => {
                visitor.visit(child.as_fd(), CgroupId(stat.st_ino), at.path());
                if let Some(level) = Level::enter(&child, &stat, &at, visitor) {
                    levels.push(level);
                    here = child;
                    continue;
                }
            }
            Err(errno) => visitor.fail(at.path(), errno),
        }
        let path_len = level.path_len;
        at.truncate(path_len);
    }
}

/// A cgroup with children that are still to be visited.
struct Level {
    inode: u64,
    path_len: usize,
    children: Vec<CString>,
}

impl Level {
    /// None where there is nothing to do.
    fn enter(
        fd: &OwnedFd,
        stat: &FileStat,
        at: &PathStack,
        visitor: &mut impl Visitor,
    ) -> Option<Self> {
        if stat.st_nlink == 2 {
            return None;
        }
        match children(fd) {
            Ok(children) if children.is_empty() => None,
            Ok(children) => Some(Self { inode: stat.st_ino, path_len: at.len(), children }),
            Err(errno) => {
                visitor.fail(at.path(), errno);
                None
            }
        }
    }

    /// Opens it again, from one of its children.
    fn reopen(&self, child: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
        let (fd, stat) = open(child, c"..")?;
        // A cgroup cannot be moved: another parent would mean that something is very wrong.
        if stat.st_ino == self.inode { Ok(fd) } else { Err(Errno::ESTALE) }
    }
}

fn open(parent: BorrowedFd<'_>, name: &std::ffi::CStr) -> Result<(OwnedFd, FileStat), Errno> {
    let fd = openat(parent, name, DIRECTORY, Mode::empty())?;
    let stat = fstat(&fd)?;
    Ok((fd, stat))
}

/// The names of the child cgroups.
fn children(cgroup: &OwnedFd) -> Result<Vec<CString>, Errno> {
    let mut children = Vec::new();
    for entry in Dir::openat(cgroup, c".", DIRECTORY, Mode::empty())?.iter() {
        let entry = entry?;
        let is_child = entry.file_type() == Some(Type::Directory)
            && !matches!(entry.file_name().to_bytes(), b"." | b"..");
        if is_child {
            children.push(entry.file_name().to_owned());
        }
    }
    Ok(children)
}

/// The path of the cgroup where the walk is: names are put on and taken off, nothing is allocated.
struct PathStack(Vec<u8>);

impl PathStack {
    fn new(path: &Path) -> Self {
        let bytes = path.as_os_str().as_bytes();
        Self(bytes.strip_suffix(b"/").unwrap_or(bytes).to_owned())
    }

    fn push(&mut self, name: &CString) {
        self.0.push(b'/');
        self.0.extend_from_slice(name.as_bytes());
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    fn path(&self) -> &Path {
        // The mount itself is the empty path here.
        let bytes = if self.0.is_empty() { b"/" } else { self.0.as_slice() };
        Path::new(OsStr::from_bytes(bytes))
    }
}

#[cfg(test)]
#[path = "walk_tests.rs"]
mod tests;
