//! Walks a tree of cgroups depth first.
//!
//! On a host with 10,000 cgroups the system calls take the time. The walk opens each cgroup once, by its name relative
//! to the parent, so the kernel looks up one component instead of a whole path. A directory's link count is 2 plus the
//! number of subdirectories. So a cgroup with link count 2 has no children, and the walk does not list it.
//!
//! The walk keeps a limited number of descriptors open, however deep the tree is. Further up it returns through `..`,
//! which works even if somebody has removed the cgroup meanwhile.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use kernel::CgroupId;
use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{FileStat, Mode, fstat};

const DIRECTORY: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Receives the events of a walk.
pub(super) trait Visitor {
    /// Visits an open cgroup. Its path is relative to the mount and begins with `/`.
    fn visit(&mut self, cgroup: BorrowedFd<'_>, id: CgroupId, path: &Path);
    /// Reports a cgroup that could not be opened or listed. The visitor decides whether the cgroup has vanished.
    fn fail(&mut self, path: &Path, errno: Errno);
    /// Reports that the walk cannot continue. It has not visited all siblings of this cgroup and of its ancestors.
    fn stop(&mut self, path: &Path, errno: Errno);
}

/// The maximum number of levels with an open descriptor.
const OPEN_LEVELS: usize = 32;

/// Visits a cgroup and everything below it, parents before children. `path` is the cgroup's path relative to the
/// mount. The walk may or may not visit a cgroup that somebody makes or removes meanwhile.
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

/// A cgroup with children that the walk has yet to visit.
struct Level {
    /// `None` while the walk is far below this level.
    dir: Option<Dir>,
    inode: u64,
    path_len: usize,
    children: Vec<CString>,
}

impl Level {
    /// Lists the children of a cgroup. Returns `None` if there is nothing to visit.
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

    /// Returns the descriptor for opening the children.
    fn fd(&self) -> BorrowedFd<'_> {
        self.dir.as_ref().expect("the level where the walk is is open").as_fd()
    }

    /// Opens this level again from one of its children, which is open. Does nothing if the level is open.
    fn reopen(&mut self, child: &Self) -> Result<(), Errno> {
        if self.dir.is_some() {
            return Ok(());
        }
        let (fd, stat) = open(child.fd(), c"..")?;
        // Nobody can move a cgroup, so another parent means that something is very wrong.
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

/// Returns the names of the child cgroups.
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

/// The path of the current cgroup. The walk pushes and pops names without allocating a path for each cgroup.
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
        // The empty path stands for the mount itself.
        let bytes = if self.0.is_empty() { b"/" } else { self.0.as_slice() };
        Path::new(OsStr::from_bytes(bytes))
    }
}

#[cfg(test)]
#[path = "walk_tests.rs"]
mod tests;
