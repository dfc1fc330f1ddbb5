//! Walking a tree of cgroups, in depth.
//!
//! What costs time on a host with 10,000 cgroups is system calls. Each cgroup is opened once, by its name
//! relative to its parent, so that the kernel looks up one component and not a whole path. One whose
//! link count is 2 has no child cgroups (a directory's count is 2 and its subdirectories), and is not
//! listed. And only so many descriptors are open at a time, however deep the tree is: further up the way back is
//! `..`, which works in a cgroup that has been removed in the meantime as well.

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

/// So many cgroups stay open on the way down.
const OPEN_LEVELS: usize = 32;

/// Visits a cgroup and everything below it, each before its children. `path` is its path relative to the
/// mount. What is made or removed during the walk may be met or not.
pub(super) fn walk(root: BorrowedFd<'_>, path: &Path, visitor: &mut impl Visitor) {
    let mut at = PathStack::new(path);
    let (here, stat) = match open(root, c".") {
        Ok(opened) => opened,
        Err(errno) => return visitor.fail(at.path(), errno),
    };
    visitor.visit(here.as_fd(), CgroupId(stat.st_ino), at.path());
    let mut levels: Vec<Level> = Level::enter(here, &stat, &at, visitor).into_iter().collect();
    while let Some(level) = levels.last_mut() {
        at.truncate(level.path_len);
        let Some(name) = level.children.pop() else {
            let done = levels.pop();
            let way_back = done.zip(levels.last_mut()).map(|(done, parent)| parent.reopen(&done));
            if let Some(Err(errno)) = way_back {
                return visitor.stop(at.path(), errno);
            }
            continue;
        };
        at.push(&name);
        match open(level.fd(), &name) {
            Ok((child, stat)) => {
                visitor.visit(child.as_fd(), CgroupId(stat.st_ino), at.path());
                if let Some(level) = Level::enter(child, &stat, &at, visitor) {
                    levels.push(level);
                    if let Some(far) = levels.len().checked_sub(OPEN_LEVELS + 1) {
                        levels[far].dir = None;
                    }
                }
            }
            Err(errno) => visitor.fail(at.path(), errno),
        }
    }
}

/// A cgroup with children that are still to be visited.
struct Level {
    /// None while the walk is far below it.
    dir: Option<Dir>,
    inode: u64,
    path_len: usize,
    children: Vec<CString>,
}

impl Level {
    /// None where there is nothing to do.
    fn enter(
        fd: OwnedFd,
        stat: &FileStat,
        at: &PathStack,
        visitor: &mut impl Visitor,
    ) -> Option<Self> {
        if stat.st_nlink == 2 {
            return None;
        }
        let listed = Dir::from_fd(fd).and_then(|mut dir| Ok((children(&mut dir)?, dir)));
        match listed {
            Ok((children, _)) if children.is_empty() => None,
            Ok((children, dir)) => {
                Some(Self { dir: Some(dir), inode: stat.st_ino, path_len: at.len(), children })
            }
            Err(errno) => {
                visitor.fail(at.path(), errno);
                None
            }
        }
    }

    /// Where its children are opened.
    fn fd(&self) -> BorrowedFd<'_> {
        self.dir.as_ref().expect("the level where the walk is is open").as_fd()
    }

    /// Opens it again, if it is not open, from one of its children, which is.
    fn reopen(&mut self, child: &Self) -> Result<(), Errno> {
        if self.dir.is_some() {
            return Ok(());
        }
        let (fd, stat) = open(child.fd(), c"..")?;
        // A cgroup cannot be moved: another parent would mean that something is very wrong.
        if stat.st_ino != self.inode {
            return Err(Errno::ESTALE);
        }
        self.dir = Some(Dir::from_fd(fd)?);
        Ok(())
    }
}

fn open(parent: BorrowedFd<'_>, name: &std::ffi::CStr) -> Result<(OwnedFd, FileStat), Errno> {
    let fd = openat(parent, name, DIRECTORY, Mode::empty())?;
    let stat = fstat(&fd)?;
    Ok((fd, stat))
}

/// The names of the child cgroups.
fn children(cgroup: &mut Dir) -> Result<Vec<CString>, Errno> {
    let mut children = Vec::new();
    for entry in cgroup.iter() {
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
