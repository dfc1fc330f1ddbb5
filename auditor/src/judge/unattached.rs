//! Judges programs of ours that are attached to no cgroup.

use std::collections::HashSet;

use bpf::ledger::Entry;
use kernel::{AttachType, ProgramId};

use super::attached::paths;
use super::devices;
use super::doubt::Doubt;
use super::facts::Facts;
use super::reason::{nobody, owner, processes};
use super::standing::{Source, Standing};
use super::unowned::{self, is_unowned};
use super::{Finding, Judged};
use crate::facts::{DEVICE_PROGRAM, Gap, LinkFact, Object, ProgramFact, Subject};

/// The judgement of programs without an attachment.
#[derive(Default)]
pub(super) struct Unattached<'a> {
    pub judged: Vec<Judged<'a>>,
    /// Programs that have a gap instead of a finding.
    pub undecided: Vec<ProgramId>,
}

/// Judges programs of ours without an attachment, and defunct links of any program of ours.
///
/// - For an unowned program the reason says what is known. Nothing judges it.
/// - Below a root other than `/` nothing is judged, because the look covers only a part of the tree.
/// - "Attached nowhere" requires that the user asked for every attach type of the program's type. Otherwise the report
///   says nothing about the program. If cgroups could not be seen, the result is a gap, not a leak.
/// - A defunct link, or a pin without an owner, does not depend on unseen cgroups. A judgement that needs a record,
///   a pin, an owner or a link that could not be seen is a gap as well ([`Doubt`]).
/// - For a program that tcx links attach to network devices, the links decide.
/// - A running owner that throttles something keeps programs for the other direction and for its next throttle. Such
///   a program is active.
pub(super) fn judge<'a>(
    facts: &Facts<'a>,
    attachments: &[Judged<'a>],
    gaps: &mut Vec<Gap>,
) -> Unattached<'a> {
    if facts.scope.root.as_os_str() != "/" {
        return Unattached::default();
    }
    let attached: HashSet<ProgramId> = attachments.iter().map(|judged| judged.program_id).collect();
    let throttling: HashSet<u32> = attachments
        .iter()
        .filter_map(|judged| judged.owner)
        .filter(|claim| claim.alive == Some(true))
        .map(|claim| claim.pid)
        .chain(facts.waiting_owners())
        .collect();
    let mut judged = Vec::new();
    let mut unjudged = Vec::new();
    let mut doubted = Vec::new();
    for program in facts.look.programs.iter().filter(|program| facts.ours.has(&program.loaded.name))
    {
        let is_unowned = is_unowned(facts, program);
        let mut has_link = false;
        for link in facts.look.links.iter().filter(|link| link.program_id == program.loaded.id) {
            has_link = true;
            if let Some(gone) = defunct(facts, link) {
                judged.push(if is_unowned {
                    unowned::defunct(facts, program, link, &gone)
                } else {
                    of_defunct_link(facts, program, link, &gone)
                });
            }
        }
        if has_link || attached.contains(&program.loaded.id) {
            continue;
        }
        if is_unowned {
            judged.extend(was_asked_for(facts, program).then(|| unowned::loose(facts, program)));
            continue;
        }
        match of_program(facts, program, &throttling) {
            Judgement::Made(it) => judged.push(it),
            Judgement::NotAsked => {}
            Judgement::NotSeen => unjudged.push(program),
            Judgement::InDoubt(doubt, why) => doubted.push((program, doubt, why)),
        }
    }
    let undecided = unjudged.iter().chain(doubted.iter().map(|(program, ..)| program));
    let undecided = undecided.map(|program| program.loaded.id).collect();
    if !unjudged.is_empty() {
        gaps.push(Gap {
            about: Subject::Cgroups,
            what: named(&unjudged),
            why: "attached nowhere that could be seen, but not everything could be seen: what they are \
                  there for cannot be told"
                .to_owned(),
        });
    }
    gaps.extend(doubted.into_iter().map(|(program, doubt, why)| Gap {
        about: doubt.about(),
        what: named(&[program]),
        why,
    }));
    Unattached { judged, undecided }
}

/// Says why the link is defunct; `None` if it is not.
///
/// The kernel zeroes a link's cgroup only after the dead cgroup's last socket is gone. Until then the link names a
/// cgroup that no walk of the tree finds.
fn defunct(facts: &Facts<'_>, link: &LinkFact) -> Option<String> {
    if link.cgroup_id.0 == 0 {
        return Some(format!("link {} is attached to nothing any more", link.id));
    }
    let would_be_seen = facts.sees_every_cgroup()
        && link.attach_type.is_some_and(|attach_type| facts.was_queried(attach_type));
    (would_be_seen && !facts.is_seen(link.cgroup_id))
        .then(|| format!("the cgroup of link {}, id {}, is dead", link.id, link.cgroup_id))
}

fn of_defunct_link<'a>(
    facts: &Facts<'a>,
    program: &'a ProgramFact,
    link: &'a LinkFact,
    gone: &str,
) -> Judged<'a> {
    let standing = Standing::of(facts, program, Some(link.id), None);
    let mut judged = Judged::new(facts, program.loaded.id, Some(link.id));
    // The program's own pins and holders keep the program, not this link. Only if nobody claims the program
    // do its pins lack a purpose as much as the link's pins.
    let object = Object::Link(link.id);
    judged.pins.retain(|pin| pin.object == object || standing.nobody());
    judged.holders.retain(|holder| holder.objects.contains(&object));
    judged.owner = standing.claim;
    (judged.finding, judged.reason) = if let Some(entry) = facts.waits(program, Some(link.id)) {
        (Finding::Waiting, waiting(gone, entry))
    } else if standing.nobody() && !judged.pins.is_empty() {
        let reason = format!(
            "{gone}, the pin {} keeps it, and {}",
            paths(&judged.pins),
            nobody(&standing, &judged.holders)
        );
        (Finding::OrphanedPin, reason)
    } else {
        let by = match (judged.holders.is_empty(), judged.pins.is_empty()) {
            (true, true) => "something out of sight keeps it".to_owned(),
            (true, false) => format!("the pin {} keeps it", paths(&judged.pins)),
            (false, _) => format!("open in {}", processes(&judged.holders)),
        };
        (Finding::DefunctLink, format!("{gone}, but it still holds the program: {by}"))
    };
    judged
}

