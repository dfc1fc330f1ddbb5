//! Finds processes that hold programs, links or maps through open descriptors.

mod lasting;

use std::io;
use std::path::Path;
use std::time::Duration;

use lasting::{has_all, heirs, lasting};
use nix::errno::Errno;

use crate::error::{Call, Error, Result};
use crate::host::process::from_proc;
use crate::object::ids::{LinkId, MapId, ProgramId};
use crate::object::pins::{Held, HoldingFile, Sought};
use crate::sys;

/// A process that holds BPF objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The process's pid in this pid namespace.
    pub pid: u32,
    /// The process's name (`/proc/PID/comm`), as text.
    pub comm: String,
    /// The objects that the process holds.
    pub held: Vec<Held>,
}

/// The holders found, and the errors met.
#[derive(Debug, Default)]
pub struct Holders {
    /// Every holder except this process, by pid.
    pub holders: Vec<Holder>,
    /// Errors of processes whose files could not be read.
    pub unreadable: Vec<Error>,
}

/// Finds the holders among all processes except this one, in all of their threads.
///
/// Includes processes that open a program only for a moment, such as bpftool, a monitor or another audit; see
/// [`still_holding`]. Opens only files that `/proc/PID/fd` shows as BPF objects, a few of many thousands on a busy
/// host.
///
/// Needs `CAP_SYS_PTRACE` and `CAP_DAC_READ_SEARCH` for other users' processes.
///
/// # Errors
/// When `/proc` cannot be listed. [`Holders::unreadable`] has the errors of single processes.
pub fn holders(sought: Sought) -> Result<Holders> {
    let mut found = Holders::default();
    let (own, counts_as_we_do) = own_number()?;
    let held = |process: &Path, pid| {
        unless_gone(process, || held_by_process(process, pid, counts_as_we_do, sought))
    };
    let mut is_first_there = false;
    let listing = std::fs::read_dir("/proc")
        .map_err(|error| Error::from_io(Call::ReadProc, "/proc", &error))?;
    for entry in listing {
        let entry = entry.map_err(|error| Error::from_io(Call::ReadProc, "/proc", &error))?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        is_first_there |= pid == 1;
        if Some(pid) == own {
            continue;
        }
        match held(&entry.path(), pid) {
            Ok(held) if held.is_empty() => {}
            Ok(held) => found.holders.push(Holder { pid, comm: comm(&entry.path()), held }),
            Err(error) => found.unreadable.push(Error::from_io(
                Call::ReadProc,
                entry.path().join("fd").display().to_string(),
                &error,
            )),
        }
    }
    // Every pid namespace has a first process. If `/proc` hides that one, it hides others too.
    if !is_first_there {
        found.unreadable.push(
            Error::found(Call::ReadProc, "the processes of others", Errno::EACCES)
                .with_detail("/proc hides them (it is mounted with hidepid)"),
        );
    }
    found.holders.sort_by_key(|holder| holder.pid);
    Ok(found)
}

/// Returns this process's pid in `/proc`, which may show another pid namespace, and whether that namespace is ours.
fn own_number() -> Result<(Option<u32>, bool)> {
    let own = std::fs::read_link("/proc/self").map_err(|error| from_proc("/proc/self", &error))?;
    let own = own.to_str().and_then(|name| name.parse::<u32>().ok());
    Ok((own, own == Some(std::process::id())))
}

/// The usual time until a process that only looks closes what it has opened.
const MOMENT: Duration = Duration::from_millis(30);

/// Returns those of the found objects that are still held, by the same process or by another that took them over. Waits
/// 30 ms, unless there is nothing to look for.
///
/// # Errors
/// When `/proc` cannot be read. A process whose files are unreadable by now counts as still holding.
pub fn still_holding(found: Vec<Holder>, sought: Sought) -> Result<Vec<Holder>> {
    follow(found, sought, HANDS)
}

/// The most searches for processes that took over an object. After the last one, any process with the object open is a
/// holder.
const HANDS: usize = 3;

fn follow(found: Vec<Holder>, sought: Sought, hands: usize) -> Result<Vec<Holder>> {
    if found.is_empty() {
        return Ok(found);
    }
    std::thread::sleep(MOMENT);
    let (_, counts_as_we_do) = own_number()?;
    let again = |pid: u32| {
        let process = Path::new("/proc").join(pid.to_string());
        unless_gone(&process, || held_by_process(&process, pid, counts_as_we_do, sought))
    };
    let still: Vec<_> = found.iter().map(|holder| holder.still(again)).collect();
    let heirs = if has_all(&found, &still) {
        Vec::new()
    } else {
        // Some of these processes only look, too.
        let heirs = heirs(&found, &still, holders(sought)?.holders);
        if hands == 0 { heirs } else { follow(heirs, sought, hands - 1)? }
    };
    Ok(lasting(found, &still, &heirs))
}

