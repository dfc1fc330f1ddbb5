//! What came, or was left, as checks: each kind of thing is a rule, and so is whether everything could be seen.

use super::item::{Item, Kind};
use crate::report::Gap;
use crate::results::{COVERAGE, Check, Outcome, Place, Problem};

/// One rule for each kind of thing. Where something could not be seen none passes: there is something of the kind, or
/// it is not known that there is not.
pub(crate) fn checks(left: &[(&Item, String)], gaps: &[Gap]) -> Vec<Check> {
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

/// The rule that a thing of that kind breaks by being left.
pub fn rule(kind: Kind) -> &'static str {
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

/// What ends it, for people.
pub(crate) fn remedy(item: &Item) -> String {
    match item {
        Item::Attachment { link: None, .. } => {
            "detach it when its work is done, or attach it through a link, which goes with its last holder"
        }
        Item::Attachment { .. } | Item::Link { .. } => {
            "it goes with the last pin of its link and the last process that has it open"
        }
        Item::Pin { path, .. } => return format!("remove the file: {path}"),
        Item::Program { .. } => {
            "it goes with its last attachment, link and pin, and the last process that has it open"
        }
        Item::Map { .. } => {
            "it goes with the last program that uses it, its last pin, and the last process that has it open"
        }
    }
    .to_owned()
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
        remedy: Some(remedy(item)),
        place,
        identity: identity(item),
    }
}

/// Names and places, and no ids: the same in a later run.
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
