//! Plans what to do about leaks: typed steps, derived from the judgement alone.
//!
//! A step states its premise, so that whoever takes the step can check the premise right before acting. The program
//! must be the same (id, tag and load time) and at the same place, or the network device must be the same. The owner
//! must still be gone or, if a running owner left the leak behind, must still be running.

mod forced;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::path::PathBuf;

use kernel::{AttachType, CgroupId, LinkId, ProgramIdentity};

pub use self::forced::{doubt, forced, is_in_our_folder};
use crate::facts::{DeviceFact, HolderFact, Object, Process, ProgramFact, Subject};
use crate::judge::{Classified, Finding, Judged, JudgedDevice};

/// One thing to do about one leak.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a step does nothing until it is taken"]
pub struct Step {
    /// The finding that the step is about.
    pub finding: Finding,
    /// The program, so that the step can identify it before acting; none for a network device.
    pub program: Option<Target>,
    /// What else must still be true before acting.
    pub premise: Premise,
    /// What to do.
    pub action: Action,
    /// What stays behind even if the step works.
    pub remains: Option<Remains>,
}

/// The program that a step is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// The properties that distinguish the program from earlier and later programs with the same id.
    pub identity: ProgramIdentity,
    /// The program's name for people: the full name if known.
    pub name: String,
}

impl From<&ProgramFact> for Target {
    fn from(program: &ProgramFact) -> Self {
        let program = &program.loaded;
        Self { identity: program.identity(), name: program.shown_name().to_owned() }
    }
}

/// What a step presumes about the program's owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Premise {
    /// Nobody claims the program. If an owner turns up, the program is not a leak.
    OwnerGone,
    /// The owner is running and left the program behind. Once the owner is gone the leak is a different one and needs
    /// a new judgement.
    OwnerLives,
    /// Nothing says whose the program is, and the user insists. A named owner would change the judgement. The last
    /// program at a place stays while the cgroup has processes.
    Unowned,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Detaches a legacy attachment by the program's own fd, with attach flags 0. In a list without MULTI *any* fd
    /// detaches the one program there, so check first that it is this one.
    DetachLegacy {
        /// The cgroup, relative to the cgroup2 mount.
        cgroup: PathBuf,
        /// The cgroup's id. A new cgroup with the same path has another id.
        cgroup_id: CgroupId,
        /// The attach type.
        attach_type: AttachType,
    },
    /// Detaches a link. A link that is already gone counts as success.
    DetachLink {
        /// The link.
        link: LinkId,
        /// The cgroup that the link is attached to.
        cgroup_id: CgroupId,
        /// The attach type.
        attach_type: AttachType,
    },
    /// Detaches a tcx link from a network device.
    DetachFromDevice {
        /// The link.
        link: LinkId,
        /// The device's interface index, in whichever network namespace.
        device: u32,
    },
    /// Removes a network device by its interface index, if the device still has the same name and alias.
    RemoveDevice(DeviceFact),
    /// Removes a pin.
    Unpin {
        /// The file in the bpffs.
        path: PathBuf,
        /// The object that the pin must hold. A pin of another object under that path is not ours to remove.
        object: Object,
    },
    /// Does nothing, because nothing that may be done from here helps.
    Cannot(Obstacle),
}

/// The reason why nothing may be done from here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// Some processes could not be inspected. One of them may be the owner of the leak.
    MayBeMeant,
    /// Some processes could not be inspected. One of them may hold the unowned program.
    MayBeHeld,
    /// A pin in another tool's folder keeps it.
    Pinned {
        /// The pin.
        path: PathBuf,
        /// Whether only the program's name says that it is ours.
        is_named_as_ours: bool,
    },
    /// A process holds the program open. Only the end of that process closes it.
    HeldOpen(Vec<Process>),
    /// A process holds the unowned program and so counts as its owner.
    AnsweredFor(Vec<Process>),
    /// Something out of sight holds the link of a leak, perhaps on purpose.
    MeantOutOfSight,
    /// Something out of sight keeps the unowned program.
    KeptOutOfSight,
    /// Nothing that keeps the program can be reached from here.
    OutOfReach,
    /// The program is the last one at its place. The cgroup has processes, which the program may guard.
    LastProgram,
    /// Nobody can tell whether the LSM hook has another program, and the cgroup has processes.
    MayBeLastOnHook,
}

/// What stays behind after a step that worked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remains {
    /// The program stays loaded until these processes close it.
    Program(Vec<Process>),
    /// The defunct link, which holds the program, stays until these processes close it.
    DefunctLink(Vec<Process>),
}

/// Returns the steps that end every confirmed leak, in order.
///
/// Only leaks of ours have steps. If several leaks share a pin, only one step removes it.
pub fn plan(classified: &Classified<'_>) -> Vec<Step> {
    let mut removed = HashSet::new();
    classified
        .leaks()
        .flat_map(|leak| steps(leak, classified))
        .chain(classified.leaked_devices().map(removal))
        .filter(|step| match &step.action {
            Action::Unpin { path, .. } => removed.insert(path.clone()),
            _ => true,
        })
        .collect()
}

