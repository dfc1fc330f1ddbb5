//! The historical throttle, rewritten from descriptions of its bookkeeping: legacy attachments, a list of them in memory, and
//! one function each to attach, change and remove. Its bugs can be switched on one at a time. Without any, sequences must
//! pass. With any, they must fail.

mod backend;
mod descriptors;

use std::fmt;

use backend::Backend;

use super::in_model::{Process, Program, Running};
use super::step::{How, Step};
use super::system::{Claim, Counted, Handle, Rates, Request};

/// What was wrong with it, at one time or another, and what is wrong with its like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bug {
    /// Detach is given no program: `attach_bpf_fd` is 0.
    NoProgram,
    /// An error of detach is read as "detached already".
    ErrorIsSuccess,
    /// Detach is given the flags that attach had.
    DetachFlags,
    /// On removal the cgroup is looked up again, through the process.
    LookUpAgain,
    /// A detach fails, and the attachment is forgotten all the same.
    ForgetOnError,
    /// All cgroups share one state.
    OneBucket,
    /// The number of a descriptor is kept after it was closed.
    StaleDescriptor,
    /// A change attaches once more.
    AttachOnChange,
    /// Only one direction is removed.
    OneDirection,
    /// Shutting down ends at the first error.
    ShutDownStops,
    /// An attachment is recorded only after it was made.
    RecordLate,
    /// Detach without a look at the list: where it is not MULTI, whatever is there goes.
    BlindDetach,
}

impl Bug {
    /// Each.
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

/// The historical throttle, with one of its bugs or none.
#[derive(Debug, Clone, Copy)]
pub struct Historical(pub Option<Bug>);

impl Historical {
    /// It knows legacy attachments only: whatever is asked for becomes one.
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

    /// Nobody looked at others' programs then.
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
