//! The kernel release.

/// Returns the first two numbers of a kernel release, as `uname -r` prints it. `None` if the release does not begin
/// with them.
///
/// ```
/// assert_eq!(cgroup_bpf::release::version("6.12.117-amd64"), Some((6, 12)));
/// ```
pub fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|char: char| !char.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Returns the numbers of the running kernel; `None` if it does not report them.
pub fn running() -> Option<(u32, u32)> {
    version(&nix::sys::utsname::uname().ok()?.release().to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_two_numbers_whatever_stands_behind_them() {
        assert_eq!(version("5.14.21"), Some((5, 14)));
        assert_eq!(version("6.18-rc1"), Some((6, 18)));
        for other in ["", "6", "6.", "6.x", "6.-1", "unknown", ".12", "-6.12"] {
            assert_eq!(version(other), None, "{other}");
        }
        assert!(running().is_some());
    }
}
