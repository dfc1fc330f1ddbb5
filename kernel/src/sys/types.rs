//! Whether types can be loaded.

use std::ffi::c_void;

use libbpf_sys as sys;

use super::{Result, check_fd};

/// `BPF_BTF_LOAD` (4.18) of one type, `int`, which goes at once: so whoever refuses it refuses all types.
pub(crate) fn try_types() -> Result<()> {
    let types = int();
    let size = u32::try_from(types.len()).unwrap_or(0);
    // SAFETY: `types` lives across the call, and the kernel reads at most `size` bytes of it. No options are passed.
    let fd = unsafe {
        sys::bpf_btf_load(types.as_ptr().cast::<c_void>(), size.into(), std::ptr::null_mut())
    };
    check_fd(fd).map(drop)
}

/// What describes it.
fn int() -> Vec<u8> {
    const MAGIC: u16 = 0xeb9f;
    const NAMES: &[u8] = b"\0int\0";
    // The header goes on with its size, where the types and the names begin behind it, and how long both are.
    let header = [24, 0, 16, 16, 5];
    // Where its name begins, its kind, its bytes, and that it is signed and has 32 bits.
    let int = [1, sys::BTF_KIND_INT << 24, 4, sys::BTF_INT_SIGNED << 24 | 32];
    let numbers = header.into_iter().chain(int).flat_map(u32::to_ne_bytes);
    let version_and_flags = [1, 0];
    MAGIC
        .to_ne_bytes()
        .into_iter()
        .chain(version_and_flags)
        .chain(numbers)
        .chain(NAMES.iter().copied())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_this_kernel_takes_the_types_that_are_tried() {
        assert_eq!(try_types(), Ok(()));
    }
}
