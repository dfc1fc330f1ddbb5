//! Who stands for a program: an owner that lives, or a record that it is meant to stay.

use bpf::ledger::{Entry, Stage};
use bpf::{AttachType, CgroupId, LinkId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::doubt::Doubt;
use super::facts::Facts;
use crate::snapshot::{ProgramFact, Subject};

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

/// Whether anybody stands for a program, at one place or at all.
pub(super) struct Standing<'a> {
    /// The owner that lives; else the one that is named.
    pub(super) claim: Option<Claim>,
    /// An entry of the ledger says that it is meant to outlive its owner.
    pub(super) kept: Option<&'a Entry>,
    /// Any entry of the ledger that names it.
    pub(super) recorded: Option<&'a Entry>,
    /// Nobody was seen who stands for it, but somebody may where the auditor could not look.
    pub(super) doubt: Option<Doubt>,
}

impl<'a> Standing<'a> {
    /// Looks for somebody who stands for the program: at a place, or, without one, anywhere.
    ///
    /// A process that merely holds a program is its owner only where its metadata names none, or one in
    /// a pid namespace that tells nothing here. An owner that metadata names and that is dead stays
    /// dead, whoever else has the program open.
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
            let holder = facts.holders(program.id, link).into_iter().next().filter(|_| untold)?;
            Some(Claim { pid: holder.pid, alive: Some(true), source: Source::Holder })
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

    /// The living owner, if one was seen.
    pub(super) fn living(&self) -> Option<Claim> {
        self.claim.filter(|claim| claim.alive == Some(true))
    }

    /// Nobody stands for it, as far as can be known.
    pub(super) fn nobody(&self) -> bool {
        self.living().is_none() && self.kept.is_none() && self.doubt.is_none()
    }
}

/// An owner may live out of sight. One that is known to be dead does not, whatever could not be seen.
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

/// A record may mean it to stay, or a pin may keep it, out of sight. A legacy attachment that is not
/// pinned is never meant to stay, so it needs neither.
fn of_keeper(
    facts: &Facts<'_>,
    program: &ProgramFact,
    link: Option<LinkId>,
    place: Option<(CgroupId, AttachType)>,
) -> Option<Doubt> {
    let is_pinned = !facts.pins(program.id, link).is_empty();
    let is_legacy = place.is_some() && link.is_none();
    let misses = |one, other| facts.has_gap(one) || facts.has_gap(other);
    if misses(Subject::Ledger, Subject::HiddenLedger) && (is_pinned || !is_legacy) {
        Some(Doubt::Ledger)
    } else if misses(Subject::Pins, Subject::HiddenPins)
        && !is_legacy
        && !facts.is_kept(program.id, link)
    {
        Some(Doubt::Pins)
    } else {
        None
    }
}
