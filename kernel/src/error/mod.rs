//! Errors of kernel calls, with enough data for a person to act on them.

mod call;
mod words;

use nix::errno::Errno;

pub use self::call::Call;
use crate::host::rights::{Capability, Rights};
use crate::sys;
use crate::sys::libbpf::take_log;

/// A failed call into the kernel.
///
/// The error keeps the call, its target and the errno. [`Error::kind`] interprets them for the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    call: Call,
    target: String,
    errno: Errno,
    detail: Option<String>,
    log: Option<String>,
    is_probe: bool,
    /// No call failed.
    is_found: bool,
    /// The call that failed inside a load, which makes several calls. `None` if it is the load itself.
    step: Option<Call>,
}

/// The result of a kernel call.
pub type Result<T> = std::result::Result<T, Error>;

/// The meaning of an error for the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The kernel does not have the call, the flag or the type.
    Unsupported,
    /// A capability is missing, or the cgroup's list accepts no other program.
    Denied,
    /// The target does not exist, or no longer exists.
    Vanished,
    /// The list has 64 programs, the kernel's limit.
    Full,
    /// The target has changed since it was read, or is still being created.
    Changed,
    /// Any other error.
    Other,
}

impl Error {
    /// Creates the error of `call` on `target` that failed with `errno`.
    pub fn new(call: Call, target: impl Into<String>, errno: Errno) -> Self {
        Self {
            call,
            target: target.into(),
            errno,
            detail: None,
            log: None,
            is_probe: false,
            is_found: false,
            step: None,
        }
    }

    /// Creates an error without a failed call. What was found at `target` means the same to the caller as `errno` from
    /// `call`. The error's text names neither.
    pub fn found(call: Call, target: impl Into<String>, errno: Errno) -> Self {
        Self { is_found: true, ..Self::new(call, target, errno) }
    }

    /// Creates the error of a probe that failed with `errno` and so gave no answer.
    pub fn of_probe(call: Call, errno: Errno) -> Self {
        Self { is_probe: true, ..Self::new(call, "this kernel", errno) }
    }

    /// Creates the error from an error of the standard library. Without an errno (text that is not UTF-8), uses `EIO`.
    pub fn from_io(call: Call, target: impl Into<String>, error: &std::io::Error) -> Self {
        match error.raw_os_error() {
            Some(errno) => Self::new(call, target, Errno::from_raw(errno)),
            None => Self::found(call, target, Errno::EIO).with_detail(error.to_string()),
        }
    }

    /// Creates the error from an error of libbpf. Without an errno (an unreadable object), uses `EIO`.
    pub fn from_libbpf(call: Call, target: impl Into<String>, error: &libbpf_rs::Error) -> Self {
        match errno_of(error) {
            // libbpf looked for the kernel's types, and made no call.
            Some(Errno::ESRCH) => Self::found(call, target, Errno::ESRCH),
            Some(errno) => Self::new(call, target, errno),
            None => Self::found(call, target, Errno::EIO).with_detail(error.to_string()),
        }
    }

    /// Creates the error of a failed load. Takes libbpf's log.
    pub fn of_load(call: Call, target: impl Into<String>, error: &libbpf_rs::Error) -> Self {
        let log = format!("{error}\n{}", take_log());
        Self::from_libbpf(call, target, error).with_log(&log).with_step(sys::try_types)
    }

    /// Names the call of a load that failed, from what libbpf logged. `try_types` loads one type.
    ///
    /// If a kernel refuses types, libbpf goes on without them, and a map that needs them then fails. So the refused types
    /// are the cause, unless the kernel has no types at all. A kernel that accepts types has `bpf(2)`. If such a kernel
    /// refuses programs, something else keeps it from taking them.
    #[must_use]
    pub fn with_step(mut self, try_types: impl FnOnce() -> std::result::Result<(), Errno>) -> Self {
        let is_map = |line: &str| line.contains("map '") && line.contains("': failed to create");
        if !self.log().is_some_and(|log| log.lines().any(is_map)) {
            let is_alone = self.errno == Errno::ENOSYS && try_types() != Err(Errno::ENOSYS);
            self.step = is_alone.then_some(self.call);
            return self;
        }
        self.step = Some(Call::MapCreate);
        if self.errno == Errno::EINVAL
            && let Err(errno) = try_types()
            && errno != Errno::EINVAL
        {
            self.step = Some(Call::BtfLoad);
            self.errno = errno;
        }
        self
    }

