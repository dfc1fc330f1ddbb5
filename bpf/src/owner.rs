//! Who made a throttle, and whether they still live.

use std::fs;
use std::os::unix::fs::MetadataExt;

use serde::{Deserialize, Serialize};

use crate::error::{Call, Error, Result};

/// The process that loaded a program, told apart from later processes with the same pid.
///
/// It stands in the program's `bpf_metadata_*` variables, so that the auditor needs nothing but the
/// kernel to learn it, and in the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Owner {
    /// The pid, in the pid namespace `pid_namespace`.
    pub pid: u32,
    /// When the process started: field 22 of `/proc/PID/stat`, in clock ticks since boot.
    pub start_time: u64,
    /// The inode number of the pid namespace that `pid` was read in.
    pub pid_namespace: u32,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// The version of chadthrottle.
    pub version: String,
}

impl Owner {
    /// This process, as the owner of what it is about to load.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn this_process(version: &str) -> Result<Self> {
        let pid = std::process::id();
        let start_time = start_time(pid)?.ok_or_else(|| {
            Error::new(Call::ReadProc, format!("/proc/{pid}/stat"), nix::errno::Errno::ENOENT)
                .with_detail("/proc is of another pid namespace")
        })?;
        Ok(Self {
            pid,
            start_time,
            pid_namespace: pid_namespace()?,
            boot_id: boot_id()?,
            version: version.to_owned(),
        })
    }

    /// Whether the process still runs. `None`: its pid means nothing in this pid namespace.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn is_alive(&self) -> Result<Option<bool>> {
        if self.boot_id != boot_id()? {
            return Ok(Some(false));
        }
        if self.pid_namespace != pid_namespace()? {
            return Ok(None);
        }
        Ok(Some(start_time(self.pid)? == Some(self.start_time)))
    }
}

/// The id of this boot.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn boot_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text =
        fs::read_to_string(path).map_err(|error| Error::from_io(Call::ReadProc, path, &error))?;
    Ok(text.trim_end().to_owned())
}

/// The inode number of this process's pid namespace.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn pid_namespace() -> Result<u32> {
    let path = "/proc/self/ns/pid";
    let inode =
        fs::metadata(path).map_err(|error| Error::from_io(Call::ReadProc, path, &error))?.ino();
    u32::try_from(inode).map_err(|_| Error::new(Call::ReadProc, path, nix::errno::Errno::ERANGE))
}

/// When a process started, in clock ticks since boot. `None` when there is no such process, or only
/// what is left of one until its parent asks for it (a zombie).
///
/// # Errors
/// When `/proc` cannot be read.
pub fn start_time(pid: u32) -> Result<Option<u64>> {
    Ok(stat(pid)?.and_then(|text| parse_start_time(&text)))
}

/// Where a process comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Birth {
    /// Its parent's pid; whoever has taken it in where that one has ended. 0 for one from outside of this pid
    /// namespace.
    pub parent: u32,
    /// When it started, in clock ticks since boot.
    pub start_time: u64,
}

/// Where a process comes from. `None` when there is no such process; a zombie is one, for its first thread may have
/// ended before the others.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn birth(pid: u32) -> Result<Option<Birth>> {
    Ok(stat(pid)?.and_then(|text| parse_birth(&text)))
}

fn stat(pid: u32) -> Result<Option<Vec<u8>>> {
    let path = format!("/proc/{pid}/stat");
    match fs::read(&path) {
        Ok(text) => Ok(Some(text)),
        Err(error)
            if error.kind() == std::io::ErrorKind::NotFound
                || error.raw_os_error() == Some(nix::libc::ESRCH) =>
        {
            Ok(None)
        }
        Err(error) => Err(Error::from_io(Call::ReadProc, path, &error)),
    }
}

/// The start time, unless field 3 of a `/proc/PID/stat` file says that the process is dead (proc(5)).
fn parse_start_time(text: &[u8]) -> Option<u64> {
    if matches!(fields(text)?.next()?, "Z" | "X" | "x") {
        return None;
    }
    Some(parse_birth(text)?.start_time)
}

/// Fields 4 and 22 of a `/proc/PID/stat` file (proc(5)).
fn parse_birth(text: &[u8]) -> Option<Birth> {
    let mut fields = fields(text)?.skip(1);
    let parent = fields.next()?.parse().ok()?;
    Some(Birth { parent, start_time: fields.nth(17)?.parse().ok()? })
}

/// The fields from the third one on. The name in the second one may hold anything, parentheses and newlines too: they
/// are counted from its end.
fn fields(text: &[u8]) -> Option<impl Iterator<Item = &str>> {
    let end = text.iter().rposition(|&byte| byte == b')')?;
    Some(std::str::from_utf8(&text[end + 1..]).ok()?.split_ascii_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_others_with_its_pid_are_not() {
        let owner = Owner::this_process("1").unwrap();
        assert_eq!(owner.is_alive(), Ok(Some(true)));
        let later = Owner { start_time: owner.start_time + 1, ..owner.clone() };
        assert_eq!(later.is_alive(), Ok(Some(false)));
        let other_boot = Owner { boot_id: "x".to_owned(), ..owner.clone() };
        assert_eq!(other_boot.is_alive(), Ok(Some(false)));
        let elsewhere = Owner { pid_namespace: 1, ..owner };
        assert_eq!(elsewhere.is_alive(), Ok(None));
    }

    #[test]
    fn the_boot_and_the_pid_namespace_are_told_as_the_kernel_names_them() {
        let boot = boot_id().unwrap();
        let lengths: Vec<usize> = boot.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12], "{boot:?} is no uuid");
        let namespace = fs::read_link("/proc/self/ns/pid").unwrap();
        assert_eq!(namespace.to_str(), Some(&*format!("pid:[{}]", pid_namespace().unwrap())));
    }

    #[test]
    fn a_process_that_does_not_exist_has_no_start_time() {
        assert_eq!(start_time(u32::MAX), Ok(None));
    }

    #[test]
    fn the_start_time_is_found_behind_any_name() {
        let stat = |name: &str, state: &str| {
            format!("7 ({name}) {state} 1 7 7 0 -1 4 5 0 0 0 1 2 0 0 20 0 1 0 4242 99 1\n")
                .into_bytes()
        };
        assert_eq!(parse_start_time(&stat("sh", "S")), Some(4242));
        assert_eq!(parse_start_time(&stat("a) R (b\n) 1", "S")), Some(4242));
        assert_eq!(parse_start_time(&stat("sh", "Z")), None);
        assert_eq!(parse_start_time(b"7 (sh"), None);
        let birth = Some(Birth { parent: 1, start_time: 4_242 });
        assert_eq!(parse_birth(&stat("a) R (b\n) 1", "Z")), birth);
        assert_eq!(parse_birth(b"7 (sh) S 1"), None);
    }
}
