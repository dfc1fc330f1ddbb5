//! The protocol between the trial and an agent: one JSON value a line.

use serde::{Deserialize, Serialize};

use crate::sequences::step::Fault;
use crate::sequences::system::{Claim, Counted, Handle, Rates, Request, counters_by_type};

/// What an agent is asked to do, and what is to go wrong.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Asked {
    pub(super) what: What,
    pub(super) fault: Option<Fault>,
}

/// One operation.
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

/// What an agent answers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Answer {
    pub(super) said: Said,
    /// The fault came to pass.
    pub(super) struck: bool,
    /// How many files it has open.
    pub(super) open_files: usize,
}

/// How it ended.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Said {
    Done,
    Failed(String),
    Claims(Vec<Claim>),
    Removed(#[serde(with = "counters_by_type")] Counted),
}
