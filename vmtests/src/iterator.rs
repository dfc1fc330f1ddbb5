//! Whether the kernel that runs has the iterator over cgroups.

/// How its type information names what such a program is called with.
const TYPE: &[u8] = b"\0bpf_iter__cgroup\0";

/// Mainline has it since 6.1. Others have it in older kernels, and a kernel without type information cannot have it, so
/// that its version does not tell: its types do. Where it is missing an audit that is to use it has to say so.
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
