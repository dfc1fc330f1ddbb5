//! Finds who claims a program: a running owner, or a record that the program is meant to stay.

use bpf::ledger::{Entry, Stage};
use kernel::{AttachType, CgroupId, LinkId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::doubt::Doubt;
use super::facts::Facts;
use crate::facts::{ProgramFact, Subject};

/// Where it is known from who the owner is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The program's `bpf_metadata_*` variables.
    Metadata,
    /// An entry of the ledger.
    Ledger,
    /// A process holds the program or the link, and nothing names another owner.
    Holder,
    /// The alias of a network device.
    Alias,
}

/// The process that answers for a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Claim {
    /// Its pid. That of a living one is from the auditor's pid namespace.
    pub pid: u32,
    /// Whether it lives; none where that cannot be told.
    pub alive: Option<bool>,
    /// Where it is known from.
    pub source: Source,
}

/// Tells who claims a program, at one place or anywhere.
pub(super) struct Standing<'a> {
    /// The running owner; otherwise an owner that metadata or the ledger names.
    pub(super) claim: Option<Claim>,
    /// A ledger entry that says the program is meant to outlive its owner.
    pub(super) kept: Option<&'a Entry>,
    /// Any ledger entry that names the program.
    pub(super) recorded: Option<&'a Entry>,
    /// The reason why an owner may exist out of sight, if the look shows none.
    pub(super) doubt: Option<Doubt>,
}

impl<'a> Standing<'a> {
    /// Looks for an owner of the program at a place or, without a place, anywhere.
    ///
    /// A process that merely holds a program counts as its owner in two cases. Either metadata names no owner, or
    /// nobody here can tell whether the named owner is running. A named owner that is dead stays dead, whoever else
    /// holds the program.
    pub(super) fn of(
        facts: &Facts<'a>,
        program: &'a ProgramFact,
        link: Option<LinkId>,
        place: Option<(CgroupId, AttachType)>,
    ) -> Self {
        let entries: Vec<&Entry> = facts
            .records(program)
            .filter(|(entry, recorded)| {
                place.is_none_or(|place| place == (entry.cgroup_id, recorded.attach_type))
            })
            .map(|(entry, _)| entry)
            .collect();
        let mut named: Vec<Claim> = Vec::new();
        if let Some(owner) = &program.owner {
            let alive = facts.lives(owner);
            named.push(Claim { pid: owner.pid, alive, source: Source::Metadata });
        }
        for entry in &entries {
            let alive = facts.lives(&entry.owner);
            named.push(Claim { pid: entry.owner.pid, alive, source: Source::Ledger });
        }
        let untold = program.owner.as_ref().is_none_or(|owner| facts.lives(owner).is_none());
        let holder = || {
            let holder =
                facts.holders(program.loaded.id, link).into_iter().next().filter(|_| untold)?;
            Some(Claim { pid: holder.process.pid, alive: Some(true), source: Source::Holder })
        };
        let living = named.iter().find(|claim| claim.alive == Some(true)).copied().or_else(holder);
        let kept =
            entries.iter().copied().find(|entry| entry.persist && entry.stage == Stage::Attached);
        let doubt =
            || of_owner(facts, program, &named).or_else(|| of_keeper(facts, program, link, place));
        Self {
            claim: living.or(named.first().copied()),
            kept,
            recorded: entries.first().copied(),
            doubt: if living.is_none() && kept.is_none() { doubt() } else { None },
        }
    }

    /// Returns the running owner, if the look shows one.
    pub(super) fn living(&self) -> Option<Claim> {
        self.claim.filter(|claim| claim.alive == Some(true))
    }

    /// Tells whether nobody claims the program, as far as the look can show.
    pub(super) fn nobody(&self) -> bool {
        self.living().is_none() && self.kept.is_none() && self.doubt.is_none()
    }
}

/// Returns the doubt that an owner may be running out of sight. A dead owner leaves no doubt, whatever is hidden.
fn of_owner(facts: &Facts<'_>, program: &ProgramFact, named: &[Claim]) -> Option<Doubt> {
    if named.iter().any(|claim| claim.alive.is_none()) && !facts.sees_every_process() {
        Some(Doubt::Owner)
    } else if program.owner.is_none() && facts.has_gap(Subject::Programs) {
        Some(Doubt::Programs)
    } else if named.is_empty() && facts.has_gap(Subject::Processes) {
        Some(Doubt::Holders)
    } else {
        None
    }
}

/// Returns the doubt that a hidden record or a hidden pin keeps the program on purpose. An unpinned legacy attachment
/// needs neither, because it is never meant to stay.
fn of_keeper(
    facts: &Facts<'_>,
    program: &ProgramFact,
    link: Option<LinkId>,
    place: Option<(CgroupId, AttachType)>,
) -> Option<Doubt> {
    let is_pinned = !facts.pins(program.loaded.id, link).is_empty();
    let is_legacy = place.is_some() && link.is_none();
    let misses = |one, other| facts.has_gap(one) || facts.has_gap(other);
    if misses(Subject::Ledger, Subject::HiddenLedger) && (is_pinned || !is_legacy) {
        Some(Doubt::Ledger)
    } else if misses(Subject::Pins, Subject::HiddenPins)
        && !is_legacy
        && !facts.is_kept(program.loaded.id, link)
    {
        Some(Doubt::Pins)
    } else {
        None
    }
}
