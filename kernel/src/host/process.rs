//! Processes: who they are, told apart from later ones with the same pid, and what `/proc` says of them.

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

/// A process of one boot, told apart from later processes with the same pid.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ProcessIdentity {
    /// The pid, in the pid namespace `pid_namespace`.
    pub pid: u32,
    /// When the process started, in clock ticks since boot as the initial time namespace counts them: field 22 of
    /// `/proc/PID/stat`, without the shift of the reader's time namespace. 0 when the process could not tell.
    pub start_time: u64,
    /// The inode number of the pid namespace that `pid` was read in.
    pub pid_namespace: u32,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
}

impl ProcessIdentity {
    /// Identifies this process.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn this_process() -> Result<Self> {
        let pid = std::process::id();
        // By the pid another process would be found, where /proc is of another pid namespace.
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

    /// Whether the process still runs. `None` when that cannot be told from here: the pid is one of another pid namespace
    /// or `/proc` shows another one, or a process has that pid and nobody knows its true start time.
    ///
    /// The answer is the same from every time namespace, and after a suspend: start times count while the host sleeps.
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

    /// Whether the pid is this process's number for it, and `/proc`'s.
    fn is_numbered_by(&self, pid_namespace: u32, is_proc_ours: bool) -> bool {
        self.pid_namespace == pid_namespace && is_proc_ours
    }

    /// Judges from the start time that `/proc` shows for the pid, and the shift of who reads it there.
    fn is_started_at(&self, shown: Option<u64>, shift: Option<i64>) -> Option<bool> {
        let Some(shown) = shown else { return Some(false) };
        let known = Some(self.start_time).filter(|&it| it != 0)?;
        Some(unshifted(shown, shift)? == known)
    }
}

/// By how many clock ticks `/proc` shifts start times for this process; `None` when that is not known exactly.
fn start_shift() -> Option<i64> {
    Shift::of_this_process()?.start_ticks()
}

/// Returns the start time to write down: 0 where the shift is unknown, because any other number would name another process.
fn to_note(shown: u64, shift: Option<i64>) -> u64 {
    unshifted(shown, shift).unwrap_or(0)
}

/// A start time as the initial time namespace counts it.
fn unshifted(shown: u64, shift: Option<i64>) -> Option<u64> {
    shown.checked_add_signed(shift?.checked_neg()?)
}

/// The id of this boot, the kernel's own: containers may have a file of their own mounted over it (systemd-nspawn does).
///
/// Reading below such a mount takes Linux 5.2 and `CAP_SYS_ADMIN`.
///
/// # Errors
/// When `/proc` cannot be read, or the file is covered and cannot be uncovered.
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

/// Where the boot's id is, below a procfs.
const BOOT_ID: &str = "sys/kernel/random/boot_id";

fn uncovered_boot_id() -> nix::Result<OwnedFd> {
    let proc = sys::clone_mount(Path::new("/proc"))?;
    openat(&proc, BOOT_ID, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
}

/// The inode number of this process's pid namespace.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn pid_namespace() -> Result<u32> {
    let path = "/proc/self/ns/pid";
    let inode = fs::metadata(path).map_err(|error| from_proc(path, &error))?.ino();
    u32::try_from(inode).map_err(|_| Error::found(Call::ReadProc, path, Errno::ERANGE))
}

/// `PROC_PID_INIT_INO` of the kernel: the inode number of the pid namespace that every process on the host is in or below.
pub const INITIAL_PID_NAMESPACE: u32 = 0xEFFF_FFFC;

/// Whether any process on this host has a pid in its own pid namespace or in one above it. `None` when not every process
/// can be seen from here.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn is_pid_in_use(pid: u32) -> Result<Option<bool>> {
    // Where the first process is shown, `hidepid` hides nothing.
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

/// The pids of a process, as `NSpid:` in its `/proc/PID/status` has them: in the namespace of `/proc` and in each one below
/// down to its own.
fn pids_in(status: &str) -> impl Iterator<Item = u32> {
    let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    pids.unwrap_or_default().split_ascii_whitespace().filter_map(|pid| pid.parse().ok())
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

/// Returns the name of a process (`/proc/PID/comm`), as text. `None` where it cannot be read, as when it has ended.
pub fn name(pid: u32) -> Option<String> {
    let comm = fs::read(format!("/proc/{pid}/comm")).ok()?;
    Some(String::from_utf8_lossy(&comm).trim_end().to_owned())
}

/// When a process started, in clock ticks since boot as this process's time namespace counts them. `None` when there is
/// no such process, or only what is left of one until its parent asks for it (a zombie).
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

impl Birth {
    /// The start time as a [`ProcessIdentity`] has it: without the shift of the reader's time namespace. `None` when that shift is not
    /// known.
    pub fn true_start_time(&self) -> Option<u64> {
        unshifted(self.start_time, start_shift())
    }
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

/// What reading a file below `/proc/PID` says when the process has ended.
fn is_gone(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ESRCH)
}

/// Whether the kernel knows the process, whatever `/proc` shows. Asking takes no rights: without them the answer is
/// another one.
fn exists(pid: u32) -> bool {
    // Other numbers are not those of one process, but mean many.
    let pid = i32::try_from(pid).ok().filter(|&pid| pid > 0);
    pid.is_some_and(|pid| kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH))
}

/// The start time, unless field 3 of a `/proc/PID/stat` file says that the process is dead (proc(5)). It also says so of a
/// process whose first thread has ended before others: field 20 counts the threads that are left.
pub(crate) fn parse_start_time(text: &[u8]) -> Option<u64> {
    let mut fields = fields(text)?;
    let is_dead = matches!(fields.next()?, "Z" | "X" | "x");
    let threads: u32 = fields.nth(16)?.parse().ok()?;
    if is_dead && threads < 2 {
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
        // Nobody knows the shift, or the owner did not: only that there is no such process is certain.
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
                // Where the first thread has ended, others go on.
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
