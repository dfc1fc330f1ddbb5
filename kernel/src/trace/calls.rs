//! Which process asks the kernel to make a map, a pin, an attachment or a link.

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

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Asked {
    /// A map.
    Map,
    /// A pin.
    Pin,
    /// An attachment without a link.
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

/// One call; it may have failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    /// `CLOCK_MONOTONIC` of the initial time namespace.
    pub(crate) at_ns: u64,
    /// The process, in the initial pid namespace.
    pub(crate) pid: u32,
    pub(crate) asked: Asked,
}

impl Seen {
    /// From a `struct call_record`; none if it is not one.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (&at_ns, rest) = bytes.split_first_chunk()?;
        let (&pid, rest) = rest.split_first_chunk()?;
        let command = u32::from_ne_bytes(rest.try_into().ok()?);
        let (at_ns, pid) = (u64::from_ne_bytes(at_ns), u32::from_ne_bytes(pid));
        Some(Self { at_ns, pid, asked: Asked::from_kernel(command)? })
    }
}

/// Where calls are seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hook {
    /// A function that each of them comes through: nobody else pays.
    Function,
    /// The start of every system call, of every process.
    SystemCall,
}

/// Calls are written down as long as it lives. Nothing stays behind if the process dies.
#[derive(Debug)]
pub(crate) struct Calls {
    ring: MapHandle,
    counts: MapHandle,
    _link: Link,
}

impl Calls {
    /// Linux 5.8 with type information (`CONFIG_DEBUG_INFO_BTF`), on x86 or arm64; `CAP_BPF` and `CAP_PERFMON`.
    ///
    /// # Errors
    /// What the kernel or libbpf says.
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

    /// Reads, in the thread that calls it.
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

    /// Some were not written down, for want of room.
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
    /// All that was written since it was asked last.
    pub(crate) fn read(&self) -> Result<Vec<Seen>> {
        self.ring.consume().map_err(|error| failed(&error))?;
        Ok(take(&mut self.read.borrow_mut()))
    }
}

fn failed(error: &libbpf_rs::Error) -> Error {
    Error::from_libbpf(Call::MapLookup, WHAT, error)
}
