//! An error in words: what happened, why or what to do, and last the call and its errno.

use std::fmt;

use nix::errno::Errno;

use super::{Call, Error, Kind};
use crate::probe::tells_types;
use crate::release;
use crate::rights::{Capability, Refusal, Rights};

/// What to do where a cgroup's list of programs takes no other one.
const NO_OTHER: &str = "a program on this cgroup or above it was attached so that no other may join it \
                        ('bpftool cgroup tree' shows them)";

const NEEDS_5_12: &str = "the packet programs need Linux 5.12 or newer";
const NEEDS_6_1: &str =
    "this needs Linux 6.1 or newer with type information (CONFIG_DEBUG_INFO_BTF)";

/// The kernel that runs, as far as it matters to what is said.
#[derive(Clone, Copy)]
pub(super) struct Kernel {
    version: Option<(u32, u32)>,
    tells_types: bool,
}

impl Kernel {
    fn running() -> Self {
        Self { version: release::running(), tells_types: tells_types() }
    }

    /// Which one is needed, if this is too old for the call. Where it does not tell its version, nobody is sent for another.
    fn is_too_old_for(self, call: Call) -> Option<&'static str> {
        let (since, words) = match call {
            Call::Load => ((5, 12), NEEDS_5_12),
            Call::Iterate | Call::LoadTracing => ((6, 1), NEEDS_6_1),
            _ => return None,
        };
        self.version.filter(|version| *version < since).map(|_| words)
    }
}

impl Error {
    /// Why it happened, or what to do about it, where there is something to say. Of a missing right it says what
    /// fits this thread.
    pub fn hint(&self) -> Option<String> {
        let matters = self.kind() == Kind::Denied || self.is_refused_by_the_verifier();
        let rights = if matters { Rights::of_this_thread() } else { None };
        self.hint_for(rights.as_ref(), Kernel::running())
    }

