//! Open maps: their sizes, and their keys and values as bytes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use crate::error::{Call, Error, Result};
use crate::object::ids::MapId;
use crate::sys::{self, ObjectKind};

/// An open map. The kernel keeps it for as long as anybody has it open, has pinned it, or a loaded program uses it.
#[derive(Debug)]
pub struct Map {
    raw: sys::Map,
}

impl Map {
    /// Opens a map by its id. Needs `CAP_SYS_ADMIN`.
    ///
    /// # Errors
    /// `Vanished` when there is none with that id.
    pub fn open(id: MapId) -> Result<Self> {
        let fail = |call| move |errno| Error::new(call, format!("map {id}"), errno);
        let fd = sys::fd_by_id(ObjectKind::Map, id.0).map_err(fail(Call::FdById))?;
        Ok(Self { raw: sys::Map::from_fd(fd).map_err(fail(Call::Info))? })
    }

    /// Takes over a descriptor of a map, and asks the kernel for its sizes.
    ///
    /// # Errors
    /// `EINVAL` when the descriptor is not a map's.
    pub fn from_fd(fd: OwnedFd) -> Result<Self> {
        let raw = sys::Map::from_fd(fd).map_err(|errno| Error::new(Call::Info, "a map", errno))?;
        Ok(Self { raw })
    }

    /// Returns its name, as the kernel kept it.
    pub fn name(&self) -> &str {
        &self.raw.name
    }

    /// Returns its type, as `enum bpf_map_type` numbers it.
    pub fn kind(&self) -> u32 {
        self.raw.kind
    }

    /// Returns the bytes of one value, rounded up to 8 in a map that has one for each processor.
    pub fn value_size(&self) -> usize {
        self.raw.value_size
    }

    /// Reads every value under a key, one after the other: one, or one for each processor. `None` when there is none.
    ///
    /// # Errors
    /// `EINVAL` when the key has another length, and for a type of map other than arrays, hashes and cgroup storage.
    pub fn lookup(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.raw.lookup(key).map_err(|errno| self.fail(Call::MapLookup, errno))
    }

    /// Reads every value under a key, each by itself; none when there is nothing.
    ///
    /// # Errors
    /// As [`Map::lookup`].
    pub fn values(&self, key: &[u8]) -> Result<Vec<Vec<u8>>> {
        let bytes = self.lookup(key)?.unwrap_or_default();
        Ok(bytes.chunks_exact(self.value_size().max(1)).map(<[u8]>::to_vec).collect())
    }

    /// Writes the value of a key that is there already; in a hash also of one that is not.
    ///
    /// # Errors
    /// `Vanished` when there is no such key; `EINVAL` as for [`Map::lookup`], and when the value has another length.
    pub fn update(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.raw.update(key, value).map_err(|errno| self.fail(Call::MapUpdate, errno))
    }

    fn fail(&self, call: Call, errno: Errno) -> Error {
        Error::new(call, format!("map {}", self.raw.name), errno)
    }
}

impl AsFd for Map {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.raw.as_fd()
    }
}
