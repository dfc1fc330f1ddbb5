//! What can go wrong at the boundary, told so that a person can act on it.

mod call;
mod words;

use nix::errno::Errno;

pub use self::call::Call;
use crate::host::rights::{Capability, Rights};
use crate::sys;
use crate::sys::libbpf::take_log;

/// A call into the kernel that failed.
///
/// It keeps the call, what it was made on, and the errno; [`Error::kind`] says what that means.
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
    /// Of a load, which takes several calls: the one that failed, if it is not that of its name.
    step: Option<Call>,
}

/// The result of a call at the boundary.
pub type Result<T> = std::result::Result<T, Error>;

/// What a failure means for the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// This kernel does not have the call, the flag or the type.
    Unsupported,
    /// The right to do it is missing, or (attaching) the cgroup's programs do not allow another.
    Denied,
    /// What was named does not exist, or no longer.
    Vanished,
    /// All 64 places of the list are taken.
    Full,
    /// What was read changed before it could be acted on, or is still being made.
    Changed,
    /// Anything else.
    Other,
}

impl Error {
    /// `call` on `target` failed with `errno`.
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

    /// No call failed, but what was seen of `target` means the same to the caller as `errno` from `call`. Its text names
    /// neither.
    pub fn found(call: Call, target: impl Into<String>, errno: Errno) -> Self {
        Self { is_found: true, ..Self::new(call, target, errno) }
    }

    /// A call that was to tell only whether this kernel has it failed with `errno`, which tells nothing.
    pub fn of_probe(call: Call, errno: Errno) -> Self {
        Self { is_probe: true, ..Self::new(call, "this kernel", errno) }
    }

    /// The same from an error of the standard library. One without an errno (text that is no UTF-8) is as good as
    /// `EIO`.
    pub fn from_io(call: Call, target: impl Into<String>, error: &std::io::Error) -> Self {
        match error.raw_os_error() {
            Some(errno) => Self::new(call, target, Errno::from_raw(errno)),
            None => Self::found(call, target, Errno::EIO).with_detail(error.to_string()),
        }
    }

    /// The same from an error of libbpf. One without an errno (an object that it cannot read) is as good as `EIO`.
    pub fn from_libbpf(call: Call, target: impl Into<String>, error: &libbpf_rs::Error) -> Self {
        match errno_of(error) {
            // It has looked for the kernel's types, and has called nothing.
            Some(Errno::ESRCH) => Self::found(call, target, Errno::ESRCH),
            Some(errno) => Self::new(call, target, errno),
            None => Self::found(call, target, Errno::EIO).with_detail(error.to_string()),
        }
    }

    /// libbpf could not load an object. Takes what libbpf has said meanwhile.
    pub fn of_load(call: Call, target: impl Into<String>, error: &libbpf_rs::Error) -> Self {
        let log = format!("{error}\n{}", take_log());
        Self::from_libbpf(call, target, error).with_log(&log).with_step(sys::try_types)
    }

    /// Names the call of a load that failed, from what libbpf logged. `try_types` loads one type.
    ///
    /// Where the kernel refuses types, libbpf goes on without them, and a map that needs them is then invalid. So the load
    /// of the types failed, unless the kernel has no such call. A kernel that takes types has `bpf(2)`. If such a kernel
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

    /// The same with a sentence that says more.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// The same with what libbpf and the verifier said, which can be pages: it is not in the sentence.
    #[must_use]
    pub fn with_log(mut self, log: &str) -> Self {
        self.log = Some(log.trim_end().to_owned()).filter(|log| !log.is_empty());
        self
    }

    /// What libbpf and the verifier said.
    pub fn log(&self) -> Option<&str> {
        self.log.as_deref()
    }

    /// The call that failed, or the last of those that a load takes.
    pub fn call(&self) -> Call {
        self.call
    }

    /// Returns what is known beside the errno.
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// Tells whether the call was only to tell what this kernel has.
    pub fn is_probe(&self) -> bool {
        self.is_probe
    }

    /// What it was made on.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// What the kernel answered, or what that is as good as which was seen.
    pub fn errno(&self) -> Errno {
        self.errno
    }

