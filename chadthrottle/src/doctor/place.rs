//! Judges whether a limit can be attached to the named cgroup, beside the programs attached there and above.

use std::os::unix::ffi::OsStrExt;

use kernel::lineage::{Level, Lineage, ListMode};
use kernel::list::MAX_PROGRAMS;
use kernel::{AttachType, ProgramId};
use terminal::{escape, escape_bytes};
use throttle_core::Direction;
use throttle_core::neighbours::{Joining, joining};

use super::facts::{Answer, Place};
use super::report::{self, Above, Check, Grade, List, Mode, Program, Room, check};

/// Judges whether the cgroup can be limited.
pub(super) fn judge(place: &Place) -> Vec<Check> {
    match &place.lineages {
        Answer::Is(lineages) => lineages.iter().map(|lineage| one(place, lineage)).collect(),
        Answer::No(why) => vec![check("cgroup", Grade::Missing, why, "")],
        Answer::Unknown(why) => vec![check("cgroup", Grade::Unknown, why, "")],
    }
}

/// Tells whether the kernel or the engine refuses to attach a limit's program to this list.
fn is_refused(lineage: &Lineage) -> bool {
    matches!(joining(lineage), Joining::Full | Joining::Exclusive(_) | Joining::Displaces(_))
}

/// Tells whether one of the cgroup's lists refuses a limit's program.
pub(super) fn refuses(place: &Place, attach_type: AttachType) -> bool {
    let lists = place.lineages.is().into_iter().flatten();
    lists.filter(|it| it.attach_type == attach_type).any(is_refused)
}

/// Returns what the cgroup cannot hold, in a sentence. `None` means that both directions can be limited, or that
/// nothing is known.
pub(super) fn what_cannot_be(place: &Place) -> Option<String> {
    let lists = match &place.lineages {
        Answer::Is(lists) => lists,
        Answer::No(_) => return Some("no limit can be held there".to_owned()),
        Answer::Unknown(_) => return None,
    };
    let directed = lists.iter().filter_map(|it| Some((Direction::of(it.attach_type)?, it)));
    let refused: Vec<_> = directed.filter(|(_, list)| is_refused(list)).collect();
    let what = match &refused[..] {
        [] => return None,
        [(direction, _)] => format!("no {direction} limit"),
        _ => "no limit".to_owned(),
    };
    let is_displacing = |list| matches!(joining(list), Joining::Displaces(_));
    let but =
        if refused.iter().all(|(_, it)| is_displacing(it)) { " without --displace" } else { "" };
    Some(format!("{what} can be held there{but}"))
}

fn one(place: &Place, lineage: &Lineage) -> Check {
    let is_for_tcp = lineage.attach_type == AttachType::SOCK_OPS;
    let what = match lineage.attach_type {
        AttachType::INET_INGRESS => "downloads there",
        AttachType::INET_EGRESS => "uploads there",
        _ => "TCP there",
    };
    let there = |level: &Level| {
        let at = escape_bytes(level.path.as_os_str().as_bytes());
        format!("{} of {at}", programs(place, level.list.programs.iter().map(|it| it.id)))
    };
    let flag = "have its owner attach it with BPF_F_ALLOW_MULTI";
    let (grade, says, advice) = match joining(lineage) {
        Joining::Free => (Grade::Ok, room(lineage), String::new()),
        Joining::Full => (
            Grade::Missing,
            format!("all {MAX_PROGRAMS} places are taken"),
            "'chadthrottle-audit scan --all' shows by whom".to_owned(),
        ),
        Joining::Exclusive(level) => (
            Grade::Missing,
            format!("{} takes the place for itself", there(level)),
            format!("{flag}, or detach it"),
        ),
        Joining::Displaces(level) => (
            Grade::Missing,
            format!("a limit would switch off {}", there(level)),
            format!("{flag}, or limit all the same with --displace"),
        ),
        Joining::Unknown(ids) => (
            Grade::Unknown,
            format!(
                "{} is attached above what this mount shows, so whether a limit would switch it off is not known",
                programs(place, ids.into_iter())
            ),
            "ask on the host".to_owned(),
        ),
    };
    // Without the program for TCP, the limit drops packets and still holds.
    let (grade, says) = if is_for_tcp && grade == Grade::Missing {
        (Grade::Lesser, format!("packets of TCP above a limit are dropped: {says}"))
    } else {
        (grade, says)
    };
    check(what, grade, says + &in_force(place, lineage) + &out_of_force(place, lineage), &advice)
}

