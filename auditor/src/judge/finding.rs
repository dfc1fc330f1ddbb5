//! Defines the vocabulary of a judgement: the finding for each thing, and the verdict for the host.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What an attachment or a program was found to be.
///
/// The order is that of the judgement: from `orphaned_attachment` down, the first that applies
/// names a leak.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// Ours, and its owner lives and means it.
    Active,
    /// Ours, kept beyond its owner on purpose, and recorded so.
    Pinned,
    /// Ours, and meant: its cgroup was removed, and it is recorded as waiting for another one at that path.
    Waiting,
    /// Not ours.
    Foreign,
    /// Asked for by its name, but nothing says whose it is: no owner in its metadata, no record, no name of ours.
    Unowned,
    /// Ours, but what it rests on could not be seen, so nobody can judge it. There is a gap about it.
    Unknown,
    /// Attached, and no process, pin or ledger entry stands for it.
    OrphanedAttachment,
    /// More of ours on one cgroup and attach type than its owner means to have.
    StackedDuplicate,
    /// The owner lives, but has removed that throttle.
    DisarmedAttachment,
    /// A pin of ours whose purpose is gone.
    OrphanedPin,
    /// A link that was detached, or whose cgroup died, and that still holds its program.
    DefunctLink,
    /// Loaded, attached nowhere, held only by a pin or by a process that has no throttle.
    UnattachedProgram,
    /// It exists in the kernel, but nothing that keeps it there can be seen.
    UnreachableProgram,
    /// A queue's network device whose owner is dead.
    OrphanedDevice,
}

impl Finding {
    /// Every finding, in the order of the rules.
    pub const ALL: [Self; 14] = [
        Self::Active,
        Self::Pinned,
        Self::Waiting,
        Self::Foreign,
        Self::Unowned,
        Self::Unknown,
        Self::OrphanedAttachment,
        Self::StackedDuplicate,
        Self::DisarmedAttachment,
        Self::OrphanedPin,
        Self::DefunctLink,
        Self::UnattachedProgram,
        Self::UnreachableProgram,
        Self::OrphanedDevice,
    ];

    /// Returns the finding's name, as reports and the command line use it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Pinned => "pinned",
            Self::Waiting => "waiting",
            Self::Foreign => "foreign",
            Self::Unowned => "unowned",
            Self::Unknown => "unknown",
            Self::OrphanedAttachment => "orphaned_attachment",
            Self::StackedDuplicate => "stacked_duplicate",
            Self::DisarmedAttachment => "disarmed_attachment",
            Self::OrphanedPin => "orphaned_pin",
            Self::DefunctLink => "defunct_link",
            Self::UnattachedProgram => "unattached_program",
            Self::UnreachableProgram => "unreachable_program",
            Self::OrphanedDevice => "orphaned_device",
        }
    }

    /// Tells whether the finding is a leak.
    pub fn is_leak(self) -> bool {
        self >= Self::OrphanedAttachment
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The error for a name that no finding has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no finding; there are {list}", list = Finding::ALL.map(Finding::name).join(", "))]
pub struct UnknownFinding(String);

impl FromStr for Finding {
    type Err = UnknownFinding;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|finding| finding.name() == name)
            .ok_or_else(|| UnknownFinding(name.to_owned()))
    }
}

/// What a whole audit says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything in scope was seen, and nothing of it is leaked.
    Clean,
    /// At least one leak; there may be gaps as well.
    Leaks,
    /// No leak was seen, but not everything could be.
    Incomplete,
}

impl Verdict {
    /// Returns the verdict for that many leaks and gaps.
    pub(crate) fn of(leaks: usize, gaps: usize) -> Self {
        match (leaks, gaps) {
            (0, 0) => Self::Clean,
            (0, _) => Self::Incomplete,
            _ => Self::Leaks,
        }
    }

    /// Returns the verdict's name, as reports use it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Leaks => "leaks",
            Self::Incomplete => "incomplete",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