    /// What that means.
    pub fn kind(&self) -> Kind {
        match (self.call, self.errno) {
            (_, Errno::EPERM | Errno::EACCES) => Kind::Denied,
            // libbpf does not find the iterator, or the types, or the kernel does not know the way to go.
            (_, Errno::ENOSYS | Errno::EOPNOTSUPP)
            | (Call::Iterate, Errno::ENOENT | Errno::EINVAL)
            | (Call::Iterate | Call::Load | Call::LoadTracing, Errno::ESRCH) => Kind::Unsupported,
            // What is open is there, whatever a call that describes it answers.
            (Call::Info, Errno::ENOENT | Errno::ENODEV | Errno::ENOLINK | Errno::ESRCH) => {
                Kind::Other
            }
            // ESTALE: as the kernel says of the handle of a file that is not there any more.
            (_, Errno::ENOENT | Errno::ENODEV | Errno::ENOLINK | Errno::ESRCH)
            | (Call::OpenById, Errno::ESTALE) => Kind::Vanished,
            (Call::Attach | Call::LinkCreate, Errno::E2BIG) => Kind::Full,
            // A link that is being made.
            (_, Errno::ESTALE) | (Call::FdById, Errno::EAGAIN) => Kind::Changed,
            _ => Kind::Other,
        }
    }

    /// Whether this kernel, or the sandbox around this process, has no `bpf(2)` at all.
    pub fn has_no_bpf(&self) -> bool {
        self.errno == Errno::ENOSYS && self.step.is_none() && self.call.name().starts_with("BPF_")
    }

    /// Tells whether what was named is gone.
    pub fn is_vanished(&self) -> bool {
        self.kind() == Kind::Vanished
    }

    /// Whether it says that what was named is no cgroup, or none any more.
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

    /// Whether it says that the cgroup2 hierarchy is not to be seen, so that nothing on it can be asked.
    pub fn is_no_hierarchy(&self) -> bool {
        self.call == Call::FindCgroup2
    }

    /// Whether the call was refused to a thread that lacks a right for it: then the answer says nothing of the kernel.
    /// False where the thread has the rights, so that a policy refused it. The verifier takes more from who has
    /// `CAP_PERFMON`.
    pub fn is_for_want_of_rights(&self) -> bool {
        self.is_for_want_of(Rights::of_this_thread().as_ref())
    }

    /// Whether it tells nothing of what this kernel has: somebody refused to let it answer (a right is missing, a policy,
    /// a sandbox), or memory ran out.
    pub fn is_no_answer(&self) -> bool {
        let is_refused = self.kind() == Kind::Denied && !self.is_refused_by_the_verifier();
        self.is_for_want_of_rights() || is_refused || self.is_step_refused() || self.is_for_now()
    }

    /// Other calls of `bpf(2)` came through, so the kernel has it, and something else has said `ENOSYS`.
    pub fn is_step_refused(&self) -> bool {
        self.step.is_some() && self.errno == Errno::ENOSYS
    }

    /// Memory or time ran out.
    fn is_for_now(&self) -> bool {
        matches!(self.errno, Errno::ENOMEM | Errno::EAGAIN | Errno::EINTR)
    }

    /// Whether the verifier has refused a program. That memory or time ran out while it looked is no verdict.
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
        // Where unprivileged users may not use bpf(2), any call of it needs CAP_BPF first.
        let needed = self.needed_capabilities().iter().chain(&[Capability::Bpf]);
        let lacks = |rights: &Rights| needed.clone().any(|&it| !rights.has(it));
        self.kind() == Kind::Denied && rights.is_none_or(lacks)
    }
}

/// The errno of a libbpf-rs error. It keeps the `std::io::Error` that it was made from to itself, and shows
/// it only in its text, as `(os error 12)`.
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
        // CAP_NET_ADMIN alone does not do where bpf(2) is for the privileged only.
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

    /// What libbpf says where it cannot make a map.
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
        // A kernel that knows no types, or takes them: the map's type is missing.
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