/// Says why something waits for a cgroup.
fn waiting(gone: &str, entry: &Entry) -> String {
    let path = entry.cgroup_path.to_string_lossy();
    let name = &entry.throttle;
    if entry.persist {
        format!(
            "{gone}: throttle '{name}' waits for another cgroup at {path} ('chadthrottle rearm {name}' arms it there, \
             'chadthrottle rm {name}' ends it)"
        )
    } else {
        let pid = entry.owner.pid;
        format!("{gone}: its owner, process {pid}, waits for another cgroup at {path}")
    }
}

enum Judgement<'a> {
    Made(Judged<'a>),
    /// The user did not ask for every place where the program may be attached.
    NotAsked,
    /// The program may be attached where the auditor could not look.
    NotSeen,
    /// The judgement needs another fact that could not be seen; the words for the gap.
    InDoubt(Doubt, String),
}

fn of_program<'a>(
    facts: &Facts<'a>,
    program: &'a ProgramFact,
    throttling: &HashSet<u32>,
) -> Judgement<'a> {
    let standing = Standing::of(facts, program, None, None);
    let judged = Judged { owner: standing.claim, ..Judged::new(facts, program.loaded.id, None) };
    let at = &program.loaded.loaded_at;
    // A process known only as a holder may not be the only holder, and another holder may be throttling.
    let is_held_alone = standing.living().is_none_or(|it| it.source != Source::Holder)
        || !facts.has_gap(Subject::Processes);
    let doubt = Doubt::of_everything(facts)
        .or(standing.doubt)
        .or((!is_held_alone).then_some(Doubt::Holders));
    let is_throttling = || standing.living().is_some_and(|claim| throttling.contains(&claim.pid));
    let on_devices = devices::of_links(&standing, &judged);
    let (finding, reason) = if let Some((finding, reason)) = on_devices {
        match doubt.filter(|_| finding.is_leak()) {
            Some(doubt) => {
                let why = format!("{reason}: {}{}", doubt.what(&standing), doubt.help());
                return Judgement::InDoubt(doubt, why);
            }
            None => (finding, reason),
        }
    } else if let Some(entry) = facts.waits(program, None).filter(|entry| entry.waiting) {
        (Finding::Waiting, waiting("attached nowhere now", entry))
    } else if doubt.is_none() && standing.nobody() && !judged.pins.is_empty() {
        let reason = format!(
            "kept by the pin {}, but {}",
            paths(&judged.pins),
            nobody(&standing, &judged.holders)
        );
        (Finding::OrphanedPin, reason)
    } else if let Some(doubt) = doubt
        .filter(|_| !is_throttling() && (!judged.pins.is_empty() || was_asked_for(facts, program)))
    {
        let that = if facts.sees_every_cgroup() { "" } else { " that could be seen" };
        let why = format!("attached nowhere{that}; {}{}", doubt.what(&standing), doubt.help());
        return Judgement::InDoubt(doubt, why);
    } else if !was_asked_for(facts, program) {
        return Judgement::NotAsked;
    } else if is_throttling() {
        let reason = format!(
            "attached nowhere now; {} throttles and keeps it for the other direction or for its next throttle",
            owner(&standing)
        );
        (Finding::Active, reason)
    } else if !facts.sees_every_cgroup() {
        return Judgement::NotSeen;
    } else if !judged.holders.is_empty() {
        let by = processes(&judged.holders);
        (Finding::UnattachedProgram, format!("loaded {at}, attached nowhere, but open in {by}"))
    } else if !judged.pins.is_empty() {
        let by = paths(&judged.pins);
        (Finding::UnattachedProgram, format!("loaded {at}, attached nowhere, but pinned as {by}"))
    } else {
        let reason =
            format!("loaded {at}, but no attachment, pin or process that keeps it can be seen");
        (Finding::UnreachableProgram, reason)
    };
    Judgement::Made(Judged { finding, reason, ..judged })
}

/// Tells whether the user asked for every attach type of the program's type.
fn was_asked_for(facts: &Facts<'_>, program: &ProgramFact) -> bool {
    // Only links attach the device programs of our queues, and the look knows all links. The other programs of
    // the same owner tell whether the owner throttles.
    let kind =
        if program.loaded.kind == DEVICE_PROGRAM { "cgroup_skb" } else { &*program.loaded.kind };
    // A hook outside of any cgroup may have an LSM program. Programs of the other types attach only to cgroups.
    let is_only_for_cgroups =
        kind != "lsm" && AttachType::all().any(|place| place.program_type() == kind);
    is_only_for_cgroups
        && AttachType::all()
            .filter(|place| place.program_type() == kind)
            .all(|place| facts.scope.attach_types.contains(&place))
}

fn named(programs: &[&ProgramFact]) -> String {
    let names: Vec<String> = programs
        .iter()
        .map(|program| format!("{} ({})", program.loaded.id, program.loaded.shown_name()))
        .collect();
    let noun = if names.len() == 1 { "program" } else { "programs" };
    format!("{noun} {}", names.join(", "))
}
