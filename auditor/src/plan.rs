//! What to do about leaks: typed steps, worked out from the judgement alone.
//!
//! A step says what it presumes, so that whoever takes it can make sure right before acting that it is
//! still so: the same program (id, tag and load time), at the same place, or the same network device, and an owner that is still gone
//! or, where the finding is about what a living one left behind, still lives.

mod forced;

use std::collections::HashSet;
use std::path::PathBuf;

use bpf::{AttachType, CgroupId, LinkId, ProgramId};

pub(crate) use self::forced::is_in_our_folder;
pub use self::forced::{doubt, forced};
use crate::classify::reason::processes;
use crate::classify::{Classified, Finding, Judged, JudgedDevice};
use crate::snapshot::{DeviceFact, HolderFact, Object, ProgramFact, Subject};

/// The command that takes the steps, as people are told of it.
pub const CLEAN: &str = "`chadthrottle-audit clean`";

/// One thing to do about one leak.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a step does nothing until it is taken"]
pub struct Step {
    /// The leak that it is about.
    pub finding: Finding,
    /// The program, to be recognised before acting; none where it is about a network device.
    pub program: Option<Identity>,
    /// What else must still be so before acting.
    pub premise: Premise,
    /// What to do.
    pub action: Action,
    /// What stays behind even so.
    pub note: Option<String>,
}

/// A program, told apart from others that had or will have its id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Its id.
    pub id: ProgramId,
    /// Its name for people: the whole one where it is known.
    pub name: String,
    /// Its tag.
    pub tag: String,
    /// When it was loaded, in nanoseconds since boot.
    pub loaded_at_ns: u64,
}

impl From<&ProgramFact> for Identity {
    fn from(program: &ProgramFact) -> Self {
        Self {
            id: program.id,
            name: program.shown_name().to_owned(),
            tag: program.tag.clone(),
            loaded_at_ns: program.loaded_at_ns,
        }
    }
}

/// What a step presumes of the program's owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Premise {
    /// Nobody who lives stands for it. An owner that turns up makes it no leak.
    OwnerGone,
    /// Its owner lives and left it behind. The finding must still hold: once the owner is gone the leak
    /// is another one, to be judged anew.
    OwnerLives,
    /// Nothing says whose it is, and somebody insists. An owner that is named makes it another thing, and the last
    /// program of a place on a cgroup with processes stays.
    Unowned,
}

/// What can be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Detach a program that was attached the legacy way: by its own fd, with attach flags 0. In a list
    /// that is not MULTI *any* fd detaches the one program there: make sure that it is this one.
    DetachLegacy {
        /// The cgroup, relative to the cgroup2 mount.
        cgroup: PathBuf,
        /// Its id: a cgroup made again under that path is not this one.
        cgroup_id: CgroupId,
        /// Where on it.
        attach_type: AttachType,
    },
    /// Detach a link. One that is gone by then has ended by itself, and all is well.
    DetachLink {
        /// The link.
        link: LinkId,
        /// The cgroup that it is attached to.
        cgroup_id: CgroupId,
        /// Where on it.
        attach_type: AttachType,
    },
    /// Detach a tcx link, which is on a network device.
    DetachFromDevice {
        /// The link.
        link: LinkId,
        /// The device's number, in whichever network namespace.
        device: u32,
    },
    /// Remove a network device: by its number, if it still has the same name and alias.
    RemoveDevice(DeviceFact),
    /// Remove a pin.
    Unpin {
        /// The file in the bpffs.
        path: PathBuf,
        /// What it holds: another thing under that path is not ours to remove.
        object: Object,
    },
    /// Nothing that this program may do ends it.
    Cannot {
        /// Why, and what does.
        why: String,
        /// The processes that hold it, if they can be seen.
        holders: Vec<Holder>,
    },
}

/// A process that holds something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its pid, in the auditor's pid namespace.
    pub pid: u32,
    /// Its name.
    pub comm: String,
}

/// The steps that end every confirmed leak, in the order in which to take them.
///
/// Nothing that is not a leak, and nothing that is not ours, has a step. A pin that several leaks share
/// is removed once.
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

/// The steps that end one leak, which is always ours: of a program that could not be read none is.
pub(crate) fn steps(leak: &Judged<'_>, classified: &Classified<'_>) -> Vec<Step> {
    let Some(program) = leak.program else { return Vec::new() };
    let lives = leak.owner.is_some_and(|claim| claim.alive == Some(true));
    let premise = if lives { Premise::OwnerLives } else { Premise::OwnerGone };
    actions(leak, classified)
        .into_iter()
        .map(|(action, note)| Step {
            finding: leak.finding,
            program: Some(program.into()),
            premise,
            action,
            note,
        })
        .collect()
}

/// The step that removes a leaked network device.
pub(crate) fn removal(leak: &JudgedDevice<'_>) -> Step {
    Step {
        finding: leak.finding,
        program: None,
        premise: Premise::OwnerGone,
        action: Action::RemoveDevice(leak.device.clone()),
        note: None,
    }
}

