//! The kernel's records of processes and program loads: `perf_event_open(2)`, with one ring for each CPU. libbpf maps
//! the rings and reads them in order.

use std::ffi::{c_int, c_void};
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::slice;
use std::time::Duration;

use libbpf_sys as sys;
use nix::errno::Errno;
use nix::libc;

use super::{Result, check, check_fd};

/// The pages of each ring, a power of two. They hold some 2,000 records between two reads.
const PAGES: sys::size_t = 32;

/// Records, one after another.
#[derive(Debug, Default)]
struct Read(Vec<u8>);

/// The rings of all CPUs that are online. A CPU that comes online later has no ring.
#[derive(Debug)]
pub(crate) struct Records {
    buffer: NonNull<sys::perf_buffer>,
    /// The records read. libbpf writes them only during `read`.
    read: Box<Read>,
    /// libbpf requires a map with the rings, although nobody uses it.
    _map: OwnedFd,
}

// SAFETY: nothing in it belongs to a thread, and `read` needs it for itself.
unsafe impl Send for Records {}

impl Records {
    /// Starts recording forks, new process names and program loads. Each record has the thread and the time
    /// (`CLOCK_MONOTONIC`). Needs Linux 5.1 and `CAP_PERFMON`.
    pub(crate) fn open() -> Result<Self> {
        // SAFETY: takes nothing.
        let processors = check(unsafe { sys::libbpf_num_possible_cpus() })?;
        let (kind, bytes) = (sys::BPF_MAP_TYPE_PERF_EVENT_ARRAY, 4);
        let most = u32::try_from(processors).map_err(|_| Errno::EINVAL)?;
        let name = c"loads".as_ptr();
        // SAFETY: the name is a constant, and there are no options.
        let map = check_fd(unsafe {
            sys::bpf_map_create(kind, name, bytes, bytes, most, std::ptr::null())
        })?;

        let mut attr = sys::perf_event_attr {
            type_: sys::PERF_TYPE_SOFTWARE,
            size: u32::try_from(mem::size_of::<sys::perf_event_attr>())
                .map_err(|_| Errno::EINVAL)?,
            config: sys::PERF_COUNT_SW_DUMMY.into(),
            sample_type: (sys::PERF_SAMPLE_TID | sys::PERF_SAMPLE_TIME).into(),
            clockid: libc::CLOCK_MONOTONIC,
            ..sys::perf_event_attr::default()
        };
        attr.set_sample_id_all(1);
        attr.set_use_clockid(1);
        attr.set_task(1);
        attr.set_comm(1);
        attr.set_bpf_event(1);
        let mut read = Box::<Read>::default();
        let context: *mut Read = &raw mut *read;
        // SAFETY: the map and the attributes outlive the call. The callback writes to memory on the heap, which lives
        // as long as the buffer does. Only `read` runs the callback.
        let buffer = unsafe {
            sys::perf_buffer__new_raw(
                map.as_raw_fd(),
                PAGES,
                &raw mut attr,
                Some(keep),
                context.cast(),
                std::ptr::null(),
            )
        };
        // libbpf has set errno.
        let buffer = NonNull::new(buffer).ok_or_else(Errno::last)?;
        Ok(Self { buffer, read, _map: map })
    }

    /// Waits until a ring is half full or the time is up. Then reads everything written before, and passes on each
    /// record.
    pub(crate) fn read(&mut self, wait: Duration, mut each: impl FnMut(&[u8])) -> Result<()> {
        let wait = c_int::try_from(wait.as_millis()).unwrap_or(c_int::MAX);
        // SAFETY: the buffer lives as long as this value.
        let polled = check(unsafe { sys::perf_buffer__poll(self.buffer.as_ptr(), wait) });
        if !matches!(polled, Ok(_) | Err(Errno::EINTR)) {
            return polled.map(|_| ());
        }
        // SAFETY: as above.
        check(unsafe { sys::perf_buffer__consume(self.buffer.as_ptr()) })?;
        let mut rest = &self.read.0[..];
        while let Some(size) = rest.get(6..8) {
            let size = usize::from(u16::from_ne_bytes([size[0], size[1]]));
            let (record, after) = rest.split_at_checked(size).ok_or(Errno::EPROTO)?;
            each(record);
            rest = if size == 0 { return Err(Errno::EPROTO) } else { after };
        }
        self.read.0.clear();
        Ok(())
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        // SAFETY: nobody has it any more. It closes the rings.
        unsafe { sys::perf_buffer__free(self.buffer.as_ptr()) };
    }
}

/// Keeps a record. libbpf calls it with whole records only.
unsafe extern "C" fn keep(
    context: *mut c_void,
    _processor: c_int,
    record: *mut sys::perf_event_header,
) -> sys::bpf_perf_event_ret {
    // SAFETY: the context is the value that `open` gave, and nobody else uses it while libbpf reads.
    let kept = unsafe { &mut *context.cast::<Read>() };
    // SAFETY: a record is as long as its header says.
    kept.0.extend_from_slice(unsafe {
        slice::from_raw_parts(record.cast::<u8>(), usize::from((*record).size))
    });
    sys::LIBBPF_PERF_EVENT_CONT
}
