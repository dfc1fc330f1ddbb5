//! Defines the report of `gate`.

use std::fmt;

use auditor::compare::Item;
use auditor::facts::Tool;
use auditor::facts::{Host, Note};
use auditor::gate::{self, Evidence, Holder, LoadedBy};
use auditor::judge::Verdict;
use nix::sys::signal::Signal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{exit, remedy};

/// What a command left behind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct GateReport {
    /// The version of this shape: 1.
    pub(crate) schema_version: u32,
    /// The program that looked.
    pub(crate) tool: Tool,
    /// Where.
    pub(crate) host: Host,
    /// When the last look was taken, in RFC 3339, UTC.
    pub(crate) taken_at: String,
    /// How long the whole took.
    pub(crate) duration_ms: f64,
    /// The command.
    pub(crate) command: CommandInfo,
    /// The globs that name what was looked at.
    pub(crate) programs: Vec<String>,
    /// How long it was waited for what goes away by itself.
    pub(crate) settled_ms: f64,
    /// What it comes to: `leaks` where something was left.
    pub(crate) verdict: Verdict,
    /// What the command left.
    pub(crate) left: Vec<Left>,
    /// What others have made meanwhile, which does not count.
    pub(crate) others: Vec<Left>,
    /// What is there no more, though the command had not made it, and which no process held; nor does that count.
    pub(crate) gone: Vec<Item>,
    /// What is there no more because the processes that held it let go of it; nor does that count.
    #[serde(default)]
    pub(crate) gone_of_others: Vec<Item>,
    /// Processes that the command has started and that still run: what they make later is not looked at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) still_running: Vec<Holder>,
    /// What could not be seen.
    pub(crate) gaps: Vec<Note>,
}

/// A command that was to be run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct CommandInfo {
    /// It and its arguments. Bytes that are not UTF-8 are replaced.
    pub(crate) argv: Vec<String>,
    /// How it ended; null where it was not run, because the gate could not see.
    pub(crate) ended: Option<Ended>,
    /// Why it could not be run, though the gate could see; `ended` then has the status that shells have for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) not_run: Option<String>,
    /// How long it ran.
    pub(crate) duration_ms: f64,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ended {
    /// By itself, with this exit status.
    Exited(i32),
    /// By this signal.
    Killed(i32),
}

impl Ended {
    /// Returns the exit status that a shell derives from it.
    pub(crate) fn exit_status(self) -> u8 {
        let status = match self {
            Self::Exited(status) => status,
            Self::Killed(signal) => 128 + signal,
        };
        // The kernel keeps eight bits of a status, and there are 64 signals.
        u8::try_from(status & 0xff).unwrap_or(u8::MAX)
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "ended with status {status}"),
            Self::Killed(signal) => match Signal::try_from(*signal) {
                Ok(named) => write!(f, "was ended by {named}"),
                Err(_) => write!(f, "was ended by signal {signal}"),
            },
        }
    }
}

/// Something that is new.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Left {
    /// What.
    #[serde(flatten)]
    pub(crate) item: Item,
    /// Processes that hold it, or something that keeps it.
    pub(crate) holders: Vec<Holder>,
    /// The process that loaded its program; left out where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) loader: Option<LoadedBy>,
    /// Who may have made it, and what keeps it, for people.
    pub(crate) reason: String,
    /// What ends it, for people.
    pub(crate) remedy: String,
    /// What shows that it is somebody else's; left out where nothing does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) evidence: Option<Evidence>,
}

impl From<gate::Left> for Left {
    fn from(left: gate::Left) -> Self {
        let gate::Left { item, holders, loader, reason, evidence, .. } = left;
        Self { remedy: remedy::of_item(&item), item, holders, loader, reason, evidence }
    }
}

impl GateReport {
    /// The version of the shape.
    pub(crate) const SCHEMA_VERSION: u32 = 1;

    /// Returns the exit status: 1 if something is left, 2 if there are gaps, otherwise the command's own.
    pub(crate) fn exit_status(&self) -> u8 {
        match (self.verdict, self.command.ended) {
            (Verdict::Clean, Some(ended)) => ended.exit_status(),
            (Verdict::Clean, None) => exit::of_verdict(Verdict::Incomplete),
            (verdict, _) => exit::of_verdict(verdict),
        }
    }
}
