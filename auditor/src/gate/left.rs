//! Describes one new thing after a command.

use super::evidence::Evidence;
use super::makers::{Holder, LoadedBy};
use crate::compare::Item;

/// One new thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// The thing.
    pub item: Item,
    /// The processes that hold the thing, or something that keeps it.
    pub holders: Vec<Holder>,
    /// The process that loaded its program, if known.
    pub loader: Option<LoadedBy>,
    /// Who may have made the thing and what keeps it, in a sentence.
    pub reason: String,
    /// The confirmed evidence that the thing is somebody else's.
    pub evidence: Option<Evidence>,
    /// The evidence from a single look.
    pub seems: Option<Evidence>,
    /// Whether an attachment or a pin keeps the thing without any process.
    pub is_kept: bool,
    /// Whether the thing may be the command's despite the evidence.
    pub is_open: bool,
}
