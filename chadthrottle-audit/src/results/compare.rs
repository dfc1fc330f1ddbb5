//! Turns a comparison into checks: one rule for each kind of thing, and one for coverage.

use auditor::compare::{Item, Kind};
use auditor::facts::Note;

use super::{COVERAGE, Check, Outcome, Place, Problem, Results};
use crate::documents::{DiffReport, GateReport};
use crate::{remedy, text};

/// Returns the result of a comparison.
pub(crate) fn of_diff(report: &DiffReport) -> Results {
    let why = format!("it was not there at {}", report.before.taken_at);
    let new: Vec<(&Item, String)> = report.new.iter().map(|item| (item, why.clone())).collect();
    Results {
        command: "diff",
        tool: report.tool.clone(),
        hostname: report.host.hostname.clone(),
        taken_at: report.after.taken_at.clone(),
        duration_ms: 0.0,
        verdict: report.verdict,
        conclusion: text::diff::conclusion(report),
        checks: checks(&new, &report.gaps),
    }
}

/// Returns the result of a gate.
pub(crate) fn of_gate(report: &GateReport) -> Results {
    let left: Vec<(&Item, String)> =
        report.left.iter().map(|left| (&left.item, left.reason.clone())).collect();
    Results {
        command: "gate",
        tool: report.tool.clone(),
        hostname: report.host.hostname.clone(),
        taken_at: report.taken_at.clone(),
        duration_ms: report.duration_ms,
        verdict: report.verdict,
        conclusion: text::gate::conclusion(report),
        checks: checks(&left, &report.gaps),
    }
}

/// Returns one rule for each kind of thing. With gaps no rule passes: either there is such a thing, or nobody knows
/// that there is none.
fn checks(left: &[(&Item, String)], gaps: &[Note]) -> Vec<Check> {
    let unseen: Vec<Problem> = gaps.iter().map(Problem::from).collect();
    let check = |kind: Kind| {
        let of_kind = left.iter().filter(|(item, _)| item.kind() == kind);
        let problems: Vec<Problem> = of_kind.map(|(item, why)| problem(item, why)).collect();
        let outcome = match (problems.is_empty(), unseen.is_empty()) {
            (false, _) => Outcome::Failed(problems),
            (true, false) => Outcome::Unseen(unseen.clone()),
            (true, true) => Outcome::Passed,
        };
        Check { rule: rule(kind), summary: summary(kind).to_owned(), outcome }
    };
    let coverage = Check {
        rule: COVERAGE,
        summary: "Something could not be seen, or not be compared.".to_owned(),
        outcome: if unseen.is_empty() { Outcome::Passed } else { Outcome::Failed(unseen.clone()) },
    };
    Kind::ALL.into_iter().map(check).chain([coverage]).collect()
}

/// Returns the rule that a left thing of that kind breaks.
pub(crate) fn rule(kind: Kind) -> &'static str {
    match kind {
        Kind::Attachment => "left_attachment",
        Kind::Link => "left_link",
        Kind::Pin => "left_pin",
        Kind::Program => "left_program",
        Kind::Map => "left_map",
    }
}

fn summary(kind: Kind) -> &'static str {
    match kind {
        Kind::Attachment => "A program is attached to a cgroup that was not attached there before.",
        Kind::Link => "There is a BPF link that was not there before.",
        Kind::Pin => "There is a pin in a bpffs that was not there before.",
        Kind::Program => "A BPF program is loaded that was not loaded before.",
        Kind::Map => "There is a BPF map that was not there before.",
    }
}

fn problem(item: &Item, why: &str) -> Problem {
    let place = match item {
        Item::Attachment { cgroup, .. } => Some(Place::Cgroup(cgroup.path.clone())),
        Item::Pin { path, .. } => Some(Place::Pin(path.clone())),
        _ => None,
    };
    Problem {
        what: item.to_string(),
        why: why.to_owned(),
        remedy: Some(remedy::of_item(item)),
        place,
        identity: identity(item),
    }
}

/// Returns names and places without ids, so that a later run gives the same text.
fn identity(item: &Item) -> String {
    let name = item.program().and_then(|program| program.name.as_deref());
    let type_name = |kind: &Option<String>| kind.clone().unwrap_or_default();
    let of = match item {
        Item::Attachment { cgroup, attach_type, .. } => format!("{} {attach_type}", cgroup.path),
        Item::Link { link, .. } => type_name(&link.kind),
        Item::Pin { path, .. } => path.clone(),
        Item::Program { program } => type_name(&program.kind),
        Item::Map { map } => {
            format!("{} {}", map.name.as_deref().unwrap_or_default(), type_name(&map.kind))
        }
    };
    [item.kind().name(), name.unwrap_or_default(), &of]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}
