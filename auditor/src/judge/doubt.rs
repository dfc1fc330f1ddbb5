//! Says which missing fact prevents a judgement.

use super::facts::Facts;
use super::reason::owner;
use super::standing::Standing;
use crate::facts::Subject;

/// The fact that is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    /// Whether the named owner is running.
    Owner,
    /// What other processes hold. Nothing names the owner, so any of these processes may be the owner.
    Holders,
    /// What programs record about themselves: their owner, and whether they are armed.
    Programs,
    /// What the ledger records as meant to stay.
    Ledger,
    /// Pins that may keep a link on purpose.
    Pins,
    /// Which attachments belong to links.
    Links,
}

impl Doubt {
    /// Returns the doubt that prevents any judgement of attachments and programs, if there is one.
    pub(super) fn of_everything(facts: &Facts<'_>) -> Option<Self> {
        facts.has_gap(Subject::Links).then_some(Self::Links)
    }

    /// Returns the kind of fact that is missing.
    pub(super) fn about(self) -> Subject {
        match self {
            Self::Owner | Self::Holders => Subject::Processes,
            Self::Programs => Subject::Programs,
            Self::Ledger => Subject::Ledger,
            Self::Pins => Subject::Pins,
            Self::Links => Subject::Links,
        }
    }

    /// Describes the doubt as the end of a sentence.
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

    /// Describes what the user can do about the doubt.
    pub(super) fn help(self) -> &'static str {
        match self {
            Self::Owner => "; run the audit on the host, as root",
            Self::Holders => "; run the audit as root, outside of any pid namespace",
            Self::Programs | Self::Ledger | Self::Pins | Self::Links => "",
        }
    }
}
