//! Who made a throttle, and whether they still live.

use std::fs;
use std::os::unix::fs::MetadataExt;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
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
        // By the pid another process would be found, where /proc is of another pid namespace.
        let path = "/proc/self/stat";
        let text = fs::read(path).map_err(|error| from_proc(path, &error))?;
        let start_time = parse_start_time(&text)
            .ok_or_else(|| Error::new(Call::ReadProc, path, Errno::ENODATA))?;
        Ok(Self {
            pid,
            start_time,
            pid_namespace: pid_namespace()?,
            boot_id: boot_id()?,
            version: version.to_owned(),
        })
    }

    /// Whether the process still runs. `None`: its pid means nothing in this pid namespace, or nothing in `/proc`, which
    /// is of another one.
    ///
    /// # Errors
    /// When `/proc` cannot be read, or hides the process.
    pub fn is_alive(&self) -> Result<Option<bool>> {
        if self.boot_id != boot_id()? {
            return Ok(Some(false));
        }
        if self.pid_namespace != pid_namespace()? || !is_proc_ours()? {
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
    let text = fs::read_to_string(path).map_err(|error| from_proc(path, &error))?;
    Ok(text.trim_end().to_owned())
}

/// The inode number of this process's pid namespace.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn pid_namespace() -> Result<u32> {
    let path = "/proc/self/ns/pid";
    let inode = fs::metadata(path).map_err(|error| from_proc(path, &error))?.ino();
    u32::try_from(inode).map_err(|_| Error::new(Call::ReadProc, path, Errno::ERANGE))
}

/// Whether `/proc` is of this process's own pid namespace. In one that was entered without mounting `/proc` anew it is
/// of the one above, and its numbers are other processes'.
///
/// # Errors
/// When `/proc` cannot be read, as where it is of a namespace that this process is not in.
pub fn is_proc_ours() -> Result<bool> {
    let path = "/proc/self/status";
    let text = fs::read_to_string(path).map_err(|error| from_proc(path, &error))?;
    Ok(has_one_pid(&text))
}

/// `NSpid:` in a `/proc/self/status` file has the pid in the namespace of `/proc`, and one for each below it down to the
/// process's own. A kernel without pid namespaces has no such line.
fn has_one_pid(status: &str) -> bool {
    let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    pids.is_none_or(|pids| pids.split_ascii_whitespace().count() == 1)
}

/// An error of a file of `/proc` that is there on every host.
pub(crate) fn from_proc(path: &str, error: &std::io::Error) -> Error {
    let failed = Error::from_io(Call::ReadProc, path, error);
    if error.kind() == std::io::ErrorKind::NotFound {
        failed.with_detail(
            "there is no procfs on /proc here, or only a part of it (subset=pid), or one of another pid namespace: \
             mount -t proc proc /proc, or run it on the host",
        )
    } else {
        failed
    }
}

/// When a process started, in clock ticks since boot. `None` when there is no such process, or only
/// what is left of one until its parent asks for it (a zombie).
///
/// # Errors
/// When `/proc` cannot be read; `Denied` when it hides the process (`hidepid`): then it lives, and who it is is unknown.
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
    // Another process may get the number between the two questions: it is there the second time.
    for _ in 0..2 {
        match fs::read(&path) {
            Ok(text) => return Ok(Some(text)),
            Err(error)
                if error.kind() == std::io::ErrorKind::NotFound
                    || error.raw_os_error() == Some(nix::libc::ESRCH) =>
            {
                if !exists(pid) {
                    return Ok(None);
                }
            }
            Err(error) => return Err(Error::from_io(Call::ReadProc, path, &error)),
        }
    }
    Err(Error::new(Call::ReadProc, path, Errno::EACCES)
        .with_detail("the process is there, but /proc hides it (hidepid)"))
}

/// Whether the kernel knows the process, whatever `/proc` shows. Asking takes no rights: without them the answer is
/// another one.
fn exists(pid: u32) -> bool {
    // Other numbers are not those of one process, but mean many.
    let pid = i32::try_from(pid).ok().filter(|&pid| pid > 0);
    pid.is_some_and(|pid| kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH))
}

/// The start time, unless field 3 of a `/proc/PID/stat` file says that the process is dead (proc(5)).
pub(crate) fn parse_start_time(text: &[u8]) -> Option<u64> {
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
        for pid in [0, i32::MAX.unsigned_abs(), u32::MAX] {
            assert_eq!(start_time(pid), Ok(None), "{pid}");
        }
    }

    #[test]
    fn a_process_is_known_to_the_kernel_whoever_it_belongs_to() {
        assert!(exists(std::process::id()) && exists(1));
    }

    #[test]
    fn of_another_pid_namespace_is_a_proc_that_gives_this_process_several_pids() {
        assert!(has_one_pid("Name:\tx\nNSpid:\t42\n"));
        assert!(!has_one_pid("Name:\tx\nNSpid:\t4711\t42\n"));
        assert!(has_one_pid("Name:\tx\n"));
        assert_eq!(is_proc_ours(), Ok(true));
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
