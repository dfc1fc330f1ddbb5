//! Maps: their sizes, and their keys and values as bytes.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use libbpf_sys as sys;
use nix::errno::Errno;

use super::{Result, c_chars, check, info};

/// An open map, with the sizes of its keys and values in user space.
#[derive(Debug)]
pub(crate) struct Map {
    fd: OwnedFd,
    pub kind: u32,
    pub name: String,
    key_size: usize,
    /// The size of one value, rounded up to 8 bytes for a map with a value for each CPU.
    pub value_size: usize,
    /// The number of values for each key: one, or one for each CPU.
    values: usize,
}

impl Map {
    /// Reads the map's sizes from the kernel.
    pub(crate) fn from_fd(fd: OwnedFd) -> Result<Self> {
        let mut raw = sys::bpf_map_info::default();
        // SAFETY: `fd` is a map's, or the kernel says EINVAL; every pointer in `raw` is null.
        unsafe { info(fd.as_fd(), &mut raw) }?;
        let one = raw.value_size as usize;
        let (value_size, values) = if raw.type_ == sys::BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE {
            (one.next_multiple_of(8), possible_cpus()?)
        } else {
            (one, 1)
        };
        Ok(Self {
            fd,
            kind: raw.type_,
            name: c_chars(&raw.name),
            key_size: raw.key_size as usize,
            value_size,
            values,
        })
    }

    /// `BPF_MAP_LOOKUP_ELEM`: returns all values of a key, concatenated. `None` if the key does not exist.
    ///
    /// Only for arrays, hashes and cgroup storage, because [`Map::from_fd`] knows only their sizes.
    pub(crate) fn lookup(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut value = vec![0; self.value_size * self.values];
        if key.len() != self.key_size || !self.has_known_sizes() {
            return Err(Errno::EINVAL);
        }
        // SAFETY: key and value have the sizes that the kernel reads and writes for this map.
        let ret = unsafe {
            sys::bpf_map_lookup_elem(
                self.fd.as_raw_fd(),
                key.as_ptr().cast(),
                value.as_mut_ptr().cast(),
            )
        };
        match check(ret) {
            Ok(_) => Ok(Some(value)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// `BPF_MAP_UPDATE_ELEM`: writes the value of an existing key. A hash also accepts a new key.
    pub(crate) fn update(&self, key: &[u8], value: &[u8]) -> Result<()> {
        if key.len() != self.key_size
            || value.len() != self.value_size * self.values
            || !self.has_known_sizes()
        {
            return Err(Errno::EINVAL);
        }
        let flags = if self.kind == sys::BPF_MAP_TYPE_HASH { sys::BPF_ANY } else { sys::BPF_EXIST };
        // SAFETY: key and value have the sizes that the kernel reads for this map.
        check(unsafe {
            sys::bpf_map_update_elem(
                self.fd.as_raw_fd(),
                key.as_ptr().cast(),
                value.as_ptr().cast(),
                flags.into(),
            )
        })
        .map(drop)
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn has_known_sizes(&self) -> bool {
        [
            sys::BPF_MAP_TYPE_ARRAY,
            sys::BPF_MAP_TYPE_HASH,
            sys::BPF_MAP_TYPE_CGROUP_STORAGE,
            sys::BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE,
        ]
        .contains(&self.kind)
    }
}

/// The kernel's information about a map, without the sizes for reading it.
#[derive(Debug, Clone)]
pub(crate) struct RawMap {
    pub id: u32,
    pub kind: u32,
    pub name: String,
    pub key_size: usize,
    pub value_size: usize,
    pub max_entries: u32,
}

/// Reads the information about a map.
pub(crate) fn map_info(fd: BorrowedFd<'_>) -> Result<RawMap> {
    let mut raw = sys::bpf_map_info::default();
    // SAFETY: `fd` is a map's, or the kernel says EINVAL; every pointer in `raw` is null.
    unsafe { info(fd, &mut raw) }?;
    Ok(RawMap {
        id: raw.id,
        kind: raw.type_,
        name: c_chars(&raw.name),
        key_size: raw.key_size as usize,
        value_size: raw.value_size as usize,
        max_entries: raw.max_entries,
    })
}

/// Returns the number of possible CPUs, which is the number of values in a map with one for each CPU.
fn possible_cpus() -> Result<usize> {
    // SAFETY: no memory is passed.
    let cpus = check(unsafe { sys::libbpf_num_possible_cpus() })?;
    usize::try_from(cpus).map_err(|_| Errno::EINVAL)
}