    /// Adds a sentence with more detail.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds the log of libbpf and the verifier. The log can be pages long, so it is not part of the sentence.
    #[must_use]
    pub fn with_log(mut self, log: &str) -> Self {
        self.log = Some(log.trim_end().to_owned()).filter(|log| !log.is_empty());
        self
    }

    /// Returns the log of libbpf and the verifier.
    pub fn log(&self) -> Option<&str> {
        self.log.as_deref()
    }

    /// Returns the failed call. For a load, returns the load, whichever step failed.
    pub fn call(&self) -> Call {
        self.call
    }

    /// Returns the detail.
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// Tells whether the call was a probe.
    pub fn is_probe(&self) -> bool {
        self.is_probe
    }

    /// Returns the call's target.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Returns the kernel's errno, or the equivalent of what was found.
    pub fn errno(&self) -> Errno {
        self.errno
    }

    /// Returns the meaning of the error for the caller.
    pub fn kind(&self) -> Kind {
        match (self.call, self.errno) {
            (_, Errno::EPERM | Errno::EACCES) => Kind::Denied,
            // libbpf finds no iterator or no types, or the kernel does not know the iterator's order.
            (_, Errno::ENOSYS | Errno::EOPNOTSUPP)
            | (Call::Iterate, Errno::ENOENT | Errno::EINVAL)
            | (Call::Iterate | Call::Load | Call::LoadTracing, Errno::ESRCH) => Kind::Unsupported,
            // An open object exists, whatever a query of its information answers.
            (Call::Info, Errno::ENOENT | Errno::ENODEV | Errno::ENOLINK | Errno::ESRCH) => {
                Kind::Other
            }
            // ESTALE: the handle's file does not exist any more.
            (_, Errno::ENOENT | Errno::ENODEV | Errno::ENOLINK | Errno::ESRCH)
            | (Call::OpenById, Errno::ESTALE) => Kind::Vanished,
            (Call::Attach | Call::LinkCreate, Errno::E2BIG) => Kind::Full,
            // ESTALE, and EAGAIN for an object that is still being created.
            (_, Errno::ESTALE) | (Call::FdById, Errno::EAGAIN) => Kind::Changed,
            _ => Kind::Other,
        }
    }

    /// Tells whether this kernel, or the sandbox around this process, lacks `bpf(2)`.
    pub fn has_no_bpf(&self) -> bool {
        self.errno == Errno::ENOSYS && self.step.is_none() && self.call.name().starts_with("BPF_")
    }

    /// Tells whether the target does not exist, or no longer exists.
    pub fn is_vanished(&self) -> bool {
        self.kind() == Kind::Vanished
    }

    /// Tells whether the target is not a cgroup, or no longer one.
    pub fn is_no_cgroup(&self) -> bool {
        self.call == Call::OpenCgroup
            && matches!(
                self.errno,
                Errno::ENOENT
                    | Errno::ENOTDIR
                    | Errno::ENODEV
                    | Errno::EINVAL
                    | Errno::ELOOP
                    | Errno::ENAMETOOLONG
                    | Errno::EXDEV
            )
    }

    /// Tells whether the cgroup2 hierarchy is not visible, so that nothing on it can be queried.
    pub fn is_no_hierarchy(&self) -> bool {
        self.call == Call::FindCgroup2
    }

    /// Tells whether the kernel refused because this thread lacks a capability. Such an error says nothing about the
    /// kernel.
    ///
    /// Returns false if the thread has the capabilities, because then a policy has refused. Counts a verifier's refusal
    /// without `CAP_PERFMON` too, because the verifier accepts more with it.
    pub fn is_for_want_of_rights(&self) -> bool {
        self.is_for_want_of(Rights::of_this_thread().as_ref())
    }

    /// Tells whether the error says nothing about what the kernel supports. That is so if a capability, a policy or a
    /// sandbox stopped the call, or if memory ran out.
    pub fn is_no_answer(&self) -> bool {
        let is_refused = self.kind() == Kind::Denied && !self.is_refused_by_the_verifier();
        self.is_for_want_of_rights() || is_refused || self.is_step_refused() || self.is_for_now()
    }

