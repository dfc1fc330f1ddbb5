//! What was asked for by name, and nothing says whose it is.
//!
//! The owner in a program's metadata and the records of the ledger are chadthrottle's own. A program of
//! anybody else cannot have them, so their absence proves nothing: a container runtime attaches device
//! filters and exits, and pins what is to stay. Nothing here is ever called a leak. The reason says what
//! is known, for people to judge.

use super::attached::paths;
use super::facts::Facts;
use super::ours::is_named_as_ours;
use super::reason::processes;
use super::room::{Room, room};
use super::{Finding, Judged};
use crate::snapshot::{Gap, LinkFact, Note, Object, ProgramFact, Subject};

const NOBODY: &str = "nothing says who made it";

/// Nothing says that the program is ours: no metadata, no record of this boot, and no name of ours.
pub(super) fn is_unowned<'a>(facts: &Facts<'a>, program: &'a ProgramFact) -> bool {
    !is_named_as_ours(&program.name) && !facts.is_proved(program)
}

/// Says what is known of an attachment.
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

/// Says what is known of a link that attaches nothing any more.
pub(super) fn defunct<'a>(
    facts: &Facts<'a>,
    program: &'a ProgramFact,
    link: &'a LinkFact,
    gone: &str,
) -> Judged<'a> {
    let mut judged = Judged::new(facts, program.id, Some(link.id));
    // What keeps the program alone is another matter.
    let object = Object::Link(link.id);
    judged.pins.retain(|pin| pin.object == object);
    judged.holders.retain(|holder| holder.objects.contains(&object));
    told(facts, judged, format!("defunct: {gone}"), None)
}

/// Says what is known of a program that is attached nowhere.
pub(super) fn loose<'a>(facts: &Facts<'a>, program: &'a ProgramFact) -> Judged<'a> {
    let where_to = if facts.sees_every_cgroup() {
        "attached to no cgroup"
    } else {
        "attached to no cgroup that could be seen"
    };
    told(facts, Judged::new(facts, program.id, None), where_to.to_owned(), None)
}

fn told<'a>(
    facts: &Facts<'a>,
    judged: Judged<'a>,
    state: String,
    full: Option<String>,
) -> Judged<'a> {
    let loaded = judged
        .program
        .map(|program| format!("loaded {} by uid {}", program.loaded_at, program.uid));
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

/// A process that could not be looked into may hold it.
pub(super) fn may_have_another_holder(judged: &Judged<'_>) -> bool {
    judged.finding == Finding::Unowned && judged.holders.is_empty()
}

/// The gaps that no verdict depends on, told all the same: what is said of holders rests on them.
pub(super) fn notes(gaps: &[Gap], kept: &[Gap]) -> Vec<Note> {
    let dropped = gaps.iter().filter(|gap| !kept.contains(gap));
    dropped
        .map(|gap| Note {
            what: gap.what.clone(),
            why: format!("{}; it may hold something that is listed as unowned", gap.why),
        })
        .collect()
}
