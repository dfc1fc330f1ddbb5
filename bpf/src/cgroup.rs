//! Where cgroup2 is mounted, and open cgroups.

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, fstat, makedev, stat};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, PROC_SUPER_MAGIC, fstatfs, statfs};

use crate::error::{Call, Error, Result};
use crate::ids::CgroupId;
use crate::owner::from_proc;
use crate::sys;

/// The id of the hierarchy's true root; a mount whose top has another one shows only a part of it.
pub const ROOT_CGROUP_ID: CgroupId = CgroupId(1);

/// One line of `/proc/PID/mountinfo`, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The directory of the file system that is its top.
    pub root: PathBuf,
    /// Where it is mounted.
    pub point: PathBuf,
    /// The file system's type.
    pub kind: String,
    /// The number of its device, as `stat` gives it for what lies on it.
    pub device: u64,
}

impl Mount {
    /// Whether it is what its place shows: another mount may lie on top of it, there or further up. One that may not be
    /// looked at counts, for who tries learns why.
    pub fn is_on_top(&self) -> bool {
        match stat(&self.point) {
            Ok(found) => found.st_dev == self.device,
            Err(errno) => !matches!(errno, Errno::ENOENT | Errno::ENOTDIR),
        }
    }
}

/// Reads the text of a mountinfo file. Lines that are none are passed over.
pub fn parse_mountinfo(text: &[u8]) -> Vec<Mount> {
    text.split(|&byte| byte == b'\n').filter_map(parse_mountinfo_line).collect()
}

/// `36 35 98:0 /root /point options [optional fields] - type source options` (proc(5)).
fn parse_mountinfo_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let (major, minor) = std::str::from_utf8(fields.nth(2)?).ok()?.split_once(':')?;
    let root = fields.next()?;
    let point = fields.next()?;
    let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
    Some(Mount {
        root: unescape_octal(root),
        point: unescape_octal(point),
        kind: String::from_utf8(kind.to_vec()).ok()?,
        device: makedev(major.parse().ok()?, minor.parse().ok()?),
    })
}

/// The kernel writes space, tab, newline and backslash as `\040` and so on.
fn unescape_octal(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = match tail {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] if first == b'\\' => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        bytes.push(escaped.unwrap_or(first));
        rest = if escaped.is_some() { &tail[3..] } else { tail };
    }
    OsString::from_vec(bytes).into()
}

/// The mounts of one type of file system that this thread sees (its mount namespace may be its own).
///
/// # Errors
/// When `/proc/thread-self/mountinfo` cannot be read; also when `/proc` is no procfs, whatever files are there.
pub fn mounts(kind: &str) -> Result<Vec<Mount>> {
    let path = "/proc/thread-self/mountinfo";
    let is_procfs = statfs("/proc").is_ok_and(|it| it.filesystem_type() == PROC_SUPER_MAGIC);
    let none = || std::io::Error::from_raw_os_error(nix::libc::ENOENT);
    let text = if is_procfs { std::fs::read(path) } else { Err(none()) };
    let text = text.map_err(|error| from_proc(path, &error))?;
    Ok(parse_mountinfo(&text).into_iter().filter(|mount| mount.kind == kind).collect())
}

/// Where the cgroup2 hierarchy is mounted: `/sys/fs/cgroup`, on hybrid hosts `/sys/fs/cgroup/unified`.
///
/// Of several mounts the first one that shows the most: one of the hierarchy's root, if there is any.
///
/// # Errors
/// `Vanished` when it is not mounted at all, or cannot be seen where it is.
pub fn cgroup2_mount() -> Result<PathBuf> {
    let mounts = mounts("cgroup2")?;
    let top = |mount: &Mount| Cgroup::open(&mount.point).ok().map(|top| top.id());
    match shows_most(&mounts, top) {
        Some(mount) => Ok(mount.point.clone()),
        None => Err(Error::new(Call::FindCgroup2, "the cgroup2 hierarchy", Errno::ENOENT)
            .with_detail(match mounts.first() {
                None => "it is not mounted here, so nobody can tell what is attached to it: mount it (mount -t cgroup2 \
                         none DIRECTORY), or run this on the host"
                    .to_owned(),
                Some(mount) => format!(
                    "it is mounted on {}, but something else lies on top of it, or it cannot be opened: run this on the \
                     host, as root",
                    shown(&mount.point)
                ),
            })),
    }
}

