//! Objects by their ids: `BPF_*_GET_NEXT_ID` and `BPF_*_GET_FD_BY_ID`.

use std::os::fd::OwnedFd;

use libbpf_sys as sys;
use nix::errno::Errno;

use super::{Result, check, check_fd};

/// The kinds of object with ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ObjectKind {
    Program,
    Map,
    Link,
}

/// Returns the next id after `id` with `BPF_*_GET_NEXT_ID`; `None` after the last one.
pub(crate) fn next_id(kind: ObjectKind, id: u32) -> Result<Option<u32>> {
    let mut next = 0;
    // SAFETY: `next` lives across the call.
    let ret = unsafe {
        match kind {
            ObjectKind::Program => sys::bpf_prog_get_next_id(id, &raw mut next),
            ObjectKind::Map => sys::bpf_map_get_next_id(id, &raw mut next),
            ObjectKind::Link => sys::bpf_link_get_next_id(id, &raw mut next),
        }
    };
    match check(ret) {
        Ok(_) => Ok(Some(next)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Opens an object by its id with `BPF_*_GET_FD_BY_ID`.
pub(crate) fn fd_by_id(kind: ObjectKind, id: u32) -> Result<OwnedFd> {
    // SAFETY: no memory is passed.
    check_fd(unsafe {
        match kind {
            ObjectKind::Program => sys::bpf_prog_get_fd_by_id(id),
            ObjectKind::Map => sys::bpf_map_get_fd_by_id(id),
            ObjectKind::Link => sys::bpf_link_get_fd_by_id(id),
        }
    })
}
