//! Processes: identities that survive the reuse of pids, and data from `/proc`.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::signal::kill;
use nix::sys::stat::Mode;
use nix::unistd::Pid;

use crate::error::{Call, Error, Result};
use crate::host::clocks::Shift;
use crate::sys;

/// Identifies one process of one boot, even after another process has got its pid.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ProcessIdentity {
    /// The pid, in the pid namespace `pid_namespace`.
    pub pid: u32,
    /// The start time in clock ticks since boot, without the reader's time namespace offset (field 22 of
    /// `/proc/PID/stat`). 0 when the process could not read it.
    pub start_time: u64,
    /// The inode number of the pid namespace of `pid`.
    pub pid_namespace: u32,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
}

impl ProcessIdentity {
    /// Returns the identity of this process.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn this_process() -> Result<Self> {
        let pid = std::process::id();
        // `/proc` may show another pid namespace, where our pid names another process.
        let path = "/proc/self/stat";
        let text = fs::read(path).map_err(|error| from_proc(path, &error))?;
        let start_time = parse_start_time(&text)
            .ok_or_else(|| Error::found(Call::ReadProc, path, Errno::ENODATA))?;
        Ok(Self {
            pid,
            start_time: to_note(start_time, start_shift()),
            pid_namespace: pid_namespace()?,
            boot_id: boot_id()?,
        })
    }

    /// Tells whether the process is running. Every time namespace gets the same answer, also after a suspend, because
    /// start times count during sleep.
    ///
    /// Returns `None` if that is unknown. Either the pid belongs to another pid namespace, `/proc` shows another one,
    /// or the start time of the process with this pid is unknown.
    ///
    /// # Errors
    /// When `/proc` cannot be read, or hides the process.
    pub fn is_alive(&self) -> Result<Option<bool>> {
        if self.boot_id != boot_id()? {
            return Ok(Some(false));
        }
        if !self.is_numbered_by(pid_namespace()?, is_proc_ours()?) {
            return Ok(None);
        }
        Ok(self.is_started_at(start_time(self.pid)?, start_shift()))
    }

    /// Tells whether the pid is valid both in this process's namespace and in `/proc`.
    fn is_numbered_by(&self, pid_namespace: u32, is_proc_ours: bool) -> bool {
        self.pid_namespace == pid_namespace && is_proc_ours
    }

    /// Compares with the start time that `/proc` shows for the pid. `shift` is the reader's offset.
    fn is_started_at(&self, shown: Option<u64>, shift: Option<i64>) -> Option<bool> {
        let Some(shown) = shown else { return Some(false) };
        let known = Some(self.start_time).filter(|&it| it != 0)?;
        Some(unshifted(shown, shift)? == known)
    }
}

/// Returns the offset of start times in `/proc`, in clock ticks. `None` if it is not exactly known.
fn start_shift() -> Option<i64> {
    Shift::of_this_process()?.start_ticks()
}

/// Returns the start time to record. It is 0 if the offset is unknown, because any other number would name another
/// process.
fn to_note(shown: u64, shift: Option<i64>) -> u64 {
    unshifted(shown, shift).unwrap_or(0)
}

/// Returns a start time without the offset of the time namespace.
fn unshifted(shown: u64, shift: Option<i64>) -> Option<u64> {
    shown.checked_add_signed(shift?.checked_neg()?)
}

