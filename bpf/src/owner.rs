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
    let path = format!("/proc/{pid}/stat");
    match fs::read(&path) {
        Ok(text) => Ok(parse_start_time(&text)),
        Err(error)
            if error.kind() == std::io::ErrorKind::NotFound
                || error.raw_os_error() == Some(nix::libc::ESRCH) =>
        {
            Ok(None)
        }
        Err(error) => Err(Error::from_io(Call::ReadProc, path, &error)),
    }
}

/// Field 22 of a `/proc/PID/stat` file, unless field 3 says that the process is dead (proc(5)). The name
/// in field 2 may hold anything, parentheses and newlines too: the fields are counted from its end.
fn parse_start_time(text: &[u8]) -> Option<u64> {
    let end = text.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(&text[end + 1..]).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X" | "x") {
        return None;
    }
    fields.nth(18)?.parse().ok()
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
    }
}
