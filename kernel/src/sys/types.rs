//! Probes whether type information can be loaded.

use std::ffi::c_void;

use libbpf_sys as sys;

use super::{Result, check_fd};

/// Loads the type information of `int` with `BPF_BTF_LOAD` (4.18), and drops it at once. A kernel that refuses this
/// refuses all types.
pub(crate) fn try_types() -> Result<()> {
    let types = int();
    let size = u32::try_from(types.len()).unwrap_or(0);
    // SAFETY: `types` lives across the call, and the kernel reads at most `size` bytes of it. No options are passed.
    let fd = unsafe {
        sys::bpf_btf_load(types.as_ptr().cast::<c_void>(), size.into(), std::ptr::null_mut())
    };
    check_fd(fd).map(drop)
}

/// Returns the BTF of `int`.
fn int() -> Vec<u8> {
    const MAGIC: u16 = 0xeb9f;
    const NAMES: &[u8] = b"\0int\0";
    // The rest of the header: its size, the offset and length of the types, and those of the names.
    let header = [24, 0, 16, 16, 5];
    // The offset of the name, the kind, the size in bytes, and the encoding: signed, 32 bits.
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