/// Returns this boot's id from the kernel. A container may have another file mounted over it, as systemd-nspawn does.
///
/// Reading below such a mount needs Linux 5.2 and `CAP_SYS_ADMIN`.
///
/// # Errors
/// When `/proc` cannot be read, or when the file is covered and cannot be uncovered.
pub fn boot_id() -> Result<String> {
    let path = Path::new("/proc").join(BOOT_ID);
    let target = path.display().to_string();
    let fail = |error: &std::io::Error| from_proc(&target, error);
    let mut file = File::open(&path).map_err(|error| fail(&error))?;
    let device =
        |it: std::io::Result<fs::Metadata>| it.map(|it| it.dev()).map_err(|error| fail(&error));
    if device(file.metadata())? != device(fs::metadata("/proc"))? {
        let uncovered = uncovered_boot_id().map_err(|errno| {
            Error::new(Call::ReadProc, &*target, errno).with_detail(
                "another file is mounted over it, so nobody here can tell which boot this is: run it on the host",
            )
        })?;
        file = File::from(uncovered);
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(|error| fail(&error))?;
    Ok(text.trim_end().to_owned())
}

/// The path of the boot id in a procfs.
const BOOT_ID: &str = "sys/kernel/random/boot_id";

fn uncovered_boot_id() -> nix::Result<OwnedFd> {
    let proc = sys::clone_mount(Path::new("/proc"))?;
    openat(&proc, BOOT_ID, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
}

/// Returns the inode number of this process's pid namespace.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn pid_namespace() -> Result<u32> {
    let path = "/proc/self/ns/pid";
    let inode = fs::metadata(path).map_err(|error| from_proc(path, &error))?.ino();
    u32::try_from(inode).map_err(|_| Error::found(Call::ReadProc, path, Errno::ERANGE))
}

/// The kernel's `PROC_PID_INIT_INO`: the inode number of the initial pid namespace, which contains every process.
pub const INITIAL_PID_NAMESPACE: u32 = 0xEFFF_FFFC;

/// Tells whether any process on this host has this pid, in its own pid namespace or in one above. `None` if not every
/// process is visible from here.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn is_pid_in_use(pid: u32) -> Result<Option<bool>> {
    // If the first process is visible, `hidepid` hides nothing.
    let is_everything_seen = pid_namespace()? == INITIAL_PID_NAMESPACE
        && is_proc_ours()?
        && fs::read("/proc/1/status").is_ok();
    if !is_everything_seen {
        return Ok(None);
    }
    let processes = fs::read_dir("/proc").map_err(|error| from_proc("/proc", &error))?;
    for process in processes {
        let process = process.map_err(|error| from_proc("/proc", &error))?;
        if !process.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let path = process.path().join("status");
        match fs::read_to_string(&path) {
            Ok(status) if pids_in(&status).any(|it| it == pid) => return Ok(Some(true)),
            Ok(_) => {}
            Err(error) if is_gone(&error) => {}
            Err(error) => {
                return Err(Error::from_io(Call::ReadProc, path.display().to_string(), &error));
            }
        }
    }
    Ok(Some(false))
}

/// Returns the pids of a process from `NSpid:` in `/proc/PID/status`. They start with the namespace of `/proc` and go
/// down to the process's own.
fn pids_in(status: &str) -> impl Iterator<Item = u32> {
    let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    pids.unwrap_or_default().split_ascii_whitespace().filter_map(|pid| pid.parse().ok())
}

/// Tells whether `/proc` shows this process's own pid namespace. A process that enters a namespace without mounting
/// `/proc` sees the parent's numbers, which name other processes.
///
/// # Errors
/// When `/proc` cannot be read, as when it shows a namespace without this process.
pub fn is_proc_ours() -> Result<bool> {
    let path = "/proc/self/status";
    let text = fs::read_to_string(path).map_err(|error| from_proc(path, &error))?;
    Ok(has_one_pid(&text))
}

/// Tells whether `NSpid:` in `/proc/self/status` has a single pid. The line has one for the namespace of `/proc`, and
/// one for each below it. A kernel without pid namespaces has no such line.
fn has_one_pid(status: &str) -> bool {
    let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    pids.is_none_or(|pids| pids.split_ascii_whitespace().count() == 1)
}

/// Creates the error of a `/proc` file that every host has.
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

/// Returns the name of a process (`/proc/PID/comm`), as text. `None` if it cannot be read, as after the process has
/// ended.
pub fn name(pid: u32) -> Option<String> {
    let comm = fs::read(format!("/proc/{pid}/comm")).ok()?;
    Some(String::from_utf8_lossy(&comm).trim_end().to_owned())
}

/// Returns a process's start time in clock ticks since boot, as this process's time namespace counts. `None` if there
/// is no such process, or only a zombie.
///
/// # Errors
/// When `/proc` cannot be read. `Denied` when it hides the process (`hidepid`); the process then exists, but its
/// identity is unknown.
pub fn start_time(pid: u32) -> Result<Option<u64>> {
    Ok(stat(pid)?.and_then(|text| parse_start_time(&text)))
}