impl Holder {
    /// Returns the objects that are still open when `again` looks. If it cannot look, returns all of them.
    fn still(&self, again: impl Fn(u32) -> io::Result<Vec<Held>>) -> Vec<Held> {
        let Ok(now) = again(self.pid) else { return self.held.clone() };
        self.held.iter().copied().filter(|held| now.contains(held)).collect()
    }
}

/// Returns the objects open in any thread of a process. `/proc/PID/fd` shows only the first thread's descriptors. The
/// list is empty if that thread has ended, and lacks those of threads after `unshare(CLONE_FILES)`.
fn held_by_process(
    process: &Path,
    pid: u32,
    counts_as_we_do: bool,
    sought: Sought,
) -> io::Result<Vec<Held>> {
    let mut held = held_by_thread(process, sought)?;
    // One thread for each descriptor table already searched.
    let mut looked = vec![pid];
    for entry in std::fs::read_dir(process.join("task"))? {
        let entry = entry?;
        let Some(thread) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        // An unknown table is searched too.
        let is_known =
            |&known: &u32| known == thread || (counts_as_we_do && sys::share_files(known, thread));
        if looked.iter().any(is_known) {
            continue;
        }
        held.extend(unless_gone(&entry.path(), || held_by_thread(&entry.path(), sought))?);
        looked.push(thread);
    }
    held.sort_unstable();
    held.dedup();
    Ok(held)
}

/// Returns the objects open in one thread. `thread` is a folder with `fd` and `fdinfo`.
fn held_by_thread(thread: &Path, sought: Sought) -> io::Result<Vec<Held>> {
    let mut held = Vec::new();
    for entry in std::fs::read_dir(thread.join("fd"))? {
        let entry = entry?;
        let target = match std::fs::read_link(entry.path()) {
            Ok(target) => target,
            // The file was closed in between.
            Err(error) if is_gone(&error) => continue,
            Err(error) => return Err(error),
        };
        if !HoldingFile::of(&target).is_some_and(|file| sought.has(file)) {
            continue;
        }
        match std::fs::read(thread.join("fdinfo").join(entry.file_name())) {
            Ok(text) => held.extend(parse_fdinfo(&text)),
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(held)
}

/// Parses `link_id:`, `prog_id:` or `map_id:` in a file's information. A link's file names its program or map too, but
/// a link's holder does not hold these directly.
pub(crate) fn parse_fdinfo(text: &[u8]) -> Option<Held> {
    // Newer kernels write the path of a uprobe link, which need not be text. So parse line by line.
    let number = |name: &str| -> Option<u32> {
        text.split(|&byte| byte == b'\n').find_map(|line| {
            let number = line.strip_prefix(name.as_bytes())?.trim_ascii();
            std::str::from_utf8(number).ok()?.parse().ok()
        })
    };
    number("link_id:")
        .map(|id| Held::Link(LinkId(id)))
        .or_else(|| number("prog_id:").map(|id| Held::Program(ProgramId(id))))
        .or_else(|| number("map_id:").map(|id| Held::Map(MapId(id))))
}

fn comm(process: &Path) -> String {
    let comm = std::fs::read(process.join("comm")).unwrap_or_default();
    String::from_utf8_lossy(&comm).trim_end_matches('\n').to_owned()
}

/// The most looks at a process whose files are unreadable.
const LOOKS: usize = 3;

/// Returns what a process or thread holds; nothing if it ended meanwhile. For one that has just ended, procfs may
/// return `EACCES` instead of `ENOENT`. Another process may get its number a moment later.
fn unless_gone(
    folder: &Path,
    mut look: impl FnMut() -> io::Result<Vec<Held>>,
) -> io::Result<Vec<Held>> {
    let mut answer = look();
    for _ in 1..LOOKS {
        match &answer {
            Ok(_) => break,
            Err(error) if is_gone(error) || !folder.exists() => return Ok(Vec::new()),
            Err(_) => answer = look(),
        }
    }
    answer
}

/// Tells whether the process, or one of its files, went away meanwhile.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ESRCH)
}

#[cfg(test)]
mod tests;