/// Returns how full the list is, such as `3 of 64 places are taken`.
fn room(lineage: &Lineage) -> String {
    let used = lineage.levels.first().map_or(0, |own| own.list.programs.len());
    format!("{used} of {MAX_PROGRAMS} places are taken")
}

/// Returns the programs from above that run here.
fn in_force(place: &Place, lineage: &Lineage) -> String {
    let own = lineage.levels.first();
    let is_own = |id: &ProgramId| own.is_some_and(|own| own.list.count(*id) > 0);
    let others: Vec<_> = lineage.in_force.iter().copied().filter(|id| !is_own(id)).collect();
    if others.is_empty() {
        return String::new();
    }
    format!("; in force from above: {}", programs(place, others.into_iter()))
}

/// Returns the programs from above that do not run here, because a nearer program replaces them.
fn out_of_force(place: &Place, lineage: &Lineage) -> String {
    let above = lineage.levels.iter().skip(1).flat_map(|level| &level.list.programs);
    let others: Vec<_> =
        above.map(|it| it.id).filter(|id| !lineage.in_force.contains(id)).collect();
    if others.is_empty() {
        return String::new();
    }
    format!("; attached above, but out of force here: {}", programs(place, others.into_iter()))
}

/// Names programs, such as `program 12 'firewall'` or `program 12 'firewall' and 7 others`.
fn programs(place: &Place, mut ids: impl Iterator<Item = ProgramId>) -> String {
    let Some(first) = ids.next() else { return "a program".to_owned() };
    let name = match place.called.get(&first) {
        Some(called) if !called.name.is_empty() => format!(" '{}'", escape(&called.name)),
        _ => String::new(),
    };
    match ids.count() {
        0 => format!("program {first}{name}"),
        more => format!("program {first}{name} and {more} more"),
    }
}

/// Returns the same facts for `--format json`.
pub(super) fn report(place: &Place) -> Option<report::Place> {
    let lineages = place.lineages.is()?;
    let id = lineages.first()?.levels.first()?.cgroup;
    let lists = lineages.iter().map(|lineage| list(place, lineage)).collect();
    Some(report::Place { path: place.path.clone(), id: id.0, lists })
}

fn list(place: &Place, lineage: &Lineage) -> List {
    let own = lineage.levels.first();
    let mode = own.map_or(Mode::Empty, |own| mode(own.mode()));
    let program = |id: ProgramId| {
        let called = place.called.get(&id);
        Program {
            id: id.0,
            name: called.map(|called| called.name.clone()),
            tag: called.map(|called| called.tag.clone()),
        }
    };
    let above = lineage.levels.iter().skip(1).filter(|level| level.mode() != ListMode::Empty);
    List {
        attach_type: lineage.attach_type.to_string(),
        room: match joining(lineage) {
            Joining::Free => Room::Free,
            Joining::Full => Room::Full,
            Joining::Exclusive(_) => Room::Exclusive,
            Joining::Displaces(_) => Room::Displaces,
            Joining::Unknown(_) => Room::Unknown,
        },
        mode,
        used: own.map_or(0, |own| own.list.programs.len()),
        takes: match mode {
            Mode::Override | Mode::Exclusive => 1,
            Mode::Empty | Mode::Multi => MAX_PROGRAMS,
        },
        in_force: lineage.in_force.iter().copied().map(program).collect(),
        above: above
            .map(|level| Above {
                path: level.path.clone(),
                id: level.cgroup.0,
                mode: self::mode(level.mode()),
                programs: level.list.programs.iter().map(|it| program(it.id)).collect(),
            })
            .collect(),
        whole: lineage.is_whole,
    }
}

fn mode(mode: ListMode) -> Mode {
    match mode {
        ListMode::Empty => Mode::Empty,
        ListMode::Multi => Mode::Multi,
        ListMode::Override => Mode::Override,
        ListMode::Exclusive => Mode::Exclusive,
    }
}

#[cfg(test)]
#[path = "place_tests.rs"]
mod tests;
