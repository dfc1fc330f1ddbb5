//! Mounts, as `/proc/PID/mountinfo` lists them.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::stat::{makedev, stat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, statfs};

use crate::error::Result;
use crate::host::process::from_proc;

/// A mount: the fields of a line of `/proc/PID/mountinfo` that this crate needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The mount's id. `/proc/PID/fdinfo` has the same number for files opened through the mount.
    pub id: u64,
    /// The directory of the file system at the mount's top.
    pub root: PathBuf,
    /// The mount point.
    pub point: PathBuf,
    /// The file system's type.
    pub kind: String,
    /// The device number, as `stat` returns it for files on the mount.
    pub device: u64,
}

impl Mount {
    /// Tells whether the mount is visible at its mount point. Another mount may cover it there or further up.
    ///
    /// A mount point without permission to look counts as visible, because opening it then reports the reason.
    pub fn is_on_top(&self) -> bool {
        match stat(&self.point) {
            Ok(found) => found.st_dev == self.device,
            Err(errno) => !matches!(errno, Errno::ENOENT | Errno::ENOTDIR),
        }
    }
}

/// Parses the text of a mountinfo file. Skips lines that are not mounts.
pub fn parse_mountinfo(text: &[u8]) -> Vec<Mount> {
    text.split(|&byte| byte == b'\n').filter_map(parse_mountinfo_line).collect()
}

/// Parses `36 35 98:0 /root /point options [optional fields] - type source options` (proc(5)).
fn parse_mountinfo_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let (major, minor) = std::str::from_utf8(fields.nth(1)?).ok()?.split_once(':')?;
    let root = fields.next()?;
    let point = fields.next()?;
    let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
    Some(Mount {
        id,
        root: unescape_octal(root),
        point: unescape_octal(point),
        kind: String::from_utf8(kind.to_vec()).ok()?,
        device: makedev(major.parse().ok()?, minor.parse().ok()?),
    })
}

/// Decodes a field. The kernel writes space, tab, newline and backslash as `\040` and so on.
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

/// Lists the mounts of one type of file system that this thread sees. The thread's mount namespace may be its own.
///
/// # Errors
/// When `/proc/thread-self/mountinfo` cannot be read, or when `/proc` is not a procfs.
pub fn mounts(kind: &str) -> Result<Vec<Mount>> {
    let path = "/proc/thread-self/mountinfo";
    let is_procfs = statfs("/proc").is_ok_and(|it| it.filesystem_type() == PROC_SUPER_MAGIC);
    let none = || std::io::Error::from_raw_os_error(nix::libc::ENOENT);
    let text = if is_procfs { std::fs::read(path) } else { Err(none()) };
    let text = text.map_err(|error| from_proc(path, &error))?;
    Ok(parse_mountinfo(&text).into_iter().filter(|mount| mount.kind == kind).collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

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
    fn only_mounts_of_the_kind_are_given() {
        let mounts = mounts("proc").unwrap();
        assert!(mounts.iter().any(|mount| mount.point == Path::new("/proc")));
        assert!(mounts.iter().all(|mount| mount.kind == "proc"));
    }
}
