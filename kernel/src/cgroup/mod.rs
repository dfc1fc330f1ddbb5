//! Where cgroup2 is mounted, and open cgroups.

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

/// The id of the hierarchy's true root; a mount whose top has another one shows only a part of it.
pub const ROOT_CGROUP_ID: CgroupId = CgroupId(1);

/// Where the cgroup2 hierarchy is mounted: `/sys/fs/cgroup`, on hybrid hosts `/sys/fs/cgroup/unified`. Of several mounts
/// the one that shows the most.
///
/// # Errors
/// `Vanished` when it is not mounted at all, or cannot be seen where it is.
pub fn cgroup2_mount() -> Result<PathBuf> {
    Ok(View::best()?.point().to_owned())
}

/// The cgroup2 path in a `/proc/PID/cgroup` file: what stands behind `0::`, relative to the mount. For a
/// cgroup that was removed the kernel appends ` (deleted)`, which a name may end in as well.
pub fn parse_proc_cgroup(text: &[u8]) -> Option<PathBuf> {
    let path = text.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"0::"))?;
    Some(OsString::from_vec(path.to_vec()).into())
}

/// The inode number of this process's cgroup namespace. Paths of cgroups mean something in one such namespace only.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn namespace() -> Result<u64> {
    let path = "/proc/self/ns/cgroup";
    let found = std::fs::metadata(path);
    Ok(found.map_err(|error| Error::from_io(Call::ReadProc, path, &error))?.ino())
}

/// The directory of a cgroup whose path relative to the mount is known.
pub fn below(mount: &Path, relative: &Path) -> PathBuf {
    mount.join(relative.strip_prefix("/").unwrap_or(relative))
}

pub(crate) const DIRECTORY: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

/// An open cgroup: it stays the same cgroup, whatever becomes of its path.
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
    /// `Vanished` when there is none; `EINVAL` when the directory is not a cgroup2 one.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let fail = |errno| Error::new(Call::OpenCgroup, name.clone(), errno);
        let fd = open(path, DIRECTORY, Mode::empty()).map_err(fail)?;
        if fstatfs(&fd).map_err(fail)?.filesystem_type() != CGROUP2_SUPER_MAGIC {
            return Err(Error::found(Call::OpenCgroup, name, Errno::EINVAL)
                .with_detail("not a directory of the cgroup2 hierarchy"));
        }
        let id = CgroupId(fstat(&fd).map_err(fail)?.st_ino);
        // Without a slash at its end.
        Ok(Self { fd, id, path: path.components().collect() })
    }

    /// Opens a cgroup by its id. `mount` is any cgroup of the mount that it is looked for in, and its path will
    /// be one below that mount. Needs `CAP_DAC_READ_SEARCH`.
    ///
    /// # Errors
    /// `Vanished` when there is none with that id (any more).
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
            // Or so it is called, which only its name can tell.
            let there = open(&path, DIRECTORY, Mode::empty()).map_err(|_| gone())?;
            if fstat(&there).map_err(fail)?.st_ino != id.0 {
                return Err(gone());
            }
        }
        Ok(Self { fd, id, path })
    }

    /// None that can be asked anything, with an id.
    #[cfg(test)]
    pub(crate) fn for_tests(id: CgroupId) -> Self {
        let fd = open("/", DIRECTORY, Mode::empty()).expect("there is a root directory");
        Self { fd, id, path: "/".into() }
    }

    /// One that is open already, and known to be a cgroup2 directory of that id.
    pub(crate) fn from_parts(fd: OwnedFd, id: CgroupId, path: PathBuf) -> Self {
        Self { fd, id, path }
    }

    /// Its id.
    pub fn id(&self) -> CgroupId {
        self.id
    }

    /// The path that it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The cgroup2 path of a process, relative to the mount.
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

/// How many cgroups there are below one, as its `cgroup.stat` tells.
///
/// # Errors
/// When the file cannot be read, or does not tell.
pub fn descendants(cgroup: &Path) -> Result<u64> {
    let path = cgroup.join("cgroup.stat");
    let text = std::fs::read_to_string(&path)
        .map_err(|error| Error::from_io(Call::ReadProc, path.display().to_string(), &error))?;
    text.lines()
        .find_map(|line| line.strip_prefix("nr_descendants ")?.parse().ok())
        .ok_or_else(|| Error::found(Call::ReadProc, path.display().to_string(), Errno::ENODATA))
}

/// The path as text for messages.
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
