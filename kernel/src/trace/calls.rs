//! Traces which process asks the kernel for a map, a pin, an attachment or a link.

// Generated code: neither its style nor its documentation is ours.
#[allow(warnings, clippy::all, clippy::pedantic)]
mod skeleton {
    include!(concat!(env!("OUT_DIR"), "/calls.skel.rs"));
}

use std::cell::RefCell;
use std::mem::{MaybeUninit, take};
use std::rc::Rc;

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{Link, MapCore, MapFlags, MapHandle, RingBuffer, RingBufferBuilder};
use libbpf_sys as kernel;
use nix::libc::SYS_bpf;

use crate::error::{Call, Error, Result};
use crate::sys::libbpf;

const WHAT: &str = "the program that sees who calls bpf()";

/// The kind of object that a process asked the kernel for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Asked {
    /// A map.
    Map,
    /// A pin.
    Pin,
    /// A legacy attachment.
    Attachment,
    /// A link of any type.
    Link,
}

impl Asked {
    fn from_kernel(command: u32) -> Option<Self> {
        Some(match command {
            kernel::BPF_MAP_CREATE => Self::Map,
            kernel::BPF_OBJ_PIN => Self::Pin,
            kernel::BPF_PROG_ATTACH => Self::Attachment,
            kernel::BPF_LINK_CREATE | kernel::BPF_RAW_TRACEPOINT_OPEN => Self::Link,
            _ => return None,
        })
    }
}

/// A traced call, which may have failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The time on `CLOCK_MONOTONIC` of the initial time namespace, in nanoseconds.
    pub(crate) at_ns: u64,
    /// The process's pid in the initial pid namespace.
    pub(crate) pid: u32,
    pub(crate) asked: Asked,
}

impl Seen {
    /// Parses a `struct call_record`. Returns `None` if the bytes are not one.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (&at_ns, rest) = bytes.split_first_chunk()?;
        let (&pid, rest) = rest.split_first_chunk()?;
        let command = u32::from_ne_bytes(rest.try_into().ok()?);
        let (at_ns, pid) = (u64::from_ne_bytes(at_ns), u32::from_ne_bytes(pid));
        Some(Self { at_ns, pid, asked: Asked::from_kernel(command)? })
    }
}

/// The place in the kernel where the tracing program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hook {
    /// A function that only these calls reach, so nothing else slows down.
    Function,
    /// The start of every system call of every process.
    SystemCall,
}

/// A running trace of calls. Leaves nothing behind if the process dies.
#[derive(Debug)]
pub(crate) struct Calls {
    ring: MapHandle,
    counts: MapHandle,
    _link: Link,
}

impl Calls {
    /// Starts a trace. Needs Linux 5.8 with type information (`CONFIG_DEBUG_INFO_BTF`), x86 or arm64, `CAP_BPF` and
    /// `CAP_PERFMON`.
    ///
    /// # Errors
    /// Those of the kernel or libbpf.
    pub(crate) fn open() -> Result<Self> {
        libbpf::listen();
        let fail = |error: libbpf_rs::Error| Error::of_load(Call::Load, WHAT, &error);
        let open = |hook| Self::attached(hook).map_err(fail);
        open(Hook::Function).or_else(|_| open(Hook::SystemCall))
    }

    fn attached(hook: Hook) -> libbpf_rs::Result<Self> {
        let mut storage = MaybeUninit::uninit();
        let mut open = skeleton::CallsSkelBuilder::default().open(&mut storage)?;
        open.progs.see_bpf.set_autoload(hook == Hook::Function);
        open.progs.see_system_call.set_autoload(hook == Hook::SystemCall);
        if let Some(rodata) = open.maps.rodata_data.as_deref_mut() {
            rodata.bpf_call = SYS_bpf;
        }
        let skeleton = open.load()?;
        let ring = MapHandle::try_from(&skeleton.maps.calls)?;
        let counts = MapHandle::try_from(&skeleton.maps.bss)?;
        let link = match hook {
            Hook::Function => skeleton.progs.see_bpf.attach()?,
            Hook::SystemCall => skeleton.progs.see_system_call.attach()?,
        };
        Ok(Self { ring, counts, _link: link })
    }

    /// Creates a reader for the calling thread.
    pub(crate) fn reader(&self) -> Result<Reader> {
        let read = Rc::new(RefCell::new(Vec::new()));
        let kept = Rc::clone(&read);
        let mut ring = RingBufferBuilder::new();
        let keep = move |bytes: &[u8]| {
            kept.borrow_mut().extend(Seen::parse(bytes));
            0
        };
        ring.add(&self.ring, keep).map_err(|error| failed(&error))?;
        Ok(Reader { ring: ring.build().map_err(|error| failed(&error))?, read })
    }

    /// Tells whether calls were lost because the buffer was full.
    pub(crate) fn is_lost(&self) -> Result<bool> {
        let value = self.counts.lookup(&[0; 4], MapFlags::ANY).map_err(|error| failed(&error))?;
        Ok(value.is_none_or(|bytes| bytes.iter().any(|byte| *byte != 0)))
    }
}

pub(crate) struct Reader {
    ring: RingBuffer<'static>,
    read: Rc<RefCell<Vec<Seen>>>,
}

impl Reader {
    /// Reads the calls traced since the last read.
    pub(crate) fn read(&self) -> Result<Vec<Seen>> {
        self.ring.consume().map_err(|error| failed(&error))?;
        Ok(take(&mut self.read.borrow_mut()))
    }
}

fn failed(error: &libbpf_rs::Error) -> Error {
    Error::from_libbpf(Call::MapLookup, WHAT, error)
}
