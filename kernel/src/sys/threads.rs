//! Whether two threads have the same table of open files: `kcmp(2)`.

use nix::errno::Errno;
use nix::libc::{self, c_long};

/// `KCMP_FILES` of `linux/kcmp.h`.
const KCMP_FILES: c_long = 2;

/// Thread ids of this pid namespace. False also where the kernel does not tell: without the right to look into them
/// (that of `PTRACE_MODE_READ_REALCREDS`), without `CONFIG_KCMP`, or when one has ended.
pub(crate) fn share_files(one: u32, other: u32) -> bool {
    let (one, other) = (c_long::from(one), c_long::from(other));
    let unused: c_long = 0;
    // SAFETY: numbers only, and the kernel writes nothing.
    let order = unsafe { libc::syscall(libc::SYS_kcmp, one, other, KCMP_FILES, unused, unused) };
    Errno::result(order) == Ok(0)
}
