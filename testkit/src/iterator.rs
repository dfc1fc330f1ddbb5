//! Detects whether the running kernel has the iterator over cgroups.

/// The context of its programs, as the kernel's type information names it.
const TYPE: &[u8] = b"\0bpf_iter__cgroup\0";

/// Returns whether the kernel's type information has the iterator. Mainline has had it since 6.1, but distributions
/// also backport it, and no kernel has it without type information. So the version does not decide.
///
/// # Panics
/// Panics if the type information exists and cannot be read.
pub fn has_cgroup_iterator() -> bool {
    match std::fs::read("/sys/kernel/btf/vmlinux") {
        Ok(types) => types.windows(TYPE.len()).any(|it| it == TYPE),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(error) => panic!("/sys/kernel/btf/vmlinux: {error}"),
    }
}
