//! What this thread may do, so that advice fits who asks: "run as root" helps nobody who is root already.

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
    /// `CAP_DAC_READ_SEARCH` where `CAP_DAC_OVERRIDE` does not do in its place: for opening by id.
    OpenById,
}

impl Capability {
    /// Its name.
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

    /// The capabilities that give what this one gives, as bits (`linux/capability.h`).
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

/// Who a thread is to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rights {
    effective: u64,
    is_root: bool,
    /// In another user namespace than the host's: capabilities are worth nothing outside of it.
    is_elsewhere: bool,
}

/// `PROC_USER_INIT_INO` of the kernel.
const INITIAL_USER_NAMESPACE: &str = "user:[4026531837]";

impl Rights {
    /// Those of this thread; none where `/proc` does not tell.
    pub fn of_this_thread() -> Option<Self> {
        let status = fs::read_to_string("/proc/thread-self/status").ok()?;
        // A kernel without user namespaces has no such file.
        let is_elsewhere = fs::read_link("/proc/thread-self/ns/user")
            .is_ok_and(|it| it != Path::new(INITIAL_USER_NAMESPACE));
        Self::parse(&status, is_elsewhere)
    }

    /// From a `/proc/PID/status` file (proc(5)).
    fn parse(status: &str, is_elsewhere: bool) -> Option<Self> {
        let field = |name| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let effective = u64::from_str_radix(field("CapEff:")?, 16).ok()?;
        // The real, the effective, the saved one, and that for files.
        let is_root = field("Uid:")?.split_ascii_whitespace().nth(1)? == "0";
        Some(Self { effective, is_root, is_elsewhere })
    }

    /// Whether it has a capability that counts on this host.
    pub fn has(&self, capability: Capability) -> bool {
        !self.is_elsewhere && self.effective & capability.bits() != 0
    }
}

/// What to do about a call that was refused and needs these capabilities.
pub(crate) fn advice(needed: &[Capability], rights: Option<&Rights>) -> String {
    let names: Vec<_> = needed.iter().map(|it| it.name()).collect();
    let names = names.join(" and ");
    let Some(rights) = rights else { return format!("needs {names}: run as root") };
    if rights.is_elsewhere {
        format!(
            "needs {names}: run as root on the host, because root of a user namespace is not the host's"
        )
    } else if needed.iter().all(|&it| rights.has(it)) {
        format!(
            "{names} would do, and this thread has it: a security policy hides or forbids it (an LSM, seccomp, a sandbox)"
        )
    } else if rights.is_root {
        format!(
            "needs {names}: run as root with all its capabilities, because this one has been stripped of some"
        )
    } else {
        format!("needs {names}: run as root")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PTRACE: &[Capability] = &[Capability::SysPtrace];

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
        assert!(!rights(0, "000001ffffffffff", true).has(Capability::SysPtrace));
    }

    #[test]
    fn advice_fits_who_asks() {
        let said = |rights: &Rights| advice(PTRACE, Some(rights));
        assert_eq!(said(&rights(7, "0", false)), "needs CAP_SYS_PTRACE: run as root");
        assert_eq!(advice(PTRACE, None), "needs CAP_SYS_PTRACE: run as root");
        let all = "000001ffffffffff";
        assert!(said(&rights(0, "200000", false)).contains("with all its capabilities"));
        assert!(said(&rights(0, all, true)).contains("on the host"));
        let policy = said(&rights(0, all, false));
        assert!(
            policy.contains("a security policy") && !policy.contains("run as root"),
            "{policy}"
        );
    }
}
