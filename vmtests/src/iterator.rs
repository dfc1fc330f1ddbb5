//! Whether the kernel that runs has the iterator over cgroups.

/// The context of its programs, as the kernel's type information names it.
const TYPE: &[u8] = b"\0bpf_iter__cgroup\0";

/// Mainline has had it since 6.1. The version does not tell: distributions carry it to older kernels, and no kernel has it
/// without type information. An audit that is told to use it has to say where it is missing.
///
/// # Panics
/// When the type information is there and cannot be read.
pub fn has_cgroup_iterator() -> bool {
    match std::fs::read("/sys/kernel/btf/vmlinux") {
        Ok(types) => types.windows(TYPE.len()).any(|it| it == TYPE),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(error) => panic!("/sys/kernel/btf/vmlinux: {error}"),
    }
}
