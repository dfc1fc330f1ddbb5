//! The first function of a program, from its type information.

use std::mem;
use std::os::fd::BorrowedFd;

use libbpf_sys as sys;
use nix::errno::Errno;

use super::{Result, info};

/// Returns the type id of a program's first function in the program's BTF. `None` if the program has no function
/// information.
pub(crate) fn first_function(fd: BorrowedFd<'_>) -> Result<Option<u32>> {
    let mut function = sys::bpf_func_info::default();
    let mut raw = sys::bpf_prog_info {
        func_info_rec_size: u32::try_from(mem::size_of_val(&function))
            .map_err(|_| Errno::EINVAL)?,
        nr_func_info: 1,
        func_info: std::ptr::from_mut(&mut function) as u64,
        ..Default::default()
    };
    // SAFETY: `fd` is a program's, or the kernel says EINVAL. `function` lives across the call. It is one record of the
    // given size, and the kernel gets a count of one. The other pointers are null.
    unsafe { info(fd, &mut raw) }?;
    Ok((raw.btf_id != 0 && raw.nr_func_info != 0).then_some(function.type_id))
}
