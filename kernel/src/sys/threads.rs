//! Tells whether two threads share their descriptor table: `kcmp(2)`.

use nix::errno::Errno;
use nix::libc::{self, c_long};

/// `KCMP_FILES` of `linux/kcmp.h`.
const KCMP_FILES: c_long = 2;

/// Tells whether two threads of this pid namespace share their descriptor table. False if the kernel does not say. That
/// is so without the permission of `PTRACE_MODE_READ_REALCREDS`, without `CONFIG_KCMP`, or after one has ended.
pub(crate) fn share_files(one: u32, other: u32) -> bool {
    let (one, other) = (c_long::from(one), c_long::from(other));
    let unused: c_long = 0;
    // SAFETY: numbers only, and the kernel writes nothing.
    let order = unsafe { libc::syscall(libc::SYS_kcmp, one, other, KCMP_FILES, unused, unused) };
    Errno::result(order) == Ok(0)
}