/// The origin of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Birth {
    /// The parent's pid, or that of the process that adopted it. 0 for a parent outside this pid namespace.
    pub parent: u32,
    /// The start time, in clock ticks since boot.
    pub start_time: u64,
}

impl Birth {
    /// Returns the start time without the reader's time namespace offset, as [`ProcessIdentity`] has it. `None` if the
    /// offset is unknown.
    pub fn true_start_time(&self) -> Option<u64> {
        unshifted(self.start_time, start_shift())
    }
}

/// Returns the origin of a process. `None` if there is no such process. A zombie counts, because its other threads may
/// still run.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn birth(pid: u32) -> Result<Option<Birth>> {
    Ok(stat(pid)?.and_then(|text| parse_birth(&text)))
}

fn stat(pid: u32) -> Result<Option<Vec<u8>>> {
    let path = format!("/proc/{pid}/stat");
    // Another process may get the number between the two reads. The second attempt finds it.
    for _ in 0..2 {
        match fs::read(&path) {
            Ok(text) => return Ok(Some(text)),
            Err(error) if is_gone(&error) => {
                if !exists(pid) {
                    return Ok(None);
                }
            }
            Err(error) => return Err(Error::from_io(Call::ReadProc, path, &error)),
        }
    }
    Err(Error::found(Call::ReadProc, path, Errno::EACCES)
        .with_detail("the process is there, but /proc hides it (hidepid)"))
}

/// Tells whether an error of a file below `/proc/PID` means that the process has ended.
fn is_gone(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ESRCH)
}

/// Tells whether the kernel knows the process, whatever `/proc` shows. Without the capability the errno differs, but
/// still tells.
fn exists(pid: u32) -> bool {
    // Any other number means several processes to kill(2).
    let pid = i32::try_from(pid).ok().filter(|&pid| pid > 0);
    pid.is_some_and(|pid| kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH))
}

/// Parses the start time, `None` if field 3 of a `/proc/PID/stat` file marks the process as dead (proc(5)). That field
/// is the same if only the first thread has ended, so field 20 (the number of threads) decides.
pub(crate) fn parse_start_time(text: &[u8]) -> Option<u64> {
    let mut fields = fields(text)?;
    let is_dead = matches!(fields.next()?, "Z" | "X" | "x");
    let threads: u32 = fields.nth(16)?.parse().ok()?;
    if is_dead && threads < 2 {
        return None;
    }
    Some(parse_birth(text)?.start_time)
}

/// Parses fields 4 and 22 of a `/proc/PID/stat` file (proc(5)).
fn parse_birth(text: &[u8]) -> Option<Birth> {
    let mut fields = fields(text)?.skip(1);
    let parent = fields.next()?.parse().ok()?;
    Some(Birth { parent, start_time: fields.nth(17)?.parse().ok()? })
}

