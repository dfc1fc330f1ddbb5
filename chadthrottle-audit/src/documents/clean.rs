//! Defines the output of `clean --format json`. `schema_version` 1 may gain fields, but never renames or removes one.

use std::path::PathBuf;

use auditor::actions::{Action, Step};
use auditor::clean::{Done, Outcome};
use auditor::facts::WrittenPath;
use auditor::judge::{Finding, Verdict};
use auditor::report::Report;
use kernel::{AttachType, CgroupId, LinkId, ProgramId};
use schemars::JsonSchema;
use serde::Serialize;

use crate::remedy;

/// The version of the shape.
const SCHEMA_VERSION: u32 = 1;

/// What `clean` did, as `chadthrottle-audit clean --format json` prints it.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct CleanReport {
    /// The version of this shape: 1.
    pub(crate) schema_version: u32,
    /// Nothing was done: this is what would be (`--dry-run`).
    pub(crate) dry_run: bool,
    /// Each step, in the order in which they were taken.
    pub(crate) steps: Vec<CleanStep>,
    /// How many steps had which outcome.
    pub(crate) summary: CleanSummary,
    /// The verdict of the scan that followed; if nothing was done, of the one scan that there was.
    pub(crate) verdict: Verdict,
    /// The report of that scan.
    pub(crate) scan: Report<String>,
}

impl CleanReport {
    /// Assembles the document.
    pub(crate) fn new(dry_run: bool, steps: Vec<CleanStep>, scan: Report) -> Self {
        let scan = scan.map_remedies(|steps| remedy::of_leak(&steps));
        let summary = CleanSummary::of(&steps);
        let verdict = scan.verdict;
        Self { schema_version: SCHEMA_VERSION, dry_run, steps, summary, verdict, scan }
    }
}

/// How many steps had which outcome.
#[derive(Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct CleanSummary {
    /// Done, and seen to have worked.
    pub(crate) removed: usize,
    /// There was nothing left to do.
    pub(crate) gone: usize,
    /// Left where it is.
    pub(crate) left: usize,
    /// Failed.
    pub(crate) failed: usize,
    /// Would be done (`--dry-run`).
    pub(crate) planned: usize,
}

impl CleanSummary {
    fn of(steps: &[CleanStep]) -> Self {
        let count = |outcome| steps.iter().filter(|step| step.outcome == outcome).count();
        Self {
            removed: count(CleanOutcome::Removed),
            gone: count(CleanOutcome::Gone),
            left: count(CleanOutcome::Left),
            failed: count(CleanOutcome::Failed),
            planned: count(CleanOutcome::Planned),
        }
    }
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CleanOutcome {
    /// It was taken, and a query shows that it worked.
    Removed,
    /// There was nothing left to do, or no longer a reason.
    Gone,
    /// There is nothing that may be done from here, or nobody agreed to it.
    Left,
    /// It was not taken, or it did not work.
    Failed,
    /// It would be taken (`--dry-run`).
    Planned,
}

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CleanAction {
    /// Detach a program that was attached the legacy way.
    DetachProgram,
    /// Detach a link from a cgroup.
    DetachLink,
    /// Detach a link from a network device.
    DetachLinkFromDevice,
    /// Remove a network device.
    RemoveDevice,
    /// Remove a pin.
    Unpin,
    /// Nothing.
    Nothing,
}

/// One step, or a leak that none is taken against.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct CleanStep {
    /// What became of it.
    pub(crate) outcome: CleanOutcome,
    /// What it does.
    pub(crate) action: CleanAction,
    /// It is about something unowned that `--force` names.
    pub(crate) forced: bool,
    /// The finding; null where it is no leak any more.
    pub(crate) finding: Option<Finding>,
    /// The program's id; null for a network device, and where it is no leak any more.
    #[schemars(with = "Option<u32>")]
    pub(crate) program_id: Option<ProgramId>,
    /// The program's name: the whole one where it is known.
    pub(crate) program_name: Option<String>,
    /// The cgroup's path below the cgroup2 mount, where it is detached by that path.
    #[schemars(with = "Option<WrittenPath>")]
    #[serde(serialize_with = "path_or_null")]
    pub(crate) cgroup: Option<PathBuf>,
    /// The cgroup's id, where it is detached from one.
    #[schemars(with = "Option<u64>")]
    pub(crate) cgroup_id: Option<CgroupId>,
    /// The attach type, where it is detached from a cgroup.
    #[schemars(with = "Option<String>")]
    pub(crate) attach_type: Option<AttachType>,
    /// The id of the link that is detached.
    #[schemars(with = "Option<u32>")]
    pub(crate) link_id: Option<LinkId>,
    /// The number of the network device (ifindex), in its network namespace.
    pub(crate) device: Option<u32>,
    /// The pin that is removed.
    #[schemars(with = "Option<WrittenPath>")]
    #[serde(serialize_with = "path_or_null")]
    pub(crate) pin: Option<PathBuf>,
    /// What it is about, for people.
    pub(crate) about: String,
    /// Why it was left, failed or needed nothing; or what stays behind even so.
    pub(crate) why: Option<String>,
}

