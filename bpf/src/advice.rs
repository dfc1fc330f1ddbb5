//! Advice in words: why a kernel call failed on this host, or what to do about it.
//!
//! [`kernel::Error`] says what happened. What to do depends on this product and on the user, so this module has the
//! advice.

use std::fmt;

use kernel::error::{Call, Kind};
use kernel::rights::{Capability, Rights};
use kernel::{Error, probe, release};
use nix::errno::Errno;

/// Explains that a cgroup's list accepts no other program.
const NO_OTHER: &str = "a program on this cgroup or above it was attached so that no other may join it \
                        ('bpftool cgroup tree' shows them)";

const NEEDS_5_12: &str = "the packet programs need Linux 5.12 or newer";
const NEEDS_6_1: &str =
    "this needs Linux 6.1 or newer with type information (CONFIG_DEBUG_INFO_BTF)";

/// The running kernel's properties that matter for advice.
#[derive(Clone, Copy)]
struct Kernel {
    version: Option<(u32, u32)>,
    tells_types: bool,
}

impl Kernel {
    fn running() -> Self {
        Self { version: release::running(), tells_types: probe::tells_types() }
    }

    /// Names the required version if this kernel is too old for the call. If the version is unknown, gives no such
    /// advice.
    fn is_too_old_for(self, call: Call) -> Option<&'static str> {
        let (since, words) = match call {
            Call::Load => ((5, 12), NEEDS_5_12),
            Call::Iterate | Call::LoadTracing => ((6, 1), NEEDS_6_1),
            _ => return None,
        };
        self.version.filter(|version| *version < since).map(|_| words)
    }
}

/// Says why a call failed or what to do about it, if anything helpful is known. For a missing capability, the advice
/// fits this thread.
pub fn hint(error: &Error) -> Option<String> {
    let matters = error.kind() == Kind::Denied || error.is_refused_by_the_verifier();
    let rights = if matters { Rights::of_this_thread() } else { None };
    hint_for(error, rights.as_ref(), Kernel::running())
}

fn hint_for(error: &Error, rights: Option<&Rights>, kernel: Kernel) -> Option<String> {
    if error.is_refused_by_the_verifier() {
        let because = match Refusal::of(&[Capability::Perfmon], rights) {
            Refusal::Missing(perfmon) => perfmon,
            Refusal::Policy(_) => {
                kernel.is_too_old_for(error.call()).unwrap_or("-v tells why").to_owned()
            }
        };
        return Some(format!("the kernel's verifier refused it; {because}"));
    }
    if error.kind() == Kind::Denied {
        return Some(match (refusal(error, rights), error.call()) {
            // The capabilities are there. For these calls the kernel also answers `EPERM` if a list accepts no other
            // program.
            (Refusal::Policy(policy), Call::Attach | Call::LinkCreate) if !error.is_probe() => {
                format!("{NO_OTHER}, or {policy}")
            }
            (refusal, _) => refusal.to_string(),
        });
    }
    if error.is_step_refused() {
        return Some(
            "a sandbox or a policy refuses this call of bpf() alone (gVisor, seccomp)".to_owned(),
        );
    }
    if error.has_no_bpf() {
        return Some("this kernel or sandbox has no bpf() (gVisor, seccomp)".to_owned());
    }
    if error.errno() == Errno::ENOSYS && error.call() == Call::PerfEvent {
        return Some(
            "this kernel or sandbox has no perf_event_open() (gVisor, seccomp)".to_owned(),
        );
    }
    let hint = match (error.kind(), error.call()) {
        // An error with a detail has already said more than this hint.
        (Kind::Vanished, Call::OpenCgroup) if error.detail().is_none() => {
            "give its directory, or its path below the cgroup2 mount"
        }
        (Kind::Full, _) => {
            "all 64 places are taken ('chadthrottle-audit scan --all' shows by whom)"
        }
        (Kind::Changed, _) => "somebody attached or detached a program meanwhile, so try again",
        (Kind::Other | Kind::Unsupported, Call::Load | Call::LoadTracing | Call::Iterate) => {
            return lacking(error, kernel).map(str::to_owned);
        }
        (Kind::Vanished, Call::ObjPin) => "pins need a bpffs (mount -t bpf bpf /sys/fs/bpf)",
        (_, Call::ObjGet | Call::ObjPin | Call::Unpin) if error.errno() == Errno::EROFS => {
            "this bpffs is mounted read-only (mount -o remount,rw makes it writable)"
        }
        _ => return None,
    };
    Some(hint.to_owned())
}

