//! The protocol between the trial and an agent: one JSON value a line.

use serde::{Deserialize, Serialize};

use crate::sequences::step::Fault;
use crate::sequences::system::{Claim, Counted, Handle, Rates, Request, counters_by_type};

/// A request to an agent, with an optional fault.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Asked {
    pub(super) what: What,
    pub(super) fault: Option<Fault>,
}

/// An operation.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum What {
    Start,
    Add(Request),
    Change { handle: Handle, rates: Rates },
    Remove(Handle),
    Claims,
    ShutDown,
    RemoveRecorded(String),
}

/// An agent's answer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Answer {
    pub(super) said: Said,
    /// Whether the fault struck.
    pub(super) struck: bool,
    /// The number of the agent's open files.
    pub(super) open_files: usize,
}

/// How the operation ended.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Said {
    Done,
    Failed(String),
    Claims(Vec<Claim>),
    Removed(#[serde(with = "counters_by_type")] Counted),
}
