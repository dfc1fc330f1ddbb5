//! Open maps: their sizes, and their keys and values as bytes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use crate::error::{Call, Error, Result};
use crate::object::ids::MapId;
use crate::sys::{self, ObjectKind};

/// An open map. The map lives while somebody has it open, has pinned it, or uses it in a loaded program.
#[derive(Debug)]
pub struct Map {
    raw: sys::Map,
}

impl Map {
    /// Opens a map by its id. Needs `CAP_SYS_ADMIN`.
    ///
    /// # Errors
    /// `Vanished` when no map has this id.
    pub fn open(id: MapId) -> Result<Self> {
        let fail = |call| move |errno| Error::new(call, format!("map {id}"), errno);
        let fd = sys::fd_by_id(ObjectKind::Map, id.0).map_err(fail(Call::FdById))?;
        Ok(Self { raw: sys::Map::from_fd(fd).map_err(fail(Call::Info))? })
    }

    /// Takes ownership of a map's descriptor, and reads the map's sizes from the kernel.
    ///
    /// # Errors
    /// `EINVAL` when the descriptor is not a map's.
    pub fn from_fd(fd: OwnedFd) -> Result<Self> {
        let raw = sys::Map::from_fd(fd).map_err(|errno| Error::new(Call::Info, "a map", errno))?;
        Ok(Self { raw })
    }

    /// Returns the map's name, as the kernel has cut it.
    pub fn name(&self) -> &str {
        &self.raw.name
    }

    /// Returns the map's type, a number of `enum bpf_map_type`.
    pub fn kind(&self) -> u32 {
        self.raw.kind
    }

    /// Returns the size of one value in bytes, rounded up to 8 for a map with a value for each CPU.
    pub fn value_size(&self) -> usize {
        self.raw.value_size
    }

    /// Reads all values of a key, concatenated: one, or one for each CPU. `None` if the key does not exist.
    ///
    /// # Errors
    /// `EINVAL` when the key has another length, or the map is not an array, a hash or a cgroup storage.
    pub fn lookup(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.raw.lookup(key).map_err(|errno| self.fail(Call::MapLookup, errno))
    }

    /// Reads all values of a key, each on its own. Empty if the key does not exist.
    ///
    /// # Errors
    /// Those of [`Map::lookup`].
    pub fn values(&self, key: &[u8]) -> Result<Vec<Vec<u8>>> {
        let bytes = self.lookup(key)?.unwrap_or_default();
        Ok(bytes.chunks_exact(self.value_size().max(1)).map(<[u8]>::to_vec).collect())
    }

    /// Writes the value of an existing key. A hash also accepts a new key.
    ///
    /// # Errors
    /// `Vanished` when the key does not exist. `EINVAL` as for [`Map::lookup`], and when the value has another length.
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