#[expect(clippy::ref_option, reason = "serde gives it so")]
fn path_or_null<S: serde::Serializer>(
    path: &Option<PathBuf>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match path {
        Some(path) => bpf::serde_path::serialize(path, serializer),
        None => serializer.serialize_none(),
    }
}

impl CleanStep {
    /// Describes a step that was taken, and its result.
    pub(crate) fn done(done: &Done, is_forced: bool) -> Self {
        let mut told = match &done.step {
            Some(step) => Self::of(step, is_forced),
            None => Self::blank(is_forced),
        };
        done.leak.clone_into(&mut told.about);
        let (outcome, why) = match &done.outcome {
            Outcome::Removed => (CleanOutcome::Removed, told.why.take()),
            Outcome::Gone(why) => (CleanOutcome::Gone, Some(why.clone())),
            Outcome::Left(obstacle) => (CleanOutcome::Left, Some(remedy::obstacle(obstacle))),
            Outcome::Failed(failure) => (CleanOutcome::Failed, Some(failure.to_string())),
        };
        Self { outcome, why, ..told }
    }

    /// Describes a step that a dry run would take.
    pub(crate) fn planned(step: &Step, is_forced: bool) -> Self {
        let told = Self::of(step, is_forced);
        match told.action {
            CleanAction::Nothing => Self { outcome: CleanOutcome::Left, ..told },
            _ => told,
        }
    }

    /// Describes a step that the user declined.
    pub(crate) fn declined(step: &Step, is_forced: bool) -> Self {
        let told = Self::planned(step, is_forced);
        let why = told.why.clone().filter(|_| told.action == CleanAction::Nothing);
        let why = why.or_else(|| Some("nobody agreed to it".to_owned()));
        Self { outcome: CleanOutcome::Left, why, ..told }
    }

    fn of(step: &Step, is_forced: bool) -> Self {
        let blank = Self {
            finding: Some(step.finding),
            program_id: step.program.as_ref().map(|program| program.identity.id),
            program_name: step.program.as_ref().map(|program| program.name.clone()),
            about: step.program.as_ref().map_or_else(String::new, |program| {
                format!("program {} ({})", program.identity.id, program.name)
            }),
            why: step.remains.as_ref().map(remedy::remains),
            ..Self::blank(is_forced)
        };
        match &step.action {
            Action::DetachLegacy { cgroup, cgroup_id, attach_type } => Self {
                action: CleanAction::DetachProgram,
                cgroup: Some(cgroup.clone()),
                cgroup_id: Some(*cgroup_id),
                attach_type: Some(*attach_type),
                ..blank
            },
            Action::DetachLink { link, cgroup_id, attach_type } => Self {
                action: CleanAction::DetachLink,
                cgroup_id: Some(*cgroup_id),
                attach_type: Some(*attach_type),
                link_id: Some(*link),
                ..blank
            },
            Action::DetachFromDevice { link, device } => Self {
                action: CleanAction::DetachLinkFromDevice,
                link_id: Some(*link),
                device: Some(*device),
                ..blank
            },
            Action::RemoveDevice(device) => Self {
                action: CleanAction::RemoveDevice,
                device: Some(device.index),
                about: device.to_string(),
                ..blank
            },
            Action::Unpin { path, .. } => {
                Self { action: CleanAction::Unpin, pin: Some(path.clone()), ..blank }
            }
            Action::Cannot(obstacle) => Self { why: Some(remedy::obstacle(obstacle)), ..blank },
        }
    }

    fn blank(is_forced: bool) -> Self {
        Self {
            outcome: CleanOutcome::Planned,
            action: CleanAction::Nothing,
            forced: is_forced,
            finding: None,
            program_id: None,
            program_name: None,
            cgroup: None,
            cgroup_id: None,
            attach_type: None,
            link_id: None,
            device: None,
            pin: None,
            about: String::new(),
            why: None,
        }
    }
}

#[cfg(test)]
#[path = "clean_tests.rs"]
mod tests;