    /// Tells whether something other than the kernel answered `ENOSYS`. Other commands of `bpf(2)` succeeded, so the
    /// kernel has it.
    pub fn is_step_refused(&self) -> bool {
        self.step.is_some() && self.errno == Errno::ENOSYS
    }

    /// Tells whether memory or time ran out.
    fn is_for_now(&self) -> bool {
        matches!(self.errno, Errno::ENOMEM | Errno::EAGAIN | Errno::EINTR)
    }

    /// Tells whether the verifier has refused a program. Running out of memory or time is no refusal.
    pub fn is_refused_by_the_verifier(&self) -> bool {
        !self.is_for_now() && self.log().is_some_and(|log| log.contains("BEGIN PROG LOAD LOG"))
    }

    /// Returns the capabilities that the failed call needs.
    pub fn needed_capabilities(&self) -> &'static [Capability] {
        self.step.unwrap_or(self.call).capabilities(self.errno, self.is_probe)
    }

    fn is_for_want_of(&self, rights: Option<&Rights>) -> bool {
        if self.is_refused_by_the_verifier() {
            return rights.is_none_or(|rights| !rights.has(Capability::Perfmon));
        }
        // If unprivileged `bpf(2)` is off, every command needs CAP_BPF first.
        let needed = self.needed_capabilities().iter().chain(&[Capability::Bpf]);
        let lacks = |rights: &Rights| needed.clone().any(|&it| !rights.has(it));
        self.kind() == Kind::Denied && rights.is_none_or(lacks)
    }
}

