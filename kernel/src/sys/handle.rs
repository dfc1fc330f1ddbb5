//! Opening a cgroup by its id: `open_by_handle_at(2)`.

use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;

use super::Result;

/// The handle type for the id of a kernfs node (`include/linux/exportfs.h`).
const FILEID_KERNFS: libc::c_int = 0xfe;

/// The `struct file_handle` of a kernfs node.
#[repr(C)]
struct Handle {
    head: libc::file_handle,
    id: u64,
}

/// Opens a cgroup by its id. `mount` is any file of the mount. `ESTALE` when no cgroup has the id.
pub(crate) fn open_cgroup_by_id(mount: BorrowedFd<'_>, id: u64) -> Result<OwnedFd> {
    // SAFETY: the structure holds only numbers.
    let mut handle: Handle = unsafe { mem::zeroed() };
    handle.head.handle_bytes = u32::try_from(mem::size_of::<u64>()).map_err(|_| Errno::EINVAL)?;
    handle.head.handle_type = FILEID_KERNFS;
    handle.id = id;
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: the handle lives across the call, and as many bytes as it says follow its head.
    let fd = unsafe { libc::open_by_handle_at(mount.as_raw_fd(), (&raw mut handle).cast(), flags) };
    let fd = Errno::result(fd)?;
    // SAFETY: the call succeeded, so `fd` is open, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