/// Of mounts the one that shows the most, by the id of the cgroup that is its top; those that have none are out of sight.
fn shows_most(mounts: &[Mount], top: impl Fn(&Mount) -> Option<CgroupId>) -> Option<&Mount> {
    let mut visible = mounts.iter().filter_map(|mount| Some((top(mount)?, mount)));
    let first = visible.next()?;
    // In a cgroup namespace `/` is the namespace's own root, and the host's is something like `/../..`: what mountinfo
    // says of a mount does not tell.
    let depth = |mount: &Mount| {
        mount.root.components().filter(|it| matches!(it, Component::Normal(_))).count()
    };
    let better = visible.fold(first, |best, next| {
        let rank = |(id, mount): (CgroupId, &Mount)| (id != ROOT_CGROUP_ID, depth(mount));
        if rank(next) < rank(best) { next } else { best }
    });
    Some(better.1)
}

/// The cgroup2 path in a `/proc/PID/cgroup` file: what stands behind `0::`, relative to the mount. For a
/// cgroup that was removed the kernel appends ` (deleted)`, which a name may end in as well.
pub fn parse_proc_cgroup(text: &[u8]) -> Option<PathBuf> {
    let path = text.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"0::"))?;
    Some(OsString::from_vec(path.to_vec()).into())
}

/// The directory of a cgroup named by a user: an absolute path below the mount is taken as it is, one that
/// begins with `.` or `..` from the working directory, any other as relative to the mount, with or without a
/// leading `/`.
pub fn resolve(mount: &Path, named: &Path) -> PathBuf {
    // Without a working directory there is nothing that `.` could mean.
    let here = std::env::current_dir().unwrap_or_default();
    resolve_from(&here, mount, named)
}

fn resolve_from(here: &Path, mount: &Path, named: &Path) -> PathBuf {
    let first = named.components().next();
    if matches!(first, Some(Component::CurDir | Component::ParentDir)) {
        here.join(named)
    } else if named.starts_with(mount) {
        named.to_owned()
    } else {
        below(mount, named)
    }
}

/// The directory of a cgroup whose path relative to the mount is known.
pub fn below(mount: &Path, relative: &Path) -> PathBuf {
    mount.join(relative.strip_prefix("/").unwrap_or(relative))
}

const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

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
            return Err(fail(Errno::EINVAL).with_detail("not a directory of the cgroup2 hierarchy"));
        }
        let id = CgroupId(fstat(&fd).map_err(fail)?.st_ino);
        Ok(Self { fd, id, path: path.to_owned() })
    }

    /// Opens a cgroup by its id. `mount` is any cgroup of the mount that it is looked for in, and its path will
    /// be one below that mount. Needs `CAP_DAC_READ_SEARCH`.
    ///
    /// # Errors
    /// `Vanished` when there is none with that id (any more).
    pub fn open_by_id(mount: &Self, id: CgroupId) -> Result<Self> {
        let name = || format!("cgroup {id}");
        let fail = |errno| Error::new(Call::OpenById, name(), errno);
        let gone = || Error::new(Call::OpenById, name(), Errno::ENOENT);
        let fd = sys::open_cgroup_by_id(mount.as_fd(), id.0).map_err(|errno| match errno {
            // As the kernel says of the handle of a file that is not there any more.
            Errno::ESTALE => gone(),
            errno => fail(errno),
        })?;
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
        Error::new(Call::ReadProc, path, Errno::ENODATA)
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
        .ok_or_else(|| Error::new(Call::ReadProc, path.display().to_string(), Errno::ENODATA))
}