/// Returns the errno of a libbpf-rs error. The error hides its `std::io::Error`, and shows the errno only in its text,
/// as `(os error 12)`.
fn errno_of(error: &(dyn std::error::Error + 'static)) -> Option<Errno> {
    std::iter::successors(Some(error), |error| error.source()).find_map(|error| {
        let text = error.to_string();
        let (_, number) = text.rsplit_once("(os error ")?;
        number.split(')').next()?.parse().ok().map(Errno::from_raw)
    })
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_to_one_who_lacks_a_right_says_nothing_of_the_kernel() {
        let (none, all) = (Rights::with(0), Rights::with(u64::MAX));
        let wants = |call, errno, rights: &Rights| {
            Error::new(call, "x", errno).is_for_want_of(Some(rights))
        };
        assert!(wants(Call::Load, Errno::EPERM, &none));
        assert!(wants(Call::Query, Errno::EPERM, &none));
        assert!(!wants(Call::Load, Errno::EPERM, &all), "a policy");
        assert!(wants(Call::Load, Errno::EACCES, &none) && !wants(Call::Load, Errno::EACCES, &all));
        let refused = Error::new(Call::Load, "x", Errno::EINVAL).with_log("-- BEGIN PROG LOAD LOG");
        assert!(refused.is_for_want_of(Some(&none)) && !refused.is_for_want_of(Some(&all)));
        assert!(!wants(Call::Load, Errno::EINVAL, &none));
        assert!(Error::new(Call::Query, "x", Errno::EPERM).is_for_want_of(None));
        // CAP_NET_ADMIN alone is not enough if unprivileged bpf(2) is off.
        assert!(wants(Call::Query, Errno::EPERM, &Rights::with(1 << 12)));
    }

    #[test]
    fn a_probe_that_was_refused_tells_nothing_whoever_refused_it() {
        assert!(Error::of_probe(Call::LinkCreate, Errno::EPERM).is_no_answer());
        assert!(!Error::of_probe(Call::LinkCreate, Errno::ENOSYS).is_no_answer());
    }

    #[test]
    fn a_load_that_was_refused_is_no_answer_and_the_verifiers_verdict_is_one() {
        let load = |errno| Error::new(Call::Load, "x", errno);
        assert!(load(Errno::EPERM).is_no_answer() && load(Errno::ENOMEM).is_no_answer());
        assert!(!load(Errno::EINVAL).is_no_answer() && !load(Errno::ENOSYS).is_no_answer());
        let failed_at_a_map = |errno| load(errno).with_log(MAP).with_step(|| Ok(()));
        assert!(failed_at_a_map(Errno::ENOSYS).is_no_answer());
        assert!(failed_at_a_map(Errno::EACCES).is_no_answer(), "the verifier saw nothing yet");
        assert!(!failed_at_a_map(Errno::EINVAL).is_no_answer());
    }

    /// libbpf's message when it cannot create a map.
    const MAP: &str = "libbpf: map 'members': failed to create: -EINVAL";

    #[test]
    fn the_call_of_a_load_is_named_that_failed() {
        let with = |errno, log, types| {
            let error = Error::new(Call::Load, "x", errno).with_log(log);
            error.with_step(|| types).to_string()
        };
        let said = with(Errno::EPERM, MAP, Ok(()));
        assert!(said.ends_with(" (BPF_MAP_CREATE: EPERM)"), "{said}");
        let said = with(Errno::EINVAL, MAP, Err(Errno::EPERM));
        assert!(said.ends_with(" (BPF_BTF_LOAD: EPERM)"), "{said}");
        // The kernel has no types, or accepts them. Then the map's type is missing.
        for types in [Ok(()), Err(Errno::EINVAL)] {
            let said = with(Errno::EINVAL, MAP, types);
            assert!(said.ends_with(" (BPF_MAP_CREATE: EINVAL)"), "{said}");
        }
        let said = with(Errno::EINVAL, "libbpf: prog 'x': failed to load", Err(Errno::EPERM));
        assert!(said.ends_with(" (BPF_PROG_LOAD: EINVAL)"), "{said}");
    }

    #[test]
    fn loading_a_program_that_traces_needs_a_right_more() {
        let without = Rights::with(!(1 << 38 | 1 << 21));
        let wants = |call| Error::new(call, "x", Errno::EPERM).is_for_want_of(Some(&without));
        assert!(wants(Call::LoadTracing) && !wants(Call::Load));
    }

    #[test]
    fn e2big_is_a_full_list_only_where_programs_are_attached() {
        assert_eq!(Error::new(Call::Attach, "x", Errno::E2BIG).kind(), Kind::Full);
        assert_eq!(Error::new(Call::LinkCreate, "x", Errno::E2BIG).kind(), Kind::Full);
        assert_eq!(Error::new(Call::Load, "x", Errno::E2BIG).kind(), Kind::Other);
    }

    #[test]
    fn a_link_that_is_being_made_is_changing_and_nothing_else_says_so() {
        assert_eq!(Error::new(Call::FdById, "link 7", Errno::EAGAIN).kind(), Kind::Changed);
        assert_eq!(Error::new(Call::Iterate, "x", Errno::EAGAIN).kind(), Kind::Other);
    }

    #[test]
    fn what_the_kernel_answered_means_something_to_the_caller() {
        for (errno, kind) in [
            (Errno::EACCES, Kind::Denied),
            (Errno::ENOENT, Kind::Vanished),
            (Errno::ENODEV, Kind::Vanished),
            (Errno::ENOLINK, Kind::Vanished),
            (Errno::ESRCH, Kind::Vanished),
            (Errno::ESTALE, Kind::Changed),
            (Errno::ENOSYS, Kind::Unsupported),
            (Errno::EOPNOTSUPP, Kind::Unsupported),
        ] {
            assert_eq!(Error::new(Call::Detach, "x", errno).kind(), kind, "{errno}");
        }
    }

    #[test]
    fn what_is_open_has_not_vanished_whatever_it_is_asked() {
        for errno in [Errno::ENOENT, Errno::ENODEV, Errno::ENOLINK, Errno::ESRCH] {
            assert_eq!(Error::new(Call::Info, "link 7", errno).kind(), Kind::Other, "{errno}");
            assert_eq!(Error::new(Call::FdById, "link 7", errno).kind(), Kind::Vanished, "{errno}");
        }
    }

    #[test]
    fn the_errno_of_a_libbpf_error_is_found_below_its_contexts() {
        use libbpf_rs::ErrorExt;
        let error = libbpf_rs::Error::from_raw_os_error(12).context("outer").context("outermost");
        assert_eq!(errno_of(&error), Some(Errno::ENOMEM));
        assert_eq!(errno_of(&std::fmt::Error), None);
    }

    #[test]
    fn einval_from_a_detach_is_never_taken_for_already_gone() {
        // The first bug of the history.
        assert_eq!(Error::new(Call::Detach, "x", Errno::EINVAL).kind(), Kind::Other);
    }
}
