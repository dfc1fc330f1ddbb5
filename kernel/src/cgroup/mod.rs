//! Cgroups: where cgroup2 is mounted, and opening a cgroup.

mod hierarchy;
mod home;
mod members;
mod mounts;
mod named;
mod populated;

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, fstat};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, fstatfs};

use crate::error::{Call, Error, Result};
use crate::object::ids::CgroupId;
use crate::sys;

pub use hierarchy::{Shows, View, views};
pub use home::{Home, home, seen_instead};
pub use members::{process_of, processes, processes_below, threads, threads_elsewhere};
pub use mounts::{Mount, mounts, parse_mountinfo};
pub use named::{Reach, find, reach, relative_to};

/// The id of the hierarchy's root. A mount with another cgroup at its top shows only a part of the hierarchy.
pub const ROOT_CGROUP_ID: CgroupId = CgroupId(1);

/// Returns the mount point of cgroup2: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` on hybrid hosts. With several
/// mounts, returns the one that shows the most.
///
/// # Errors
/// `Vanished` when cgroup2 is not mounted, or another mount covers it.
pub fn cgroup2_mount() -> Result<PathBuf> {
    Ok(View::best()?.point().to_owned())
}

/// Parses the cgroup2 path in a `/proc/PID/cgroup` file: the rest of the line `0::`, relative to the mount.
///
/// For a removed cgroup the kernel appends ` (deleted)`. A cgroup's name may end like that too.
pub fn parse_proc_cgroup(text: &[u8]) -> Option<PathBuf> {
    let path = text.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"0::"))?;
    Some(OsString::from_vec(path.to_vec()).into())
}

/// Returns the inode number of this process's cgroup namespace. Cgroup paths are valid in one namespace only.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn namespace() -> Result<u64> {
    let path = "/proc/self/ns/cgroup";
    let found = std::fs::metadata(path);
    Ok(found.map_err(|error| Error::from_io(Call::ReadProc, path, &error))?.ino())
}

/// Returns the directory of a cgroup from its path relative to the mount.
pub fn below(mount: &Path, relative: &Path) -> PathBuf {
    mount.join(relative.strip_prefix("/").unwrap_or(relative))
}

pub(crate) const DIRECTORY: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

/// An open cgroup. It stays the same cgroup even if its path changes or vanishes.
#[derive(Debug)]
pub struct Cgroup {
    fd: OwnedFd,
    id: CgroupId,
    path: PathBuf,
}

impl Cgroup {
    /// Opens a cgroup's directory by its path in the file system.
    ///
    /// # Errors
    /// `Vanished` when there is no such directory; `EINVAL` when the directory is not in a cgroup2 hierarchy.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let fail = |errno| Error::new(Call::OpenCgroup, name.clone(), errno);
        let fd = open(path, DIRECTORY, Mode::empty()).map_err(fail)?;
        if fstatfs(&fd).map_err(fail)?.filesystem_type() != CGROUP2_SUPER_MAGIC {
            return Err(Error::found(Call::OpenCgroup, name, Errno::EINVAL)
                .with_detail("not a directory of the cgroup2 hierarchy"));
        }
        let id = CgroupId(fstat(&fd).map_err(fail)?.st_ino);
        // The components leave out a slash at the end.
        Ok(Self { fd, id, path: path.components().collect() })
    }

    /// Opens a cgroup by its id, on the mount that contains the cgroup `mount`. The new cgroup's path is below that
    /// mount.
    ///
    /// Needs `CAP_DAC_READ_SEARCH`.
    ///
    /// # Errors
    /// `Vanished` when no cgroup has this id, or it was removed.
    pub fn open_by_id(mount: &Self, id: CgroupId) -> Result<Self> {
        let name = || format!("cgroup {id}");
        let fail = |errno| Error::new(Call::OpenById, name(), errno);
        let gone =
            || Error::found(Call::OpenById, name(), Errno::ENOENT).with_detail("it was removed");
        let fd = sys::open_cgroup_by_id(mount.as_fd(), id.0).map_err(fail)?;
        let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let path = std::fs::read_link(&link)
            .map_err(|error| Error::from_io(Call::ReadProc, &link, &error))?;
        if path.as_os_str().as_bytes().ends_with(b" (deleted)") {
            // The cgroup was removed, or its name ends like that. Only its name can tell.
            let there = open(&path, DIRECTORY, Mode::empty()).map_err(|_| gone())?;
            if fstat(&there).map_err(fail)?.st_ino != id.0 {
                return Err(gone());
            }
        }
        Ok(Self { fd, id, path })
    }

    /// Returns a fake cgroup with this id, which cannot be queried.
    #[cfg(test)]
    pub(crate) fn for_tests(id: CgroupId) -> Self {
        let fd = open("/", DIRECTORY, Mode::empty()).expect("there is a root directory");
        Self { fd, id, path: "/".into() }
    }

    /// Creates the value for an open cgroup2 directory with a known id.
    pub(crate) fn from_parts(fd: OwnedFd, id: CgroupId, path: PathBuf) -> Self {
        Self { fd, id, path }
    }

    /// Returns the cgroup's id.
    pub fn id(&self) -> CgroupId {
        self.id
    }

    /// Returns the path through which the cgroup was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Returns the cgroup2 path of a process, relative to the mount.