/// Says what the kernel lacks to load a program, if the error has no detail.
fn lacking(error: &Error, kernel: Kernel) -> Option<&'static str> {
    match (error.call(), error.errno()) {
        _ if error.detail().is_some() => None,
        (call, _) if kernel.is_too_old_for(call).is_some() => kernel.is_too_old_for(call),
        (_, Errno::ESRCH) if !kernel.tells_types => Some(
            "this kernel does not tell its types (/sys/kernel/btf/vmlinux, CONFIG_DEBUG_INFO_BTF)",
        ),
        (Call::Load, Errno::EINVAL) => Some("was this kernel built without CONFIG_CGROUP_BPF?"),
        _ => None,
    }
}

fn refusal(error: &Error, rights: Option<&Rights>) -> Refusal {
    Refusal::of(error.needed_capabilities(), rights)
}

/// Puts an error into words: what happened, why, what to do, and then the call with its errno.
///
/// Reads `/proc` to check for missing capabilities.
pub fn explained(error: &Error) -> String {
    format!("{}: {}", error.sentence(), why(error))
}

/// Puts into words only the reason, the advice, and the call with its errno. For a text that already says what failed.
pub fn why(error: &Error) -> String {
    let reason = match (error.detail(), hint(error)) {
        (None, None) => error.errno().desc().to_owned(),
        (None, Some(hint)) => hint,
        (Some(detail), None) => detail.to_owned(),
        (Some(detail), Some(hint)) => format!("{detail}; {hint}"),
    };
    match error.failed_call() {
        Some(call) => format!("{reason} ({call})"),
        None => reason,
    }
}

/// The reason why the kernel refused a call that needs capabilities.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Refusal {
    /// Capabilities are missing. The text says what to do.
    Missing(String),
    /// No capability is missing. The text says what else may have refused.
    Policy(String),
}

impl Refusal {
    /// Finds the reason why this thread was refused. If the thread's capabilities are unknown, names all needed ones.
    fn of(needed: &[Capability], rights: Option<&Rights>) -> Self {
        let Some(rights) = rights else {
            return Self::Missing(format!("must run as root ({} needed)", are(needed)));
        };
        let missing: Vec<_> = needed.iter().copied().filter(|&it| !rights.has(it)).collect();
        if missing.is_empty() {
            return Self::Policy(if rights.is_filtered() {
                "the seccomp filter of this process, or another security policy, forbids it"
                    .to_owned()
            } else {
                "a security policy forbids or hides it (an LSM, seccomp, a sandbox)".to_owned()
            });
        }
        let missing = format!("{} missing", are(&missing));
        Self::Missing(if rights.is_elsewhere() {
            format!(
                "must run as root on the host ({missing}: root of a user namespace is not the host's)"
            )
        } else if rights.is_root() {
            format!("{missing}, although this is root: a container or a service has dropped it")
        } else {
            format!("must run as root ({missing})")
        })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(why) | Self::Policy(why) => f.write_str(why),
        }
    }
}