/// Returns the steps that end one leak of ours. Returns none if the program could not be read.
pub(crate) fn steps(leak: &Judged<'_>, classified: &Classified<'_>) -> Vec<Step> {
    let Some(program) = leak.program else { return Vec::new() };
    let lives = leak.owner.is_some_and(|claim| claim.alive == Some(true));
    let premise = if lives { Premise::OwnerLives } else { Premise::OwnerGone };
    actions(leak, classified)
        .into_iter()
        .map(|(action, remains)| Step {
            finding: leak.finding,
            program: Some(program.into()),
            premise,
            action,
            remains,
        })
        .collect()
}

/// Returns the step that removes a leaked network device.
pub(crate) fn removal(leak: &JudgedDevice<'_>) -> Step {
    Step {
        finding: leak.finding,
        program: None,
        premise: Premise::OwnerGone,
        action: Action::RemoveDevice(leak.device.clone()),
        remains: None,
    }
}

fn actions(leak: &Judged<'_>, classified: &Classified<'_>) -> Vec<(Action, Option<Remains>)> {
    let cannot = |obstacle| (Action::Cannot(obstacle), None);
    if leak.finding != Finding::DefunctLink && is_owner_in_doubt(leak, classified) {
        return vec![cannot(Obstacle::MayBeMeant)];
    }
    // Somebody who has the program at another place may own its pins, unless the pins are the finding.
    let pins = leak.pins.iter().filter(|pin| {
        leak.place.is_none() || leak.finding == Finding::OrphanedPin || leak.is_of_its_link(pin)
    });
    let others = pins.clone().find(|pin| !leak.is_proved && !is_in_our_folder(&pin.path));
    if let Some(pin) = others {
        return vec![cannot(Obstacle::Pinned { path: pin.path.clone(), is_named_as_ours: true })];
    }
    let unpins: Vec<(Action, Option<Remains>)> = pins
        .map(|pin| (Action::Unpin { path: pin.path.clone(), object: pin.object }, None))
        .collect();
    // Detach first. Without its pin a link may disappear before anybody can check that it is detached.
    let mut actions = Vec::new();
    if matches!(leak.finding, Finding::OrphanedAttachment | Finding::OrphanedPin) {
        for link in leak.device_links.iter().filter(|link| link.device != 0) {
            let action = Action::DetachFromDevice { link: link.id, device: link.device };
            actions.push((action, what_stays_of(link.id, leak)));
        }
    }
    match (leak.place, leak.link) {
        (Some(_), Some(_)) if leak.finding == Finding::UnreachableProgram => {
            actions.push(cannot(Obstacle::MeantOutOfSight));
        }
        (Some(place), Some(link)) => {
            let action = Action::DetachLink {
                link: link.id,
                cgroup_id: place.cgroup_id,
                attach_type: place.attach_type,
            };
            actions.push((action, what_stays_of(link.id, leak)));
        }
        (Some(place), None) => {
            let action = Action::DetachLegacy {
                cgroup: place.cgroup.clone(),
                cgroup_id: place.cgroup_id,
                attach_type: place.attach_type,
            };
            let holders = processes(&leak.holders);
            actions.push((action, (!holders.is_empty()).then_some(Remains::Program(holders))));
        }
        // Once the program is detached, whatever else keeps it is a finding of its own.
        (None, _) if !actions.is_empty() => {}
        (None, _) if !leak.holders.is_empty() => {
            actions.push(cannot(Obstacle::HeldOpen(processes(&leak.holders))));
        }
        (None, _) if unpins.is_empty() => actions.push(cannot(Obstacle::OutOfReach)),
        (None, _) => {}
    }
    actions.extend(unpins);
    actions
}

/// Tells whether the auditor may have missed a running owner. The auditor may lack the right to inspect other
/// processes, or may see only those of its own namespace.
///
/// A process that a policy hides even from root does not count. Otherwise `clean` could never remove anything on such
/// a host. The scan names the hidden process.
fn is_owner_in_doubt(leak: &Judged<'_>, classified: &Classified<'_>) -> bool {
    leak.owner.is_none_or(|claim| claim.alive.is_none())
        && classified.gaps.iter().any(|gap| gap.about == Subject::Processes)
}

fn what_stays_of(link: LinkId, leak: &Judged<'_>) -> Option<Remains> {
    let holders = leak.holders.iter().copied();
    let holders = holders.filter(|holder| holder.objects.contains(&Object::Link(link)));
    let processes: Vec<Process> = holders.map(|holder| holder.process.clone()).collect();
    (!processes.is_empty()).then_some(Remains::DefunctLink(processes))
}

fn processes(holders: &[&HolderFact]) -> Vec<Process> {
    holders.iter().map(|holder| holder.process.clone()).collect()
}
