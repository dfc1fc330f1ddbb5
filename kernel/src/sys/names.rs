//! Names of kernel types, as bpftool prints them.

use std::ffi::{CStr, c_char};

use libbpf_sys as sys;

/// Returns the name of a program type.
pub(crate) fn program_type_name(kind: u32) -> String {
    // SAFETY: no memory is passed, and what is returned is as `name` wants it.
    unsafe { name(sys::libbpf_bpf_prog_type_str(kind), kind) }
}

/// Returns the name of a link type.
pub(crate) fn link_type_name(kind: u32) -> String {
    // SAFETY: as above.
    unsafe { name(sys::libbpf_bpf_link_type_str(kind), kind) }
}

/// Returns the name of a map type.
pub(crate) fn map_type_name(kind: u32) -> String {
    // SAFETY: as above.
    unsafe { name(sys::libbpf_bpf_map_type_str(kind), kind) }
}

/// Returns a type's name, or its number if this libbpf does not know the type.
///
/// # Safety
/// `text` must be null or a C string that lives forever, as libbpf's own strings do.
unsafe fn name(text: *const c_char, kind: u32) -> String {
    if text.is_null() {
        return format!("type {kind}");
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_have_bpftools_names_and_new_ones_their_numbers() {
        assert_eq!(program_type_name(sys::BPF_PROG_TYPE_CGROUP_SKB), "cgroup_skb");
        assert_eq!(link_type_name(sys::BPF_LINK_TYPE_CGROUP), "cgroup");
        assert_eq!(map_type_name(sys::BPF_MAP_TYPE_HASH), "hash");
        assert_eq!(
            [program_type_name(9_999), link_type_name(9_999), map_type_name(9_999)],
            ["type 9999"; 3]
        );
    }
}