    pub(super) fn hint_for(&self, rights: Option<&Rights>, kernel: Kernel) -> Option<String> {
        if self.is_refused_by_the_verifier() {
            let because = match Refusal::of(&[Capability::Perfmon], rights) {
                Refusal::Missing(perfmon) => perfmon,
                Refusal::Policy(_) => {
                    kernel.is_too_old_for(self.call).unwrap_or("-v tells why").to_owned()
                }
            };
            return Some(format!("the kernel's verifier refused it; {because}"));
        }
        if self.kind() == Kind::Denied {
            return Some(match (self.refusal(rights), self.call) {
                // The rights are there. On this call the kernel says the same where a list takes no other program.
                (Refusal::Policy(policy), Call::Attach | Call::LinkCreate) if !self.is_probe => {
                    format!("{NO_OTHER}, or {policy}")
                }
                (refusal, _) => refusal.to_string(),
            });
        }
        if self.is_step_refused() {
            return Some(
                "a sandbox or a policy refuses this call of bpf() alone (gVisor, seccomp)"
                    .to_owned(),
            );
        }
        if self.has_no_bpf() {
            return Some("this kernel or sandbox has no bpf() (gVisor, seccomp)".to_owned());
        }
        if self.errno == Errno::ENOSYS && self.call == Call::PerfEvent {
            return Some(
                "this kernel or sandbox has no perf_event_open() (gVisor, seccomp)".to_owned(),
            );
        }
        let hint = match (self.kind(), self.call) {
            // What says more has said it.
            (Kind::Vanished, Call::OpenCgroup) if self.detail.is_none() => {
                "give its directory, or its path below the cgroup2 mount"
            }
            (Kind::Full, _) => {
                "all 64 places are taken ('chadthrottle-audit scan --all' shows by whom)"
            }
            (Kind::Changed, _) => "somebody attached or detached a program meanwhile, so try again",
            (Kind::Other | Kind::Unsupported, Call::Load | Call::LoadTracing | Call::Iterate) => {
                return self.lacking(kernel).map(str::to_owned);
            }
            (Kind::Vanished, Call::ObjPin) => "pins need a bpffs (mount -t bpf bpf /sys/fs/bpf)",
            (_, Call::ObjGet | Call::ObjPin | Call::Unpin) if self.errno == Errno::EROFS => {
                "this bpffs is mounted read-only (mount -o remount,rw makes it writable)"
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }

    /// What the kernel lacks that a program could not be loaded, if nothing else has been said.
    fn lacking(&self, kernel: Kernel) -> Option<&'static str> {
        match (self.call, self.errno) {
            _ if self.detail.is_some() => None,
            (call, _) if kernel.is_too_old_for(call).is_some() => kernel.is_too_old_for(call),
            (_, Errno::ESRCH) if !kernel.tells_types => Some(
                "this kernel does not tell its types (/sys/kernel/btf/vmlinux, CONFIG_DEBUG_INFO_BTF)",
            ),
            (Call::Load, Errno::EINVAL) => Some("was this kernel built without CONFIG_CGROUP_BPF?"),
            _ => None,
        }
    }

    fn refusal(&self, rights: Option<&Rights>) -> Refusal {
        Refusal::of(self.needed(), rights)
    }

    /// Whether this kernel, or the sandbox around this process, has no `bpf(2)` at all.
    pub fn has_no_bpf(&self) -> bool {
        self.errno == Errno::ENOSYS && self.step.is_none() && self.call.name().starts_with("BPF_")
    }

    /// What happened, in a sentence without its reason.
    fn sentence(&self) -> String {
        let target = &self.target;
        if self.is_probe {
            return format!("cannot find out what {target} can do");
        }
        match self.call {
            Call::Attach | Call::LinkCreate | Call::DeviceLink => {
                format!("cannot attach to {target}")
            }
            Call::Detach => format!("cannot detach from {target}"),
            Call::LinkDetach => format!("cannot detach {target}"),
            Call::LinkUpdate => format!("cannot replace the program of {target}"),
            Call::Query => format!("cannot see what is attached to {target}"),
            Call::ObjPin => format!("cannot make the pin {target}"),
            Call::ObjGet | Call::FdById => format!("cannot open {target}"),
            Call::Unpin => format!("cannot remove {target}"),
            Call::NextId => format!("cannot list the {target}"),
            Call::Info => format!("cannot get the details of {target}"),
            Call::MapLookup | Call::ReadProc => format!("cannot read {target}"),
            Call::MapUpdate => format!("cannot write to {target}"),
            Call::Load | Call::LoadTracing => format!("cannot load {target}"),
            Call::BtfLoad => format!("cannot load the types of {target}"),
            Call::BtfFdById => format!("cannot read the types of {target}"),
            Call::EnableStats => format!("cannot measure {target}"),
            Call::OpenCgroup if self.is_no_cgroup() => format!("no such cgroup: {target}"),
            Call::OpenCgroup => format!("cannot open the cgroup {target}"),
            Call::FindCgroup2 => format!("cannot find {target}"),
            Call::OpenById => format!("cannot open {target} by its id"),
            Call::Iterate => format!("cannot use {target}"),
            Call::Netlink => format!("cannot read or change {target}"),
            Call::SetNs => format!("cannot enter {target}"),
            Call::Unshare | Call::MapCreate => format!("cannot make {target}"),
            Call::PerfEvent => format!("cannot follow {target}"),
        }
    }

    /// Why it failed, for who has said already what did: the reason, and last the call and its errno, where one failed.
    pub fn why(&self) -> String {
        if self.is_found {
            self.reason()
        } else {
            let call = self.step.unwrap_or(self.call);
            format!("{} ({}: {:?})", self.reason(), call.name(), self.errno)
        }
    }

    /// Why, in words: what is known, then what to do; if neither is there, what the errno says.
    fn reason(&self) -> String {
        match (&self.detail, self.hint()) {
            (None, None) => self.errno.desc().to_owned(),
            (None, Some(hint)) => hint,
            (Some(detail), None) => detail.clone(),
            (Some(detail), Some(hint)) => format!("{detail}; {hint}"),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.sentence(), self.why())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who has every capability of the host.
    const ROOT: &str = "Uid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\n";
    const MODERN: Kernel = kernel(Some((6, 18)));

    const fn kernel(version: Option<(u32, u32)>) -> Kernel {
        Kernel { version, tells_types: true }
    }

    /// Root without any, as in a container.
    const BARE: &str = "Uid:\t0\t0\t0\t0\nCapEff:\t0\n";

    fn hint(call: Call, errno: Errno, status: &str) -> String {
        let rights = Rights::parse(status, false).unwrap();
        Error::new(call, "x", errno).hint_for(Some(&rights), MODERN).unwrap_or_default()
    }

    #[test]
    fn an_error_says_what_failed_why_and_last_the_call() {
        let full = Error::new(Call::LinkCreate, "/x (cgroup_inet_egress)", Errno::E2BIG);
        let text = full.to_string();
        assert!(
            text.starts_with("cannot attach to /x (cgroup_inet_egress): all 64 places"),
            "{text}"
        );
        assert!(text.ends_with(" (BPF_LINK_CREATE: E2BIG)"), "{text}");
        let none = Error::new(Call::ObjPin, "/x", Errno::ENOSPC).to_string();
        assert_eq!(none, "cannot make the pin /x: No space left on device (BPF_OBJ_PIN: ENOSPC)");
        let gone = Error::new(Call::OpenCgroup, "/x", Errno::ENOENT).to_string();
        assert!(gone.starts_with("no such cgroup: /x: give its directory"), "{gone}");
        let told = Error::new(Call::OpenCgroup, "/x", Errno::ENOENT).with_detail("it was removed");
        assert_eq!(told.to_string(), "no such cgroup: /x: it was removed (open: ENOENT)");
    }

    #[test]
    fn a_call_is_named_only_where_one_failed() {
        let found = Error::found(Call::OpenCgroup, "/x", Errno::EINVAL).with_detail("it is a file");
        assert_eq!(found.to_string(), "no such cgroup: /x: it is a file");
        assert_eq!(found.kind(), Error::new(Call::OpenCgroup, "/x", Errno::EINVAL).kind());
        let text = std::io::Error::new(std::io::ErrorKind::InvalidData, "no UTF-8");
        let text = Error::from_io(Call::ReadProc, "/x", &text).to_string();
        assert_eq!(text, "cannot read /x: no UTF-8");
    }

    #[test]
    fn another_kernel_is_asked_for_only_where_this_one_is_too_old() {
        let old = kernel(Some((5, 10)));
        for errno in [Errno::ENOMEM, Errno::EINVAL, Errno::EMFILE, Errno::E2BIG] {
            let said = |kernel| Error::new(Call::Load, "x", errno).hint_for(None, kernel);
            assert_eq!(said(old).unwrap(), NEEDS_5_12, "{errno}");
            for kernel in [kernel(Some((5, 12))), MODERN, kernel(None)] {
                assert!(!said(kernel).unwrap_or_default().contains("Linux"), "{errno}");
            }
        }
        for errno in [Errno::ESRCH, Errno::ENOENT, Errno::EINVAL] {
            let said = |kernel| Error::new(Call::Iterate, "x", errno).hint_for(None, kernel);
            assert_eq!(said(kernel(Some((5, 15)))).unwrap(), NEEDS_6_1, "{errno}");
            assert_eq!(said(MODERN), None, "{errno}");
        }
        let told = Error::new(Call::Load, "x", Errno::EINVAL).with_detail("why");
        assert_eq!(told.hint_for(None, old), None, "once is enough");
        let untyped = Kernel { tells_types: false, ..MODERN };
        for call in [Call::Load, Call::Iterate] {
            let said = Error::new(call, "x", Errno::ESRCH).hint_for(None, untyped).unwrap();
            assert!(said.starts_with("this kernel does not tell its types"), "{said}");
        }
    }

    #[test]
    fn where_the_verifier_refuses_the_missing_capability_is_named_and_nothing_else() {
        let said = |errno, status, kernel| {
            let error = Error::new(Call::Load, "x", errno).with_log("-- BEGIN PROG LOAD LOG --");
            let rights = Rights::parse(status, false);
            error.hint_for(rights.as_ref(), kernel).unwrap_or_default()
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
    fn what_libbpf_said_is_there_and_not_in_the_sentence() {
        let error = Error::new(Call::Load, "the programs", Errno::ENOMEM).with_log("R1\nR2\n\n");
        assert_eq!(error.log(), Some("R1\nR2"));
        assert!(!error.to_string().contains("R1"), "{error}");
        assert_eq!(error.with_log("\n").log(), None);
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
        let told = |status| probe.hint_for(Rights::parse(status, false).as_ref(), MODERN).unwrap();
        assert!(!told(ROOT).contains("join") && told(ROOT).contains("policy"), "{}", told(ROOT));
        assert!(told(BARE).starts_with("CAP_BPF is missing, "), "{}", told(BARE));
        assert!(probe.to_string().starts_with("cannot find out what this kernel can do: "));
    }

    #[test]
    fn a_right_that_only_tracing_needs_is_named_where_it_is_missing() {
        // All but CAP_PERFMON and CAP_SYS_ADMIN.
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
            let hint = Error::new(call, "x", errno).hint_for(None, MODERN).unwrap_or_default();
            assert!(hint.contains(advice), "{call:?}: {hint}");
        }
        assert_eq!(Error::new(Call::Detach, "x", Errno::EINVAL).hint(), None);
    }
}
