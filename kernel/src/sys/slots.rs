//! The programs and maps in the slots of maps.

use std::os::fd::{AsRawFd, BorrowedFd};

use libbpf_sys as sys;
use nix::errno::Errno;

use super::map::RawMap;
use super::{ObjectKind, Result, check};

/// A slot of a map: the bytes of its key, and the id of its object.
pub(crate) type Slot = (Vec<u8>, u32);

/// Returns the kind of object in a map's values, and the offset of its id. `None` for a map that holds no objects.
fn kept_by(map: &RawMap) -> Option<(ObjectKind, usize)> {
    match map.kind {
        sys::BPF_MAP_TYPE_PROG_ARRAY => Some((ObjectKind::Program, 0)),
        sys::BPF_MAP_TYPE_ARRAY_OF_MAPS | sys::BPF_MAP_TYPE_HASH_OF_MAPS => {
            Some((ObjectKind::Map, 0))
        }
        // The second half of the value, if any, is a program.
        sys::BPF_MAP_TYPE_DEVMAP | sys::BPF_MAP_TYPE_DEVMAP_HASH | sys::BPF_MAP_TYPE_CPUMAP
            if map.value_size >= 8 =>
        {
            Some((ObjectKind::Program, 4))
        }
        _ => None,
    }
}

fn is_hash(map: &RawMap) -> bool {
    matches!(map.kind, sys::BPF_MAP_TYPE_HASH_OF_MAPS | sys::BPF_MAP_TYPE_DEVMAP_HASH)
}

/// Returns the filled slots of a map, and the kind of their objects.
pub(crate) fn slots(fd: BorrowedFd<'_>, map: &RawMap) -> Result<Option<(ObjectKind, Vec<Slot>)>> {
    let Some((kept, at)) = kept_by(map) else { return Ok(None) };
    let mut found = Vec::new();
    let mut look = |key: Vec<u8>| -> Result<()> {
        let Some(value) = lookup(fd, map, &key)? else { return Ok(()) };
        let id = value.get(at..at + 4).and_then(|it| it.try_into().ok()).map(u32::from_ne_bytes);
        found.extend(id.filter(|id| *id != 0).map(|id| (key, id)));
        Ok(())
    };
    if is_hash(map) {
        let mut last = None;
        // Keys that come and go may lead back to the first one. No map has more keys than this.
        for _ in 0..map.max_entries {
            let Some(key) = next_key(fd, map, last.as_deref())? else { break };
            look(key.clone())?;
            last = Some(key);
        }
        found.sort();
        found.dedup();
    } else {
        for index in 0..map.max_entries {
            look(index.to_ne_bytes().to_vec())?;
        }
    }
    Ok(Some((kept, found)))
}

/// Reads a slot. `None` for an empty one.
fn lookup(fd: BorrowedFd<'_>, map: &RawMap, key: &[u8]) -> Result<Option<Vec<u8>>> {
    if key.len() != map.key_size {
        return Err(Errno::EINVAL);
    }
    let mut value = vec![0_u8; map.value_size];
    // SAFETY: key and value have the sizes that the kernel reads and writes for these kinds of map.
    let ret = unsafe {
        sys::bpf_map_lookup_elem(fd.as_raw_fd(), key.as_ptr().cast(), value.as_mut_ptr().cast())
    };
    match check(ret) {
        Ok(_) => Ok(Some(value)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Returns the key after `last`, or the first key without `last`. `None` after the last one.
fn next_key(fd: BorrowedFd<'_>, map: &RawMap, last: Option<&[u8]>) -> Result<Option<Vec<u8>>> {
    let mut next = vec![0_u8; map.key_size];
    let last = last.map_or(std::ptr::null(), <[u8]>::as_ptr);
    // SAFETY: `last` is null or a key of this map, `next` has room for one.
    let ret =
        unsafe { sys::bpf_map_get_next_key(fd.as_raw_fd(), last.cast(), next.as_mut_ptr().cast()) };
    match check(ret) {
        Ok(_) => Ok(Some(next)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}