///
/// # Errors
/// `Vanished` when there is no such process.
pub fn of_process(pid: u32) -> Result<PathBuf> {
    let path = format!("/proc/{pid}/cgroup");
    let text =
        std::fs::read(&path).map_err(|error| Error::from_io(Call::ReadProc, &path, &error))?;
    parse_proc_cgroup(&text).ok_or_else(|| {
        Error::found(Call::ReadProc, path, Errno::ENODATA)
            .with_detail("the process is in no cgroup of the cgroup2 hierarchy")
    })
}

/// Returns the number of a cgroup's descendants, from its `cgroup.stat`.
///
/// # Errors
/// When the file cannot be read, or does not have the number.
pub fn descendants(cgroup: &Path) -> Result<u64> {
    let path = cgroup.join("cgroup.stat");
    let text = std::fs::read_to_string(&path)
        .map_err(|error| Error::from_io(Call::ReadProc, path.display().to_string(), &error))?;
    text.lines()
        .find_map(|line| line.strip_prefix("nr_descendants ")?.parse().ok())
        .ok_or_else(|| Error::found(Call::ReadProc, path.display().to_string(), Errno::ENODATA))
}

/// Returns a path as text for messages.
pub(crate) fn shown(path: &Path) -> String {
    path.as_os_str().as_bytes().escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn the_cgroup_of_a_process_is_the_line_of_hierarchy_zero() {
        let hybrid = b"9:name=systemd:/\n4:memory:/x\n0::/user.slice/a b\n";
        assert_eq!(parse_proc_cgroup(hybrid), Some("/user.slice/a b".into()));
        assert_eq!(parse_proc_cgroup(b"0::/gone (deleted)\n"), Some("/gone (deleted)".into()));
        assert_eq!(parse_proc_cgroup(b"4:memory:/x\n"), None);
    }

    #[test]
    fn this_process_is_in_its_cgroup() {
        let relative = of_process(std::process::id()).unwrap();
        assert!(relative.is_absolute(), "{}", relative.display());
        let cgroup = below(&cgroup2_mount().unwrap(), &relative);
        assert!(processes(&cgroup).unwrap().contains(&std::process::id()));
    }

    #[test]
    fn what_is_no_directory_of_a_cgroup_is_not_opened() {
        let errno = |path: &str| Cgroup::open(Path::new(path)).unwrap_err().errno();
        assert_eq!(errno("/proc"), Errno::EINVAL);
        assert_eq!(errno("/proc/self/stat"), Errno::ENOTDIR);
        assert_eq!(errno("/proc/no such directory"), Errno::ENOENT);
    }

    #[test]
    fn in_messages_a_path_is_plain_text() {
        assert_eq!(shown(OsStr::from_bytes(b"/a b\n\xff").as_ref()), r"/a b\n\xff");
    }
}