/// The pids in a cgroup (not below it), as `cgroup.procs` lists them.
///
/// # Errors
/// When the file cannot be read; `EOPNOTSUPP` for a threaded cgroup.
pub fn processes(cgroup: &Path) -> Result<Vec<u32>> {
    let path = cgroup.join("cgroup.procs");
    let text = std::fs::read_to_string(&path)
        .map_err(|error| Error::from_io(Call::ReadProc, path.display().to_string(), &error))?;
    Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
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
    fn mountinfo_lines_are_read_with_their_escapes() {
        let text = b"41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 master:1 - cgroup2 cgroup2 rw\n\
            50 31 0:40 /a\\040b /mnt/tab\\011new\\012back\\134 rw - bpf none rw\n\
            short line\n\
            51 31 0:41 / /no/dash rw cgroup2\n";
        let mounts = parse_mountinfo(text);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].kind, "cgroup2");
        assert_eq!(mounts[0].point, Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(mounts[0].device, 38);
        assert_eq!(mounts[1].root, Path::new("/a b"));
        assert_eq!(mounts[1].point, Path::new("/mnt/tab\tnew\nback\\"));
    }

    #[test]
    fn digits_without_a_backslash_are_no_escape() {
        let mounts = parse_mountinfo(b"1 2 0:3 / /run/user/1000 rw - tmpfs tmpfs rw");
        assert_eq!(mounts[0].point, Path::new("/run/user/1000"));
    }

    #[test]
    fn a_mount_point_need_not_be_utf8() {
        let mounts = parse_mountinfo(b"1 2 0:3 / /m\xff rw - cgroup2 none rw");
        assert_eq!(mounts[0].point.as_os_str().as_bytes(), b"/m\xff");
    }

    #[test]
    fn of_several_mounts_the_one_that_shows_the_most_is_taken() {
        let text = b"1 2 0:38 /a/b /first rw - cgroup2 none rw\n\
            2 2 0:38 / /namespace rw - cgroup2 none rw\n\
            3 2 0:38 /../.. /host rw - cgroup2 none rw\n";
        let mounts = parse_mountinfo(text);
        let shown = |tops: [Option<u64>; 3]| {
            let top = |mount: &Mount| {
                let at = mounts.iter().position(|it| it == mount)?;
                tops[at].map(CgroupId)
            };
            shows_most(&mounts, top).map(|mount| mount.point.to_str().unwrap())
        };
        assert_eq!(shown([Some(70), Some(40), Some(1)]), Some("/host"));
        // Something lies on top of that one.
        assert_eq!(shown([Some(70), Some(40), None]), Some("/namespace"));
        assert_eq!(shown([Some(1), Some(1), Some(1)]), Some("/namespace"), "the plainest");
        assert_eq!(shown([Some(70), None, None]), Some("/first"));
        assert_eq!(shown([None; 3]), None);
    }

    #[test]
    fn the_cgroup_of_a_process_is_the_line_of_hierarchy_zero() {
        let hybrid = b"9:name=systemd:/\n4:memory:/x\n0::/user.slice/a b\n";
        assert_eq!(parse_proc_cgroup(hybrid), Some("/user.slice/a b".into()));
        assert_eq!(parse_proc_cgroup(b"0::/gone (deleted)\n"), Some("/gone (deleted)".into()));
        assert_eq!(parse_proc_cgroup(b"4:memory:/x\n"), None);
    }

    #[test]
    fn a_cgroup_may_be_named_either_way() {
        let mount = Path::new("/sys/fs/cgroup");
        let here = Path::new("/sys/fs/cgroup/a");
        let resolved = |named: &str| resolve_from(here, mount, Path::new(named));
        for named in ["/sys/fs/cgroup/a/b", "/a/b", "a/b", "./b", "../a/b"] {
            let expected = if named.starts_with("..") {
                "/sys/fs/cgroup/a/../a/b"
            } else {
                "/sys/fs/cgroup/a/b"
            };
            assert_eq!(resolved(named), Path::new(expected));
        }
        assert_eq!(resolved("/"), Path::new("/sys/fs/cgroup/"));
        assert_eq!(resolved("."), Path::new("/sys/fs/cgroup/a/."));
        let here = std::env::current_dir().unwrap();
        assert_eq!(resolve(mount, Path::new("./b")), here.join("b"));
    }

    #[test]
    fn only_mounts_of_the_kind_are_given() {
        let mounts = mounts("proc").unwrap();
        assert!(mounts.iter().any(|mount| mount.point == Path::new("/proc")));
        assert!(mounts.iter().all(|mount| mount.kind == "proc"));
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