/// Joins capabilities with a verb, each named once: `CAP_BPF is`, `CAP_BPF and CAP_NET_ADMIN are`.
fn are(capabilities: &[Capability]) -> String {
    let mut names: Vec<_> = capabilities.iter().map(|it| it.name()).collect();
    names.dedup();
    match names.split_last() {
        None => String::new(),
        Some((last, [])) => format!("{last} is"),
        Some((last, others)) => format!("{} and {last} are", others.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The status of a thread with every capability of the host.
    const ROOT: &str = "Uid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\n";
    const MODERN: Kernel = kernel(Some((6, 18)));

    const fn kernel(version: Option<(u32, u32)>) -> Kernel {
        Kernel { version, tells_types: true }
    }

    const PTRACE: &[Capability] = &[Capability::SysPtrace];
    const BOTH: &[Capability] = &[Capability::Bpf, Capability::NetAdmin];
    const ALL: &str = "000001ffffffffff";

    fn rights(uid: u32, effective: &str, is_elsewhere: bool) -> Rights {
        let status = format!("Name:\tx\nUid:\t7\t{uid}\t7\t7\nCapPrm:\tff\nCapEff:\t{effective}\n");
        Rights::parse(&status, is_elsewhere).unwrap()
    }

    /// The status of root without any capability, as in a container.
    const BARE: &str = "Uid:\t0\t0\t0\t0\nCapEff:\t0\n";

    fn hint(call: Call, errno: Errno, status: &str) -> String {
        let rights = Rights::parse(status, false).unwrap();
        hint_for(&Error::new(call, "x", errno), Some(&rights), MODERN).unwrap_or_default()
    }

    #[test]
    fn an_error_says_what_failed_why_and_last_the_call() {
        let full = Error::new(Call::LinkCreate, "/x (cgroup_inet_egress)", Errno::E2BIG);
        let text = explained(&full);
        assert!(
            text.starts_with("cannot attach to /x (cgroup_inet_egress): all 64 places"),
            "{text}"
        );
        assert!(text.ends_with(" (BPF_LINK_CREATE: E2BIG)"), "{text}");
        let none = explained(&Error::new(Call::ObjPin, "/x", Errno::ENOSPC));
        assert_eq!(none, "cannot make the pin /x: No space left on device (BPF_OBJ_PIN: ENOSPC)");
        let gone = explained(&Error::new(Call::OpenCgroup, "/x", Errno::ENOENT));
        assert!(gone.starts_with("no such cgroup: /x: give its directory"), "{gone}");
        let told = Error::new(Call::OpenCgroup, "/x", Errno::ENOENT).with_detail("it was removed");
        assert_eq!(explained(&told), "no such cgroup: /x: it was removed (open: ENOENT)");
    }

    #[test]
    fn a_call_is_named_only_where_one_failed() {
        let found = Error::found(Call::OpenCgroup, "/x", Errno::EINVAL).with_detail("it is a file");
        assert_eq!(explained(&found), "no such cgroup: /x: it is a file");
        assert_eq!(found.kind(), Error::new(Call::OpenCgroup, "/x", Errno::EINVAL).kind());
        let text = std::io::Error::new(std::io::ErrorKind::InvalidData, "no UTF-8");
        let text = explained(&Error::from_io(Call::ReadProc, "/x", &text));
        assert_eq!(text, "cannot read /x: no UTF-8");
    }

    #[test]
    fn another_kernel_is_asked_for_only_where_this_one_is_too_old() {
        let old = kernel(Some((5, 10)));
        for errno in [Errno::ENOMEM, Errno::EINVAL, Errno::EMFILE, Errno::E2BIG] {
            let said = |kernel| hint_for(&Error::new(Call::Load, "x", errno), None, kernel);
            assert_eq!(said(old).unwrap(), NEEDS_5_12, "{errno}");
            for kernel in [kernel(Some((5, 12))), MODERN, kernel(None)] {
                assert!(!said(kernel).unwrap_or_default().contains("Linux"), "{errno}");
            }
        }
        for errno in [Errno::ESRCH, Errno::ENOENT, Errno::EINVAL] {
            let said = |kernel| hint_for(&Error::new(Call::Iterate, "x", errno), None, kernel);
            assert_eq!(said(kernel(Some((5, 15)))).unwrap(), NEEDS_6_1, "{errno}");
            assert_eq!(said(MODERN), None, "{errno}");
        }
        let told = Error::new(Call::Load, "x", Errno::EINVAL).with_detail("why");
        assert_eq!(hint_for(&told, None, old), None, "once is enough");
        let untyped = Kernel { tells_types: false, ..MODERN };
        for call in [Call::Load, Call::Iterate] {
            let said = hint_for(&Error::new(call, "x", Errno::ESRCH), None, untyped).unwrap();
            assert!(said.starts_with("this kernel does not tell its types"), "{said}");
        }
    }

    #[test]
    fn where_the_verifier_refuses_the_missing_capability_is_named_and_nothing_else() {
        let said = |errno, status, kernel| {
            let error = Error::new(Call::Load, "x", errno).with_log("-- BEGIN PROG LOAD LOG --");
            let rights = Rights::parse(status, false);
            hint_for(&error, rights.as_ref(), kernel).unwrap_or_default()
        };
        for errno in [Errno::EFAULT, Errno::EACCES, Errno::EINVAL, Errno::E2BIG, Errno::EPERM] {
            let bare = said(errno, BARE, MODERN);
            assert!(bare.contains("verifier refused it; CAP_PERFMON is missing, "), "{bare}");
            assert!(!bare.contains("CAP_BPF") && !bare.contains("Linux"), "{bare}");
            let root = said(errno, ROOT, MODERN);
            assert_eq!(root, "the kernel's verifier refused it; -v tells why");
            assert!(said(errno, ROOT, kernel(Some((5, 10)))).ends_with(NEEDS_5_12));
        }
        assert_eq!(said(Errno::ENOMEM, BARE, MODERN), "", "memory ran out meanwhile");
    }

    #[test]
    fn a_list_that_takes_no_other_is_blamed_only_where_it_can_have_refused() {
        for call in [Call::Attach, Call::LinkCreate] {
            let told = hint(call, Errno::EPERM, ROOT);
            assert!(told.contains("no other may join it") && told.contains("policy"), "{told}");
            let told = hint(call, Errno::EPERM, BARE);
            assert!(!told.contains("join") && told.contains("CAP_NET_ADMIN"), "{told}");
        }
        for call in [Call::DeviceLink, Call::Load, Call::Query, Call::NextId, Call::Detach] {
            let told = hint(call, Errno::EPERM, ROOT);
            assert!(!told.contains("join") && told.contains("policy"), "{call:?}: {told}");
        }
        let probe = Error::of_probe(Call::LinkCreate, Errno::EPERM);
        let told =
            |status| hint_for(&probe, Rights::parse(status, false).as_ref(), MODERN).unwrap();
        assert!(!told(ROOT).contains("join") && told(ROOT).contains("policy"), "{}", told(ROOT));
        assert!(told(BARE).starts_with("CAP_BPF is missing, "), "{}", told(BARE));
        assert!(explained(&probe).starts_with("cannot find out what this kernel can do: "));
    }

    #[test]
    fn a_right_that_only_tracing_needs_is_named_where_it_is_missing() {
        // All capabilities except CAP_PERFMON and CAP_SYS_ADMIN.
        let status = "Uid:\t0\t0\t0\t0\nCapEff:\t000001bfffdfffff\n";
        let told = hint(Call::LoadTracing, Errno::EPERM, status);
        assert!(told.starts_with("CAP_PERFMON is missing, "), "{told}");
        let told = hint(Call::Load, Errno::EPERM, status);
        assert!(told.contains("policy") && !told.contains("CAP_PERFMON"), "{told}");
    }

    #[test]
    fn who_has_every_right_is_not_told_to_run_as_root() {
        for call in [Call::Attach, Call::Load, Call::Query, Call::NextId, Call::ReadProc] {
            let told = hint(call, Errno::EPERM, ROOT);
            assert!(!told.contains("run as root"), "{call:?}: {told}");
        }
    }

    #[test]
    fn a_kernel_or_a_sandbox_without_bpf_is_told_of() {
        for call in [Call::LinkCreate, Call::Query, Call::Load, Call::NextId] {
            let told = hint(call, Errno::ENOSYS, ROOT);
            assert_eq!(told, "this kernel or sandbox has no bpf() (gVisor, seccomp)", "{call:?}");
        }
        assert_eq!(hint(Call::SetNs, Errno::ENOSYS, ROOT), "", "that is another call");
    }

    #[test]
    fn what_can_be_done_about_it_is_said() {
        for (call, errno, advice) in [
            (Call::ReadProc, Errno::EACCES, "CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH"),
            (Call::ObjGet, Errno::EACCES, "CAP_DAC_OVERRIDE"),
            (Call::ObjGet, Errno::EPERM, "CAP_BPF"),
            (Call::Unpin, Errno::EROFS, "remount,rw"),
            (Call::LinkCreate, Errno::E2BIG, "all 64 places are taken"),
            (Call::Detach, Errno::ESTALE, "try again"),
            (Call::Load, Errno::EINVAL, "CONFIG_CGROUP_BPF"),
            (Call::ObjPin, Errno::ENOENT, "mount -t bpf"),
        ] {
            let hint = hint_for(&Error::new(call, "x", errno), None, MODERN).unwrap_or_default();
            assert!(hint.contains(advice), "{call:?}: {hint}");
        }
        assert_eq!(super::hint(&Error::new(Call::Detach, "x", Errno::EINVAL)), None);
    }

    #[test]
    fn advice_fits_who_asks() {
        let said = |rights: &Rights| Refusal::of(PTRACE, Some(rights)).to_string();
        assert_eq!(said(&rights(7, "0", false)), "must run as root (CAP_SYS_PTRACE is missing)");
        let unknown = Refusal::of(PTRACE, None).to_string();
        assert_eq!(unknown, "must run as root (CAP_SYS_PTRACE is needed)");
        let bare = said(&rights(0, "200000", false));
        assert!(bare.starts_with("CAP_SYS_PTRACE is missing, although this is root: "), "{bare}");
        assert!(said(&rights(0, ALL, true)).contains("on the host"));
    }

    #[test]
    fn who_has_every_right_is_told_of_a_policy_instead() {
        let policy = Refusal::of(BOTH, Some(&rights(0, ALL, false)));
        let said = policy.to_string();
        assert!(matches!(policy, Refusal::Policy(_)), "{said}");
        assert!(said.contains("a security policy") && !said.contains("root"), "{said}");
        let status = format!("Uid:\t0\t0\t0\t0\nCapEff:\t{ALL}\nSeccomp:\t2\n");
        let filtered = Rights::parse(&status, false).unwrap();
        let said = Refusal::of(BOTH, Some(&filtered)).to_string();
        assert!(said.contains("the seccomp filter of this process"), "{said}");
    }

    #[test]
    fn only_what_is_missing_is_named_and_that_once() {
        let said =
            |needed, effective| Refusal::of(needed, Some(&rights(7, effective, false))).to_string();
        let both = "must run as root (CAP_BPF and CAP_NET_ADMIN are missing)";
        assert_eq!(said(BOTH, "0"), both);
        // The thread has CAP_BPF.
        assert_eq!(said(BOTH, "8000000000"), "must run as root (CAP_NET_ADMIN is missing)");
        let twice: &[Capability] = &[Capability::DacReadSearch, Capability::OpenById];
        assert_eq!(said(twice, "0"), "must run as root (CAP_DAC_READ_SEARCH is missing)");
    }

    /// libbpf's message when it cannot create a map.
    const MAP: &str = "libbpf: map 'chad_members': failed to create: -EINVAL";

    #[test]
    fn advice_on_a_load_goes_by_the_call_that_failed() {
        let with = |errno, log, types| {
            let error = Error::new(Call::Load, "x", errno).with_log(log);
            explained(&error.with_step(|| types))
        };
        let said = with(Errno::EPERM, MAP, Ok(()));
        assert!(said.ends_with(" (BPF_MAP_CREATE: EPERM)"), "{said}");
        let said = with(Errno::EINVAL, MAP, Err(Errno::EPERM));
        assert!(said.ends_with(" (BPF_BTF_LOAD: EPERM)") && !said.contains("CONFIG"), "{said}");
        // The kernel has no types, or accepts them. Then the map's type is missing.
        for types in [Ok(()), Err(Errno::EINVAL)] {
            let said = with(Errno::EINVAL, MAP, types);
            assert!(said.ends_with("CONFIG_CGROUP_BPF? (BPF_MAP_CREATE: EINVAL)"), "{said}");
        }
        let said = with(Errno::EINVAL, "libbpf: prog 'x': failed to load", Err(Errno::EPERM));
        assert!(said.ends_with(" (BPF_PROG_LOAD: EINVAL)"), "{said}");
        let said = with(Errno::EINVAL, MAP, Err(Errno::ENOSYS));
        assert!(said.contains("refuses this call of bpf() alone"), "{said}");
    }
}
