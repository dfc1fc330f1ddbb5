//! Processes that hold programs, links or maps through open files.

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

/// A process and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its pid, in this pid namespace.
    pub pid: u32,
    /// Its name (`/proc/PID/comm`), as text.
    pub comm: String,
    /// What it holds.
    pub held: Vec<Held>,
}

/// What was found, and what could not be looked at.
#[derive(Debug, Default)]
pub struct Holders {
    /// Every process that holds something of what was sought, but this one, by pid.
    pub holders: Vec<Holder>,
    /// Processes whose files could not be seen.
    pub unreadable: Vec<Error>,
}

/// Looks through the open files of every process but this one, in all of its threads. Who only looks (bpftool, a monitor,
/// another audit) has a program open for a moment, and is among them: see [`still_holding`]. Needs `CAP_SYS_PTRACE` and `CAP_DAC_READ_SEARCH` for
/// other users' processes.
///
/// Only files whose link in `/proc/PID/fd` says so are opened: on a busy host that is a few of many
/// thousands.
///
/// # Errors
/// When `/proc` cannot be listed; what is wrong with one process is in [`Holders::unreadable`].
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
    // Every pid namespace has a first process. Where that is not shown, neither are others.
    if !is_first_there {
        found.unreadable.push(
            Error::found(Call::ReadProc, "the processes of others", Errno::EACCES)
                .with_detail("/proc hides them (it is mounted with hidepid)"),
        );
    }
    found.holders.sort_by_key(|holder| holder.pid);
    Ok(found)
}

/// This process's number as `/proc` counts, which may be of another pid namespace, and whether that is ours.
fn own_number() -> Result<(Option<u32>, bool)> {
    let own = std::fs::read_link("/proc/self").map_err(|error| from_proc("/proc/self", &error))?;
    let own = own.to_str().and_then(|name| name.parse::<u32>().ok());
    Ok((own, own == Some(std::process::id())))
}

/// How long it takes who only looks to close what it has opened, unless it is in the middle of something else.
const MOMENT: Duration = Duration::from_millis(30);

/// Of what was found a moment ago, what is held still, by the same process or by another that it was handed to. It takes
/// that moment, unless there is nothing to look for.
///
/// # Errors
/// When `/proc` cannot be read. A process whose files cannot be seen any more holds what it held.
pub fn still_holding(found: Vec<Holder>, sought: Sought) -> Result<Vec<Holder>> {
    follow(found, sought, HANDS)
}

/// How often it is looked for who has taken over what was let go of. In the end whoever has it open holds it.
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
        // Of these, too, some only look.
        let heirs = heirs(&found, &still, holders(sought)?.holders);
        if hands == 0 { heirs } else { follow(heirs, sought, hands - 1)? }
    };
    Ok(lasting(found, &still, &heirs))
}

impl Holder {
    /// What of it is open when it is asked for again. Where that cannot be seen, all.
    fn still(&self, again: impl Fn(u32) -> io::Result<Vec<Held>>) -> Vec<Held> {
        let Ok(now) = again(self.pid) else { return self.held.clone() };
        self.held.iter().copied().filter(|held| now.contains(held)).collect()
    }
}

/// What is open in any thread of a process. What `/proc/PID/fd` shows is the first thread's table of files: none at all
/// when that one has ended before the others, and not those of threads that have one of their own
/// (`unshare(CLONE_FILES)`).
fn held_by_process(
    process: &Path,
    pid: u32,
    counts_as_we_do: bool,
    sought: Sought,
) -> io::Result<Vec<Held>> {
    let mut held = held_by_thread(process, sought)?;
    // One thread of each table that has been looked through.
    let mut looked = vec![pid];
    for entry in std::fs::read_dir(process.join("task"))? {
        let entry = entry?;
        let Some(thread) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        // Where nobody can say, it is looked through, too.
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

/// What is open in one thread: a folder that has `fd` and `fdinfo`.
fn held_by_thread(thread: &Path, sought: Sought) -> io::Result<Vec<Held>> {
    let mut held = Vec::new();
    for entry in std::fs::read_dir(thread.join("fd"))? {
        let entry = entry?;
        let target = match std::fs::read_link(entry.path()) {
            Ok(target) => target,
            // Closed in between.
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

/// `link_id:` or, in the file of a program, `prog_id:`, in that of a map `map_id:`. (A link's file names its program
/// or its map as well: whoever holds the link does not hold the other itself.)
pub(crate) fn parse_fdinfo(text: &[u8]) -> Option<Held> {
    // Line by line: newer kernels write the path of a link to a uprobe, and that need not be text.
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

/// How often a process is looked at whose files cannot be seen.
const LOOKS: usize = 3;

/// What a process or a thread holds; nothing when it ended while it was looked at. Of one that has just ended procfs
/// may say `EACCES` instead of `ENOENT`, and its number may be another one's a moment later.
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

/// A process or a file of it that went away while it was looked at.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ESRCH)
}

#[cfg(test)]
mod tests;
