//! Who loads programs: the kernel's own record of each load, with the process that asked for it.
//!
//! The kernel writes down who forks whom and who loads what (`PERF_RECORD_FORK`, `PERF_RECORD_BPF_EVENT`,
//! `perf_event_open(2)`). So it is known what a process and its descendants have loaded, also when they have ended, and
//! when somebody else holds it by then. A program of our own tells which process asks for what else (`calls.bpf.c`).

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use libbpf_sys as kernel;
use nix::errno::Errno;

use crate::error::{Call, Error, Result};
use crate::host::clocks::{Shift, monotonic_ns};
use crate::host::process::{INITIAL_PID_NAMESPACE, pid_namespace};
use crate::object::ids::ProgramId;
use crate::sys::Records;
use crate::sys::libbpf;
pub use crate::trace::calls::Asked;
use crate::trace::calls::{Calls, Reader, Seen};

const WHAT: &str = "which process loads programs";

/// How long records wait at most.
const PAUSE: Duration = Duration::from_millis(20);

/// A record is in its ring at the latest so long after its time, in nanoseconds: the kernel takes the time right before it
/// writes.
const LATE_NS: u64 = 10_000_000;

/// Pid and thread (4 bytes each), and the time (8 bytes).
const TRAILER_SIZE: usize = 16;

/// Of a load or an unload: type and flags (2 bytes each), id (4 bytes), tag (8 bytes).
const BPF_EVENT_SIZE: usize = 16;

/// Who loaded a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loader {
    /// The process, in this pid namespace; 0 for one outside of it.
    pub pid: u32,
    /// Its name then; empty where that is not known.
    pub name: String,
    /// It descends from the process that was asked for, and was started since. None where that cannot be told.
    pub is_descendant: Option<bool>,
}

/// What a process and its descendants have done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Who loaded which program.
    pub loaders: HashMap<ProgramId, Loader>,
    /// What the descendants have asked the kernel to make, and processes of which it cannot be told whether they are some.
    /// An error where that is not known.
    pub asked: Result<HashSet<Asked>>,
}

/// Rings that records are written to from now on. Nothing stays behind if the process dies.
#[derive(Debug)]
pub struct Loads {
    records: Records,
    calls: Result<Calls>,
}

impl Loads {
    /// Begins to write down. Linux 5.1, `CAP_PERFMON` (before 5.8 `CAP_SYS_ADMIN`); what is asked for besides loading needs
    /// Linux 5.8 with type information, x86 or arm64, and the initial pid namespace.
    ///
    /// # Errors
    /// `Denied` without the right, or where a policy or a sandbox forbids `perf_event_open(2)`.
    pub fn open() -> Result<Self> {
        libbpf::listen();
        let records = Records::open().map_err(fail)?;
        let calls = if pid_namespace().ok() == Some(INITIAL_PID_NAMESPACE) {
            Calls::open()
        } else {
            let error = Error::found(Call::PerfEvent, "who calls bpf()", Errno::EOPNOTSUPP);
            Err(error.with_detail("in a pid namespace the kernel's pids are other ones"))
        };
        Ok(Self { records, calls })
    }

    /// Follows this process and what it starts from now on. A thread of its own reads the rings: it blocks the signals that
    /// the calling one blocks.
    ///
    /// # Errors
    /// When the rings cannot be read, or `/proc`; and in a time namespace whose clocks it does not tell.
    pub fn follow(mut self, root: u32) -> Result<Following> {
        let shift = Shift::of_this_process().ok_or_else(|| {
            let error = Error::found(Call::PerfEvent, WHAT, Errno::ENODATA);
            error.with_detail("the clocks of this time namespace cannot be told")
        })?;
        // What was before does not matter, nor whether it was too much.
        self.records.read(Duration::ZERO, |_| {}).map_err(fail)?;
        let since_ns = monotonic_ns(shift);
        // Who comes meanwhile is in the rings, too, which are read later.
        let mut family = Family::new(root, processes()?.into_iter());
        family.unseen = self.calls.as_ref().err().cloned();
        let shared = Arc::new(Shared {
            state: Mutex::new(State { family, ..State::default() }),
            has_read: Condvar::new(),
            shift,
            since_ns,
        });
        let reader = Arc::clone(&shared);
        let thread = thread::spawn(move || reader.read_on(self));
        Ok(Following { shared, thread: Some(thread) })
    }
}

/// Reads on until it is dropped.
#[derive(Debug)]
pub struct Following {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    has_read: Condvar,
    shift: Shift,
    /// What was asked for before does not matter.
    since_ns: u64,
}

