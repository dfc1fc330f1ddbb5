//! The capabilities of this thread, so that advice fits the user. "Run as root" does not help root.

use std::fs;
use std::path::Path;

/// A capability (capabilities(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // Each is named as the kernel names it.
pub enum Capability {
    DacOverride,
    DacReadSearch,
    NetAdmin,
    SysPtrace,
    SysAdmin,
    Bpf,
    Perfmon,
    /// `CAP_DAC_READ_SEARCH`, for opening by id. `CAP_DAC_OVERRIDE` cannot replace it there.
    OpenById,
}

impl Capability {
    /// Returns the capability's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::DacOverride => "CAP_DAC_OVERRIDE",
            Self::DacReadSearch | Self::OpenById => "CAP_DAC_READ_SEARCH",
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::SysPtrace => "CAP_SYS_PTRACE",
            Self::SysAdmin => "CAP_SYS_ADMIN",
            Self::Bpf => "CAP_BPF",
            Self::Perfmon => "CAP_PERFMON",
        }
    }

    /// Returns the capabilities that include this one, as bits (`linux/capability.h`).
    fn bits(self) -> u64 {
        let bit = |number: u32| 1_u64 << number;
        match self {
            Self::DacOverride => bit(1),
            Self::DacReadSearch => bit(2) | bit(1),
            Self::NetAdmin => bit(12),
            Self::SysPtrace => bit(19),
            Self::SysAdmin => bit(21),
            Self::Bpf => bit(39) | bit(21),
            Self::Perfmon => bit(38) | bit(21),
            Self::OpenById => bit(2),
        }
    }
}

/// The credentials of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rights {
    effective: u64,
    is_root: bool,
    /// The thread is not in the host's user namespace, so its capabilities do not count outside its own.
    is_elsewhere: bool,
    /// A seccomp filter restricts the thread's system calls.
    is_filtered: bool,
}

/// The kernel's `PROC_USER_INIT_INO`.
const INITIAL_USER_NAMESPACE: &str = "user:[4026531837]";

impl Rights {
    /// Returns this thread's credentials; `None` if `/proc` does not have them.
    pub fn of_this_thread() -> Option<Self> {
        let status = fs::read_to_string("/proc/thread-self/status").ok()?;
        // A kernel without user namespaces has no such file.
        let is_elsewhere = fs::read_link("/proc/thread-self/ns/user")
            .is_ok_and(|it| it != Path::new(INITIAL_USER_NAMESPACE));
        Self::parse(&status, is_elsewhere)
    }

    /// Parses a `/proc/PID/status` file (proc(5)).
    pub fn parse(status: &str, is_elsewhere: bool) -> Option<Self> {
        let field = |name| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let effective = u64::from_str_radix(field("CapEff:")?, 16).ok()?;
        // The line has the real, effective, saved and file system uid.
        let is_root = field("Uid:")?.split_ascii_whitespace().nth(1)? == "0";
        // 2 is `SECCOMP_MODE_FILTER`. A kernel without seccomp has no such line.
        let is_filtered = field("Seccomp:") == Some("2");
        Some(Self { effective, is_root, is_elsewhere, is_filtered })
    }

    /// Returns the credentials of a thread with these capabilities, as bits, that is not root.
    #[cfg(test)]
    pub(crate) fn with(effective: u64) -> Self {
        Self { effective, is_root: false, is_elsewhere: false, is_filtered: false }
    }

    /// Tells whether the thread's effective uid is 0 in its user namespace.
    pub fn is_root(&self) -> bool {
        self.is_root
    }

    /// Tells whether the thread is in another user namespace than the host's, where no capability counts.
    pub fn is_elsewhere(&self) -> bool {
        self.is_elsewhere
    }

    /// Tells whether a seccomp filter restricts the thread's system calls.
    pub fn is_filtered(&self) -> bool {
        self.is_filtered
    }

    /// Tells whether the thread has a capability that counts on this host.
    pub fn has(&self, capability: Capability) -> bool {
        !self.is_elsewhere && self.effective & capability.bits() != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &str = "000001ffffffffff";

    fn rights(uid: u32, effective: &str, is_elsewhere: bool) -> Rights {
        let status = format!("Name:\tx\nUid:\t7\t{uid}\t7\t7\nCapPrm:\tff\nCapEff:\t{effective}\n");
        Rights::parse(&status, is_elsewhere).unwrap()
    }

    #[test]
    fn capabilities_are_read_as_hexadecimal_digits() {
        let some = rights(7, "00000000000a0000", false);
        assert!(some.has(Capability::SysPtrace));
        assert!(!some.has(Capability::SysAdmin));
        assert_eq!(Rights::parse("Name:\tx\n", false), None);
    }

    #[test]
    fn who_may_do_more_may_do_less() {
        let admin = rights(7, "0000000000200002", false);
        assert!(admin.has(Capability::Bpf) && admin.has(Capability::DacReadSearch));
        assert!(!rights(7, "0000000000000004", false).has(Capability::DacOverride));
    }

    #[test]
    fn in_another_user_namespace_no_capability_counts() {
        assert!(!rights(0, ALL, true).has(Capability::SysPtrace));
    }

    #[test]
    fn a_seccomp_filter_is_seen() {
        let of = |mode: u8| {
            let status = format!("Uid:\t0\t0\t0\t0\nCapEff:\t0\nSeccomp:\t{mode}\n");
            Rights::parse(&status, false).unwrap().is_filtered
        };
        assert_eq!([0, 1, 2].map(of), [false, false, true]);
    }
}
