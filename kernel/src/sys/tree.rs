//! Copies a mount without the mounts below it: `open_tree(2)`.

use std::os::fd::{FromRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::libc;

use super::{Result, c_path};

/// Copies the mount at `path`. The copy is attached nowhere and ends with its descriptor. Needs Linux 5.2 and
/// `CAP_SYS_ADMIN`.
///
/// `EINVAL` when a mount below may not be uncovered, as in a user namespace.
pub(crate) fn clone_mount(path: &Path) -> Result<OwnedFd> {
    let path = c_path(path)?;
    let flags = libc::OPEN_TREE_CLONE | libc::O_CLOEXEC as libc::c_uint;
    // SAFETY: the path lives across the call, and the kernel only reads it.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
    let fd = i32::try_from(Errno::result(fd)?).map_err(|_| Errno::EOVERFLOW)?;
    // SAFETY: the call succeeded, so `fd` is open, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