/// What to do about the leak, as its remedy: one sentence.
pub(crate) fn remedy(steps: &[Step]) -> String {
    let has = |is: fn(&Action) -> bool| steps.iter().any(|step| is(&step.action));
    let unpins = has(|action| matches!(action, Action::Unpin { .. }));
    let detaches = has(|action| {
        use Action::{DetachFromDevice, DetachLegacy, DetachLink};
        matches!(action, DetachLegacy { .. } | DetachLink { .. } | DetachFromDevice { .. })
    });
    let removes = has(|action| matches!(action, Action::RemoveDevice(_)));
    let clean = match (unpins, detaches) {
        _ if removes => Some(format!("{CLEAN} removes it")),
        (true, true) => Some(format!("{CLEAN} detaches and unpins it")),
        (true, false) => Some(format!("{CLEAN} removes the pin")),
        (false, true) => Some(format!("{CLEAN} detaches it")),
        (false, false) => None,
    };
    let rest = steps.iter().filter_map(|step| match &step.action {
        Action::Cannot { why, .. } => Some(why.clone()),
        _ => step.note.clone(),
    });
    clean.into_iter().chain(rest).collect::<Vec<_>>().join("; ")
}

fn actions(leak: &Judged<'_>, classified: &Classified<'_>) -> Vec<(Action, Option<String>)> {
    if leak.finding != Finding::DefunctLink && is_owner_in_doubt(leak, classified) {
        let why = "run the audit again as root, outside of any pid namespace: not every process could \
                   be looked at, so one that means it may have been missed";
        return vec![(Action::Cannot { why: why.to_owned(), holders: Vec::new() }, None)];
    }
    // The program's pins are somebody's who has it at another place, unless they are the finding.
    let pins = leak.pins.iter().filter(|pin| {
        leak.place.is_none() || leak.finding == Finding::OrphanedPin || leak.is_of_its_link(pin)
    });
    let others = pins.clone().find(|pin| !leak.is_proved && !is_in_our_folder(&pin.path));
    if let Some(pin) = others {
        let why = format!(
            "it is pinned at {}, so somebody keeps it, and only its name says that the program is ours: remove the pin \
             with the tool that made it",
            pin.path.display()
        );
        return vec![(Action::Cannot { why, holders: holders(&leak.holders) }, None)];
    }
    let unpins: Vec<(Action, Option<String>)> = pins
        .map(|pin| (Action::Unpin { path: pin.path.clone(), object: pin.object }, None))
        .collect();
    // Detaching comes first: without its pin a link may be gone before anybody can see that it is.
    let mut actions = Vec::new();
    if matches!(leak.finding, Finding::OrphanedAttachment | Finding::OrphanedPin) {
        for link in leak.device_links.iter().filter(|link| link.device != 0) {
            let action = Action::DetachFromDevice { link: link.id, device: link.device };
            actions.push((action, what_stays_of(link.id, leak)));
        }
    }
    match (leak.place, leak.link) {
        (Some(_), Some(_)) if leak.finding == Finding::UnreachableProgram => {
            let why = "something out of sight holds it, and may mean it: a pin on the bpffs of another mount \
                       namespace, or a process or a file descriptor that cannot be seen from here; end it \
                       there";
            actions.push((Action::Cannot { why: why.to_owned(), holders: Vec::new() }, None));
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
            let note = (!leak.holders.is_empty()).then(|| {
                format!(
                    "the program stays loaded, though attached no more, until {} closes it",
                    processes(&leak.holders)
                )
            });
            actions.push((action, note));
        }
        // Whatever else keeps it is another finding, once it is detached.
        (None, _) if !actions.is_empty() => {}
        (None, _) if !leak.holders.is_empty() => {
            let why =
                format!("end {}: only that closes the file descriptor", processes(&leak.holders));
            actions.push((Action::Cannot { why, holders: holders(&leak.holders) }, None));
        }
        (None, _) if unpins.is_empty() => {
            let why = "nothing to act on from here: a dying cgroup lets go of it when its last socket \
                       closes, and another cgroup or pid namespace has to be audited from inside or from \
                       the host";
            actions.push((Action::Cannot { why: why.to_owned(), holders: Vec::new() }, None));
        }
        (None, _) => {}
    }
    actions.extend(unpins);
    actions
}

/// The finding says that nobody lives who means it, but such a process could have been missed: the auditor
/// lacks the right to look into others, or sees only those of its own namespace. A single process that some
/// policy hides even from root is no reason, or nothing could ever be removed where there is one; the scan
/// names it.
fn is_owner_in_doubt(leak: &Judged<'_>, classified: &Classified<'_>) -> bool {
    leak.owner.is_none_or(|claim| claim.alive.is_none())
        && classified.gaps.iter().any(|gap| gap.about == Subject::Processes)
}

fn what_stays_of(link: LinkId, leak: &Judged<'_>) -> Option<String> {
    let holding: Vec<&HolderFact> = leak
        .holders
        .iter()
        .copied()
        .filter(|holder| holder.objects.contains(&Object::Link(link)))
        .collect();
    (!holding.is_empty()).then(|| {
        format!(
            "the defunct link stays behind, and holds the program, until {} closes it",
            processes(&holding)
        )
    })
}

fn holders(facts: &[&HolderFact]) -> Vec<Holder> {
    facts.iter().map(|fact| Holder { pid: fact.pid, comm: fact.comm.clone() }).collect()
}
