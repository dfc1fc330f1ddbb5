//! Why something is not judged: a fact that the judgement rests on could not be seen.

use super::facts::Facts;
use super::reason::owner;
use super::standing::Standing;
use crate::snapshot::Subject;

/// What is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    /// Whether the owner that is named lives.
    Owner,
    /// What other processes hold: nothing names the owner, so any of them may be it.
    Holders,
    /// What programs say of themselves: who their owner is, and whether they are armed.
    Programs,
    /// What is recorded as meant to stay.
    Ledger,
    /// Pins that may keep a link, and with it the record that means them.
    Pins,
    /// Which attachments are links'.
    Links,
}

impl Doubt {
    /// What nothing attached, and nothing loaded, can be judged without.
    pub(super) fn of_everything(facts: &Facts<'_>) -> Option<Self> {
        facts.has_gap(Subject::Links).then_some(Self::Links)
    }

    /// The kind of fact that is missing.
    pub(super) fn about(self) -> Subject {
        match self {
            Self::Owner | Self::Holders => Subject::Processes,
            Self::Programs => Subject::Programs,
            Self::Ledger => Subject::Ledger,
            Self::Pins => Subject::Pins,
            Self::Links => Subject::Links,
        }
    }

    /// The doubt, as the end of a sentence.
    pub(super) fn what(self, standing: &Standing<'_>) -> String {
        match self {
            Self::Owner => {
                format!("whether {} lives cannot be told from here", owner(standing))
            }
            Self::Holders => "not to be judged: it names no owner, and not every process that may \
                              hold it could be looked at"
                .to_owned(),
            Self::Programs => {
                "not to be judged: not everything that programs say of themselves could be read"
                    .to_owned()
            }
            Self::Ledger => {
                "not to be judged: the ledger cannot be read, and may have it as meant \
                             to stay"
                    .to_owned()
            }
            Self::Pins => {
                "not to be judged: not every pin could be read, and one may keep it".to_owned()
            }
            Self::Links => "not to be judged: the links cannot be listed, so whether one attaches \
                            or keeps it is unknown"
                .to_owned(),
        }
    }

    /// What to do about it.
    pub(super) fn help(self) -> &'static str {
        match self {
            Self::Owner => "; run the audit on the host, as root",
            Self::Holders => "; run the audit as root, outside of any pid namespace",
            Self::Programs | Self::Ledger | Self::Pins | Self::Links => "",
        }
    }
}
