//! Describes programs that the user's globs name and that have no known owner.
//!
//! Only chadthrottle writes an owner into a program's metadata, and only chadthrottle has records in the ledger. Their
//! absence proves nothing about programs of other tools. A container runtime, for example, attaches device filters
//! and exits, and pins what should stay. This module never reports a leak. The reason says what is known, and people
//! judge.

use super::attached::paths;
use super::facts::Facts;
use super::ours::is_named_as_ours;
use super::reason::processes;
use super::room::{Room, room};
use super::{Finding, Judged};
use crate::facts::{Gap, LinkFact, Note, Object, ProgramFact, Subject};

const NOBODY: &str = "nothing says who made it";

/// Tells whether nothing shows that the program is ours: no metadata, no record of this boot, no name of ours.
pub(super) fn is_unowned<'a>(facts: &Facts<'a>, program: &'a ProgramFact) -> bool {
    !is_named_as_ours(&program.loaded.name) && !facts.is_proved(program)
}

/// Describes what is known about an attachment.
pub(super) fn attached<'a>(facts: &Facts<'a>, judged: Judged<'a>) -> Judged<'a> {
    let how = match judged.link {
        Some(link) => format!("attached through link {}", link.id),
        None => "attached the legacy way".to_owned(),
    };
    let full = judged.place.map(|place| (room(place), place.slots_used)).and_then(|it| match it {
        (Room::Enough, _) => None,
        (Room::Little, used) => Some(format!("the place is nearly full ({used} programs)")),
        (Room::None, used) => Some(format!("the place is full ({used} programs)")),
    });
    told(facts, judged, format!("{how} and in force there"), full)
}

/// Describes what is known about a defunct link.
pub(super) fn defunct<'a>(
    facts: &Facts<'a>,
    program: &'a ProgramFact,
    link: &'a LinkFact,
    gone: &str,
) -> Judged<'a> {
    let mut judged = Judged::new(facts, program.loaded.id, Some(link.id));
    // What keeps only the program is irrelevant to the link.
    let object = Object::Link(link.id);
    judged.pins.retain(|pin| pin.object == object);
    judged.holders.retain(|holder| holder.objects.contains(&object));
    told(facts, judged, format!("defunct: {gone}"), None)
}

/// Describes what is known about a program without an attachment.
pub(super) fn loose<'a>(facts: &Facts<'a>, program: &'a ProgramFact) -> Judged<'a> {
    let where_to = if facts.sees_every_cgroup() {
        "attached to no cgroup"
    } else {
        "attached to no cgroup that could be seen"
    };
    told(facts, Judged::new(facts, program.loaded.id, None), where_to.to_owned(), None)
}

fn told<'a>(
    facts: &Facts<'a>,
    judged: Judged<'a>,
    state: String,
    full: Option<String>,
) -> Judged<'a> {
    let loaded = judged.program.map(|program| {
        format!("loaded {} by uid {}", program.loaded.loaded_at, program.loaded.uid)
    });
    let held = match (&judged.holders[..], facts.sees_every_process()) {
        ([], true) => "no process holds it".to_owned(),
        ([], false) => "no process that could be looked into holds it".to_owned(),
        (holders, _) => format!("held by {}", processes(holders)),
    };
    let pinned = match (&judged.pins[..], sees_every_pin(facts)) {
        ([], true) => "not pinned".to_owned(),
        ([], false) => "not pinned where it could be seen".to_owned(),
        (pins, _) => format!("pinned as {}", paths(pins)),
    };
    let known = [Some(NOBODY.to_owned()), Some(state), loaded, Some(held), Some(pinned), full];
    let reason = known.into_iter().flatten().collect::<Vec<_>>().join("; ");
    Judged { finding: Finding::Unowned, reason, ..judged }
}

fn sees_every_pin(facts: &Facts<'_>) -> bool {
    !facts.has_gap(Subject::Pins) && !facts.has_gap(Subject::HiddenPins)
}

/// Tells whether a process that the auditor could not inspect may hold the program.
pub(super) fn may_have_another_holder(judged: &Judged<'_>) -> bool {
    judged.finding == Finding::Unowned && judged.holders.is_empty()
}

/// Returns notes for the gaps that no verdict depends on. Statements about holders still depend on them.
pub(super) fn notes(gaps: &[Gap], kept: &[Gap]) -> Vec<Note> {
    let dropped = gaps.iter().filter(|gap| !kept.contains(gap));
    dropped
        .map(|gap| Note {
            what: gap.what.clone(),
            why: format!("{}; it may hold something that is listed as unowned", gap.why),
        })
        .collect()
}