/// Returns the fields from the third on. The name in the second field may contain anything, even parentheses and
/// newlines, so the fields begin after its last parenthesis.
fn fields(text: &[u8]) -> Option<impl Iterator<Item = &str>> {
    let end = text.iter().rposition(|&byte| byte == b')')?;
    Some(std::str::from_utf8(&text[end + 1..]).ok()?.split_ascii_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_others_with_its_pid_are_not() {
        let owner = ProcessIdentity::this_process().unwrap();
        assert_eq!(owner.is_alive(), Ok(Some(true)));
        let born = birth(owner.pid).unwrap().unwrap();
        assert_eq!(born.true_start_time(), Some(owner.start_time));
        let later = ProcessIdentity { start_time: owner.start_time + 1, ..owner.clone() };
        assert_eq!(later.is_alive(), Ok(Some(false)));
        let other_boot = ProcessIdentity { boot_id: "x".to_owned(), ..owner.clone() };
        assert_eq!(other_boot.is_alive(), Ok(Some(false)));
        let elsewhere = ProcessIdentity { pid_namespace: 1, ..owner };
        assert_eq!(elsewhere.is_alive(), Ok(None));
    }

    #[test]
    fn a_pid_says_nothing_of_a_process_that_is_numbered_otherwise_here_or_in_proc() {
        let owner =
            ProcessIdentity { pid_namespace: 7, ..ProcessIdentity::this_process().unwrap() };
        let cases = [(7, true), (7, false), (8, true), (8, false)];
        let is =
            cases.map(|(namespace, is_proc_ours)| owner.is_numbered_by(namespace, is_proc_ours));
        assert_eq!(is, [true, false, false, false]);
    }

    #[test]
    fn a_process_is_known_by_its_true_start_time_and_in_doubt_where_nobody_knows_that() {
        let owner = ProcessIdentity { start_time: 500, ..ProcessIdentity::this_process().unwrap() };
        let judged = |shown, shift| owner.is_started_at(shown, shift);
        assert_eq!(judged(Some(500), Some(0)), Some(true));
        assert_eq!(judged(Some(501), Some(0)), Some(false));
        // Read in a time namespace that is 100 ticks ahead, and in one that is behind.
        assert_eq!(judged(Some(600), Some(100)), Some(true));
        assert_eq!(judged(Some(500), Some(100)), Some(false));
        assert_eq!(judged(Some(400), Some(-100)), Some(true));
        // The offset or the owner's start time is unknown. Then only a missing process is certain.
        assert_eq!(judged(Some(500), None), None);
        assert_eq!(judged(None, None), Some(false));
        let unknown = ProcessIdentity { start_time: 0, ..owner.clone() };
        assert_eq!(unknown.is_started_at(Some(500), Some(0)), None);
        assert_eq!(unknown.is_started_at(None, Some(0)), Some(false));
        let notes = [Some(0), Some(100), Some(-100), None].map(|shift| to_note(500, shift));
        assert_eq!(notes, [500, 400, 600, unknown.start_time]);
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
    fn a_pid_is_in_use_whichever_namespace_it_is_of() {
        assert_eq!(pids_in("Name:\tx\nNSpid:\t4711\t42\n").collect::<Vec<_>>(), [4_711, 42]);
        assert_eq!(pids_in("Name:\tx\n").next(), None);
        let sees_all =
            pid_namespace().unwrap() == INITIAL_PID_NAMESPACE && fs::read("/proc/1/status").is_ok();
        assert_eq!(is_pid_in_use(std::process::id()).unwrap(), sees_all.then_some(true));
        assert_eq!(is_pid_in_use(u32::MAX).unwrap(), sees_all.then_some(false));
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
        let threads_of = |name: &str, state: &str, threads: u32| {
            format!("7 ({name}) {state} 1 7 7 0 -1 4 5 0 0 0 1 2 0 0 20 0 {threads} 0 4242 99 1\n")
                .into_bytes()
        };
        let stat = |name: &str, state: &str| threads_of(name, state, 1);
        assert_eq!(parse_start_time(&stat("sh", "S")), Some(4242));
        assert_eq!(parse_start_time(&stat("a) R (b\n) 1", "S")), Some(4242));
        for state in ["R", "S", "D", "T", "t", "I", "P", "W", "Z", "X", "x"] {
            let is_dead = ["Z", "X", "x"].contains(&state);
            let alone = parse_start_time(&stat("sh", state));
            assert_eq!(alone, (!is_dead).then_some(4242), "{state}");
            for threads in [2, 300] {
                // The first thread has ended, and others go on.
                let several = parse_start_time(&threads_of("sh", state, threads));
                assert_eq!(several, Some(4242), "{state} {threads}");
            }
        }
        assert_eq!(parse_start_time(b"7 (sh"), None);
        let birth = Some(Birth { parent: 1, start_time: 4_242 });
        assert_eq!(parse_birth(&stat("a) R (b\n) 1", "Z")), birth);
        assert_eq!(parse_birth(b"7 (sh) S 1"), None);
    }

    #[test]
    fn a_process_has_its_name() {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let own = name(std::process::id()).unwrap();
        assert_eq!(status.lines().next(), Some(format!("Name:\t{own}").as_str()));
        assert_eq!(name(u32::MAX), None);
    }
}
