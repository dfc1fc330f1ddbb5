//! Traces which process loads which program, from the kernel's own records.
//!
//! The kernel records each fork and each load (`PERF_RECORD_FORK`, `PERF_RECORD_BPF_EVENT`, `perf_event_open(2)`). So
//! the loads of a process and its descendants are known, even after they have ended or handed a program on. A program
//! of our own traces what else they ask for (`calls.bpf.c`).

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

/// The longest time that records wait to be read.
const PAUSE: Duration = Duration::from_millis(20);

/// The longest delay between a record's time and its place in the ring, in nanoseconds. The kernel reads the time right
/// before it writes.
const LATE_NS: u64 = 10_000_000;

/// The size of a record's trailer: pid and thread (4 bytes each), and time (8 bytes).
const TRAILER_SIZE: usize = 16;

/// The size of a load or unload record: type and flags (2 bytes each), id (4 bytes), tag (8 bytes).
const BPF_EVENT_SIZE: usize = 16;

/// The process that loaded a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loader {
    /// The process's pid in this pid namespace; 0 for a process outside it.
    pub pid: u32,
    /// The process's name at that time; empty if unknown.
    pub name: String,
    /// The process descends from the followed one, and started later. `None` if unknown.
    pub is_descendant: Option<bool>,
}

/// The actions of a process and its descendants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The loader of each program.
    pub loaders: HashMap<ProgramId, Loader>,
    /// The kinds of object that the descendants asked for. Includes processes that may or may not be descendants. An
    /// error if unknown.
    pub asked: Result<HashSet<Asked>>,
}

/// Open rings for the kernel's records. Leaves nothing behind if the process dies.
#[derive(Debug)]
pub struct Loads {
    records: Records,
    calls: Result<Calls>,
}

impl Loads {
    /// Starts recording.
    ///
    /// Needs Linux 5.1 and `CAP_PERFMON`, or `CAP_SYS_ADMIN` before 5.8. Tracing other requests than loads needs Linux
    /// 5.8 with type information, x86 or arm64, and the initial pid namespace.
    ///
    /// # Errors
    /// `Denied` without the capability, or if a policy or a sandbox forbids `perf_event_open(2)`.
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

    /// Follows a process and its future children. A new thread reads the rings, and blocks the same signals as the
    /// calling thread.
    ///
    /// # Errors
    /// When the rings or `/proc` cannot be read. When the clocks of this time namespace are unknown.
    pub fn follow(mut self, root: u32) -> Result<Following> {
        let shift = Shift::of_this_process().ok_or_else(|| {
            let error = Error::found(Call::PerfEvent, WHAT, Errno::ENODATA);
            error.with_detail("the clocks of this time namespace cannot be told")
        })?;
        // Earlier records do not matter, and neither does their loss.
        self.records.read(Duration::ZERO, |_| {}).map_err(fail)?;
        let since_ns = monotonic_ns(shift);
        // The rings also have processes that start meanwhile. They are read later.
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

/// A followed process. Dropping the value stops reading.
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
    /// Earlier requests do not matter.
    since_ns: u64,
}

#[derive(Debug, Default)]
struct State {
    family: Family,
    /// Records that wait, because other rings may have earlier ones.
    waiting: Vec<Record>,
    /// Everything up to this time is included.
    until_ns: u64,
    failed: Option<Error>,
    is_over: bool,
}

impl Following {
    /// Returns the actions so far. `None` if records were lost because a ring was full.
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
            // An error means that the thread has panicked.
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
            // Records before this time are in the rings before the second read.
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

    /// Returns the requests since the last call.
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
    /// Takes the records before this time, in time order.
    fn settle(&mut self, until_ns: u64) {
        self.waiting.sort_by_key(|record| record.at_ns);
        let settled = self.waiting.partition_point(|record| record.at_ns <= until_ns);
        for record in self.waiting.drain(..settled) {
            self.family.note(record.what, name_of);
        }
        self.until_ns = until_ns;
    }
}

/// A process, its descendants, and their actions.
#[derive(Debug, Default)]
struct Family {
    /// Processes with a known start, by pid.
    kin: HashMap<u32, Kin>,
    loaders: HashMap<ProgramId, Loader>,
    asked: HashSet<Asked>,
    /// The reason why the requests are unknown.
    unseen: Option<Error>,
    /// Some records were lost.
    is_lost: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kin {
    Root,
    /// A descendant, with the name that it or its parent got since the start.
    Descendant(String),
    /// Any other process, with its name in the same way.
    Stranger(String),
}

impl Family {
    /// Creates the family of `root`. `elders` are the processes that already existed. A process outside this pid
    /// namespace is nobody's descendant.
    fn new(root: u32, elders: impl Iterator<Item = u32>) -> Self {
        let mut kin: HashMap<_, _> =
            elders.chain([0]).map(|pid| (pid, Kin::Stranger(String::new()))).collect();
        kin.insert(root, Kin::Root);
        Self { kin, ..Self::default() }
    }

    /// Adds a record. `name_of` returns the name of a process that has no recorded name.
    fn note(&mut self, what: What, name_of: impl Fn(u32) -> String) {
        match what {
            // This is another thread of the same process.
            What::Fork { pid, parent } if pid == parent => {}
            // The pid may have belonged to another process before.
            What::Fork { pid, parent } => {
                match self.kin.get(&parent) {
                    Some(Kin::Root) => self.kin.insert(pid, Kin::Descendant(String::new())),
                    Some(kin) => self.kin.insert(pid, kin.clone()),
                    None => self.kin.remove(&pid),
                };
            }
            // Processes outside this pid namespace all have pid 0.
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

/// A record of the kernel.
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
    /// The whole process got a new name.
    Name {
        pid: u32,
        name: String,
    },
    Load {
        id: ProgramId,
        pid: u32,
    },
    /// The request may have failed.
    Ask {
        pid: u32,
        asked: Asked,
    },
    /// The ring had no room for some records.
    Lost,
}

impl Record {
    /// Parses a record: `struct perf_event_header` (type, misc, size), body, then pid, thread and time
    /// (`sample_id_all`). `None` for a record of another type.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let kind = number(bytes.get(..4)?)?;
        let size = match kind {
            // The header's size can be too large. With several listeners, perf_event_bpf_output() in
            // kernel/events/core.c adds the trailer's size to the shared header again for each.
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

/// Returns a process's name; empty if it has ended or is outside this pid namespace.
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
