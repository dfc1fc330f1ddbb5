//! What `gate` reports.
//!
//! Its shape is stable: fields may be added in [`SCHEMA_VERSION`] 1, never renamed or removed.

use std::fmt;

use nix::sys::signal::Signal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::evidence::Evidence;
use super::makers::{Holder, LoadedBy, wording};
use super::text;
use crate::classify::Verdict;
use crate::diff::{Item, checks};
use crate::formats::{Medium, Rendition};
use crate::report::{Gap, Host};
use crate::results::Results;
use crate::snapshot::Tool;

/// The version of the report.
pub const SCHEMA_VERSION: u32 = 1;

/// What a command left behind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GateReport {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The program that looked.
    pub tool: Tool,
    /// Where.
    pub host: Host,
    /// When the last look was taken, in RFC 3339, UTC.
    pub taken_at: String,
    /// How long the whole took.
    pub duration_ms: f64,
    /// The command.
    pub command: CommandInfo,
    /// The globs that name what was looked at.
    pub programs: Vec<String>,
    /// How long it was waited for what goes away by itself.
    pub settled_ms: f64,
    /// What it comes to: `leaks` where something was left.
    pub verdict: Verdict,
    /// What the command left.
    pub left: Vec<Left>,
    /// What others have made meanwhile, which does not count.
    pub others: Vec<Left>,
    /// What is there no more, though the command had not made it, and which no process held; nor does that count.
    pub gone: Vec<Item>,
    /// What is there no more because the processes that held it let go of it; nor does that count.
    #[serde(default)]
    pub gone_of_others: Vec<Item>,
    /// Processes that the command has started and that still run: what they make later is not looked at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub still_running: Vec<Holder>,
    /// What could not be seen.
    pub gaps: Vec<Gap>,
}

/// A command that was to be run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CommandInfo {
    /// It and its arguments. Bytes that are not UTF-8 are replaced.
    pub argv: Vec<String>,
    /// How it ended; null where it was not run, because the gate could not see.
    pub ended: Option<Ended>,
    /// Why it could not be run, though the gate could see; `ended` then has the status that shells have for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_run: Option<String>,
    /// How long it ran.
    pub duration_ms: f64,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// By itself, with this exit status.
    Exited(i32),
    /// By this signal.
    Killed(i32),
}

impl Ended {
    /// What a shell makes of it.
    pub fn exit_status(self) -> u8 {
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
pub struct Left {
    /// What.
    #[serde(flatten)]
    pub item: Item,
    /// Processes that hold it, or something that keeps it.
    pub holders: Vec<Holder>,
    /// The process that loaded its program; left out where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loader: Option<LoadedBy>,
    /// Who may have made it, and what keeps it, for people.
    pub reason: String,
    /// What ends it, for people.
    pub remedy: String,
    /// What shows that it is somebody else's; left out where nothing does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// What seems to show it, in one look. For the judgement only.
    #[serde(skip)]
    pub seems: Option<Evidence>,
    /// The kernel keeps it without any process: through an attachment or a pin. For the judgement only.
    #[serde(skip)]
    pub is_kept: bool,
    /// It may be the command's all the same, whatever seems. For the judgement only.
    #[serde(skip)]
    pub is_open: bool,
}

impl Left {
    /// Whose it is, for people, where it is somebody else's.
    pub(super) fn maker(&self) -> String {
        let is_theirs = matches!(self.evidence, Some(Evidence::Loader | Evidence::NotAsked));
        if let Some(loader) = self.loader.as_ref().filter(|it| is_theirs && !it.is_of_command) {
            return format!("loaded by {loader}");
        }
        match self.evidence.and_then(Evidence::wording) {
            Some(wording) => wording.to_owned(),
            None => wording(&self.holders).unwrap_or_else(|| self.reason.clone()),
        }
    }
}

impl GateReport {
    /// 1 where something is left, 2 where not everything could be seen, else the command's own.
    pub fn exit_status(&self) -> u8 {
        match (self.verdict, self.command.ended) {
            (Verdict::Clean, Some(ended)) => ended.exit_status(),
            (Verdict::Clean, None) => Verdict::Incomplete.exit_status(),
            (verdict, _) => verdict.exit_status(),
        }
    }
}

impl Rendition for GateReport {
    fn text(&self, on: Medium) -> String {
        text::render(self, on.colour)
    }

    fn json(&self) -> serde_json::Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    fn results(&self) -> Results {
        let left: Vec<(&Item, String)> =
            self.left.iter().map(|left| (&left.item, left.reason.clone())).collect();
        Results {
            command: "gate",
            tool: self.tool.clone(),
            hostname: self.host.hostname.clone(),
            taken_at: self.taken_at.clone(),
            duration_ms: self.duration_ms,
            verdict: self.verdict,
            conclusion: text::conclusion(self),
            checks: checks(&left, &self.gaps),
        }
    }
}
