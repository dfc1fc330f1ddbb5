//! Rewrites the historical throttle from descriptions of its bookkeeping. It has legacy attachments, a list of them in
//! memory, and one function each to attach, change and remove.
//!
//! Its bugs can be switched on one at a time. Sequences must pass without a bug and must fail with any.

mod backend;
mod descriptors;

use std::fmt;

use backend::Backend;

use super::in_model::{Process, Program, Running};
use super::step::{How, Step};
use super::system::{Claim, Counted, Handle, Rates, Request};

/// A bug that the historical throttle had at some time, or that similar programs have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bug {
    /// Detach names no program: `attach_bpf_fd` is 0.
    NoProgram,
    /// The throttle treats any error of detach as "detached already".
    ErrorIsSuccess,
    /// Detach passes the flags of attach.
    DetachFlags,
    /// Removal looks the cgroup up again, through the process.
    LookUpAgain,
    /// The throttle forgets an attachment although detach failed.
    ForgetOnError,
    /// All cgroups share one state.
    OneBucket,
    /// The throttle keeps a descriptor's number after closing the descriptor.
    StaleDescriptor,
    /// A change of the rate attaches once more.
    AttachOnChange,
    /// Removal covers only one direction.
    OneDirection,
    /// Shutdown stops at the first error.
    ShutDownStops,
    /// The throttle records an attachment only after making it.
    RecordLate,
    /// Detach does not look at the list first. A list that is not MULTI loses whatever program it has.
    BlindDetach,
}

impl Bug {
    /// All bugs.
    pub const ALL: [Self; 12] = [
        Self::NoProgram,
        Self::ErrorIsSuccess,
        Self::DetachFlags,
        Self::LookUpAgain,
        Self::ForgetOnError,
        Self::OneBucket,
        Self::StaleDescriptor,
        Self::AttachOnChange,
        Self::OneDirection,
        Self::ShutDownStops,
        Self::RecordLate,
        Self::BlindDetach,
    ];
}

impl fmt::Display for Bug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::NoProgram => "detach with fd 0",
            Self::ErrorIsSuccess => "error read as success",
            Self::DetachFlags => "detach with BPF_F_ALLOW_MULTI",
            Self::LookUpAgain => "cgroup looked up again by PID",
            Self::ForgetOnError => "record dropped after a failed detach",
            Self::OneBucket => "one bucket for all cgroups",
            Self::StaleDescriptor => "raw fd kept after close",
            Self::AttachOnChange => "attach again on change",
            Self::OneDirection => "only one direction removed",
            Self::ShutDownStops => "shutdown stops at the first error",
            Self::RecordLate => "crash between attach and record",
            Self::BlindDetach => "detach in NONE mode takes others' program",
        })
    }
}

/// The historical throttle, with at most one of its bugs.
#[derive(Debug, Clone, Copy)]
pub struct Historical(pub Option<Bug>);

impl Historical {
    /// Converts every requested attachment to a legacy one, because the historical throttle knows no other.
    pub fn steps(steps: &[Step]) -> Vec<Step> {
        let legacy = |step: &Step| match *step {
            Step::Add { owner, target, ways, fault, .. } => {
                Step::Add { owner, target, ways, how: How::Legacy, fault }
            }
            step => step,
        };
        steps.iter().map(legacy).collect()
    }
}

impl Program for Historical {
    type Running = Backend;

    fn offers(&self, step: &Step) -> bool {
        !matches!(step, Step::Add { how: How::Link | How::Pinned, .. })
    }

    fn start(&self, at: &Process) -> Result<Backend, String> {
        Backend::start(at, self.0)
    }

    fn remove_recorded(&self, _at: &Process, name: &str) -> Result<(), String> {
        Err(format!("there is no pinned throttle {name}"))
    }

    fn has_ledger(&self) -> bool {
        false
    }

    fn shapes_tcp(&self) -> bool {
        false
    }

    fn reports_counters(&self) -> bool {
        false
    }

    /// Returns false, because the historical throttle did not look at other people's programs.
    fn refuses_to_displace(&self) -> bool {
        false
    }
}

impl Running for Backend {
    fn add(&mut self, request: &Request) -> Result<(), String> {
        Backend::add(self, request)
    }

    fn change(&mut self, handle: Handle, rates: &Rates) -> Result<(), String> {
        Backend::change(self, handle, rates)
    }

    fn remove(&mut self, handle: Handle) -> Result<Counted, String> {
        Backend::remove(self, handle).map(|()| Counted::new())
    }

    fn claims(&self) -> Vec<Claim> {
        Backend::claims(self)
    }

    fn shut_down(&mut self) -> Result<(), String> {
        Backend::shut_down(self)
    }
}