#[derive(Debug, Default)]
struct State {
    family: Family,
    /// Records that may have earlier ones in other rings.
    waiting: Vec<Record>,
    /// All that happened until then is in it.
    until_ns: u64,
    failed: Option<Error>,
    is_over: bool,
}

impl Following {
    /// What was done since, up to now. None where that is not known of all: more was written at once than there was room
    /// for.
    ///
    /// # Errors
    /// When the rings cannot be read.
    pub fn told(&self) -> Result<Option<Told>> {
        let now = self.shared.now_ns();
        let mut state = self.shared.lock();
        while state.until_ns < now && state.failed.is_none() {
            state = self.shared.has_read.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        match &state.failed {
            Some(error) => Err(error.clone()),
            None if state.family.is_lost => Ok(None),
            None => Ok(Some(state.family.told())),
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.shared.lock().is_over = true;
        if let Some(thread) = self.thread.take() {
            // It can only have panicked.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ns(&self) -> u64 {
        monotonic_ns(self.shift)
    }

    fn read_on(&self, Loads { mut records, calls }: Loads) {
        let reader = calls.as_ref().ok().map(Calls::reader).transpose();
        loop {
            let mut read = Vec::new();
            // What is earlier than this is in the rings before they are read for the second time.
            let until = self.now_ns().saturating_sub(LATE_NS);
            let result = records.read(PAUSE, |bytes| read.extend(Record::parse(bytes)));
            let result = result.map_err(fail).and_then(|()| self.asked(&calls, &reader));
            let mut state = self.lock();
            match result {
                Ok(asked) => read.extend(asked),
                Err(error) => state.failed = Some(error),
            }
            state.waiting.append(&mut read);
            state.settle(until);
            self.has_read.notify_all();
            if state.is_over || state.failed.is_some() {
                return;
            }
        }
    }

    /// What was asked for since this was called last.
    fn asked(&self, calls: &Result<Calls>, reader: &Result<Option<Reader>>) -> Result<Vec<Record>> {
        let (Ok(calls), Some(reader)) = (calls, reader.as_ref().map_err(Error::clone)?) else {
            return Ok(Vec::new());
        };
        let seen = reader.read()?.into_iter().filter(|seen| seen.at_ns >= self.since_ns);
        let record = |seen: Seen| Record {
            at_ns: seen.at_ns,
            what: What::Ask { pid: seen.pid, asked: seen.asked },
        };
        let lost = Record { at_ns: self.since_ns, what: What::Lost };
        let lost = calls.is_lost()?.then_some(lost);
        Ok(seen.map(record).chain(lost).collect())
    }
}

impl State {
    /// Takes what is older than that, in the order in which it happened.
    fn settle(&mut self, until_ns: u64) {
        self.waiting.sort_by_key(|record| record.at_ns);
        let settled = self.waiting.partition_point(|record| record.at_ns <= until_ns);
        for record in self.waiting.drain(..settled) {
            self.family.note(record.what, name_of);
        }
        self.until_ns = until_ns;
    }
}

/// A process, its descendants, and what they have done.
#[derive(Debug, Default)]
struct Family {
    /// Of every process whose beginning is known, by pid.
    kin: HashMap<u32, Kin>,
    loaders: HashMap<ProgramId, Loader>,
    asked: HashSet<Asked>,
    /// Why that is not known.
    unseen: Option<Error>,
    /// Some records were lost.
    is_lost: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kin {
    Root,
    /// A descendant, and the name that it, or who forked it, was given since.
    Descendant(String),
    /// Another one, and the same.
    Stranger(String),
}

impl Family {
    /// `elders`: the processes that were there before. One from outside of the pid namespace is nobody's descendant.
    fn new(root: u32, elders: impl Iterator<Item = u32>) -> Self {
        let mut kin: HashMap<_, _> =
            elders.chain([0]).map(|pid| (pid, Kin::Stranger(String::new()))).collect();
        kin.insert(root, Kin::Root);
        Self { kin, ..Self::default() }
    }

    /// `name_of`: tells the name of a process that has been given none since.
    fn note(&mut self, what: What, name_of: impl Fn(u32) -> String) {
        match what {
            // Another thread of the same process.
            What::Fork { pid, parent } if pid == parent => {}
            // The pid may have been another's before.
            What::Fork { pid, parent } => {
                match self.kin.get(&parent) {
                    Some(Kin::Root) => self.kin.insert(pid, Kin::Descendant(String::new())),
                    Some(kin) => self.kin.insert(pid, kin.clone()),
                    None => self.kin.remove(&pid),
                };
            }
            // From outside of this pid namespace all come as one.
            What::Name { pid: 0, .. } => {}
            What::Name { pid, name } => {
                if let Some(Kin::Descendant(known) | Kin::Stranger(known)) = self.kin.get_mut(&pid)
                {
                    *known = name;
                }
            }
            What::Load { id, pid } => {
                let (name, is_descendant) = match self.kin.get(&pid) {
                    Some(Kin::Descendant(name)) => (name.as_str(), Some(true)),
                    Some(Kin::Stranger(name)) => (name.as_str(), Some(false)),
                    Some(Kin::Root) => ("", Some(false)),
                    None => ("", None),
                };
                let name = if name.is_empty() { name_of(pid) } else { name.to_owned() };
                self.loaders.insert(id, Loader { pid, name, is_descendant });
            }
            What::Ask { pid, asked } => {
                if matches!(self.kin.get(&pid), None | Some(Kin::Descendant(_))) {
                    self.asked.insert(asked);
                }
            }
            What::Lost => self.is_lost = true,
        }
    }

    fn told(&self) -> Told {
        let asked = self.unseen.clone().map_or_else(|| Ok(self.asked.clone()), Err);
        Told { loaders: self.loaders.clone(), asked }
    }
}

/// What the kernel has written down.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    at_ns: u64,
    what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Fork {
        pid: u32,
        parent: u32,
    },
    /// The whole process has another name.
    Name {
        pid: u32,
        name: String,
    },
    Load {
        id: ProgramId,
        pid: u32,
    },
    /// It may have failed.
    Ask {
        pid: u32,
        asked: Asked,
    },
    /// There was no room for some.
    Lost,
}

impl Record {
    /// Of a record that begins with a `struct perf_event_header` (type, misc, size), and whose body is followed by pid,
    /// thread and time (`sample_id_all`). None for one of another type.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let kind = number(bytes.get(..4)?)?;
        let size = match kind {
            // One who listens beside us has made it longer than it is: kernel/events/core.c, perf_event_bpf_output(),
            // adds the trailer's size to the one header that all listeners get, and never takes it back.
            kernel::PERF_RECORD_BPF_EVENT => BPF_EVENT_SIZE,
            _ => bytes.len().checked_sub(8 + TRAILER_SIZE)?,
        };
        let (body, trailer) = bytes.get(8..)?.split_at_checked(size)?;
        let trailer = trailer.get(..TRAILER_SIZE)?;
        let (pid, at_ns) =
            (number(&trailer[..4])?, u64::from_ne_bytes(trailer[8..].try_into().ok()?));
        let field = |at: usize| number(body.get(at..at + 4)?);
        let what = match kind {
            kernel::PERF_RECORD_FORK => What::Fork { pid: field(0)?, parent: field(4)? },
            kernel::PERF_RECORD_COMM if field(0)? == field(4)? => {
                let name = body.get(8..)?.split(|byte| *byte == 0).next()?;
                What::Name { pid: field(0)?, name: String::from_utf8_lossy(name).into_owned() }
            }
            kernel::PERF_RECORD_BPF_EVENT => {
                let is_load = field(0)? & 0xffff == kernel::PERF_BPF_EVENT_PROG_LOAD;
                is_load.then_some(What::Load { id: ProgramId(field(4)?), pid })?
            }
            kernel::PERF_RECORD_LOST => What::Lost,
            _ => return None,
        };
        Some(Self { at_ns, what })
    }
}

fn number(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

/// A process may have ended, and outside of this pid namespace it has no name.
fn name_of(pid: u32) -> String {
    let comm = std::fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    String::from_utf8_lossy(comm.trim_ascii_end()).into_owned()
}

fn processes() -> Result<Vec<u32>> {
    let fail = |error: &std::io::Error| Error::from_io(Call::ReadProc, "/proc", error);
    let names = std::fs::read_dir("/proc")
        .map_err(|error| fail(&error))?
        .map(|entry| entry.map(|it| it.file_name()));
    let names = names.collect::<std::io::Result<Vec<_>>>().map_err(|error| fail(&error))?;
    Ok(names.iter().filter_map(|name| name.to_str()?.parse().ok()).collect())
}

fn fail(errno: Errno) -> Error {
    Error::new(Call::PerfEvent, WHAT, errno)
}

#[cfg(test)]
#[path = "loads_tests.rs"]
mod tests;
