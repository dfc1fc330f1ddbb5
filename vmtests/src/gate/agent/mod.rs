//! The engine on the running kernel: each owner is a process of its own, which can really be killed.
//!
//! The process is the binary `engine-agent`. It reads a [`Question`] a line on standard input and writes an
//! [`Answer`] a line on standard output; where a fault says that it dies, it kills itself with SIGKILL.

mod serve;
mod system;

use serde::{Deserialize, Serialize};

pub use serve::serve;
pub use system::Agents;

use super::step::Fault;
use super::system::{Claim, Handle, Rates, Request};

/// What the process is asked to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Question {
    /// Start the engine.
    Start,
    /// Add a throttle.
    Add(Request),
    /// Change one.
    Change(Handle, Rates),
    /// Remove one.
    Remove(Handle),
    /// Say what there is.
    Claims,
    /// Remove everything.
    ShutDown,
    /// Remove a recorded one by its name; without an engine.
    RemoveRecorded(String),
}

/// A question, and what goes wrong with it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Asked {
    /// What to do.
    pub question: Question,
    /// What goes wrong.
    pub fault: Option<Fault>,
}

/// What came of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Answer {
    /// Why it failed.
    pub failed: Option<String>,
    /// The fault came to pass.
    pub struck: bool,
    /// The throttles, if they were asked for.
    pub claims: Vec<Claim>,
    /// How many more files are open than right after the start.
    pub open_files: usize,
}
