//! Plans what to do about something unowned if the user insists.

use std::path::Path;

use super::{Action, Obstacle, Premise, Step, processes};
use crate::facts::{Object, Subject};
use crate::judge::{Classified, Judged};

/// The folder of our pins, at the top of a bpffs. Each throttle has a folder of its own in it.
const OUR_FOLDER: &str = "chadthrottle";

/// Tells whether a pin is in the folder of our pins. Every other folder belongs to somebody else.
pub fn is_in_our_folder(pin: &Path) -> bool {
    let above = pin.parent().and_then(Path::parent).and_then(Path::file_name);
    above.is_some_and(|name| name == OUR_FOLDER)
}

/// Returns the steps against one unowned thing, in order.
///
/// A thing that a process holds has an owner, so there is no step against it. The same is true of a pin outside of our
/// folder, and of a thing that something out of sight keeps. Taking a step later checks that the last program at a
/// place stays while its cgroup has processes.
pub fn forced(judged: &Judged<'_>, classified: &Classified<'_>) -> Vec<Step> {
    let Some(program) = judged.program else { return Vec::new() };
    actions(judged, classified)
        .into_iter()
        .map(|action| Step {
            finding: judged.finding,
            program: Some(program.into()),
            premise: Premise::Unowned,
            action,
            remains: None,
        })
        .collect()
}

/// Returns a hidden fact that may speak against removal, for the question to the user.
pub fn doubt(classified: &Classified<'_>) -> Option<&'static str> {
    classified
        .unsure
        .contains(&Subject::HiddenProcesses)
        .then_some("a security policy hides what some processes hold, and one of them may hold it")
}

fn actions(judged: &Judged<'_>, classified: &Classified<'_>) -> Vec<Action> {
    let cannot = |obstacle| vec![Action::Cannot(obstacle)];
    if !judged.holders.is_empty() {
        return cannot(Obstacle::AnsweredFor(processes(&judged.holders)));
    }
    if classified.unsure.contains(&Subject::Processes) {
        return cannot(Obstacle::MayBeHeld);
    }
    // A program's own pins keep the program, not the attachment. Without an attachment they are all that keeps it.
    let is_meant = |object: Object| judged.place.is_none() || matches!(object, Object::Link(_));
    let pins: Vec<_> = judged.pins.iter().filter(|pin| is_meant(pin.object)).collect();
    if let Some(pin) = pins.iter().find(|pin| !is_in_our_folder(&pin.path)) {
        return cannot(Obstacle::Pinned { path: pin.path.clone(), is_named_as_ours: false });
    }
    let unpins =
        pins.iter().map(|pin| Action::Unpin { path: pin.path.clone(), object: pin.object });
    let unpins: Vec<Action> = unpins.collect();
    let detach = match (judged.place, judged.link) {
        (Some(place), None) => Action::DetachLegacy {
            cgroup: place.cgroup.clone(),
            cgroup_id: place.cgroup_id,
            attach_type: place.attach_type,
        },
        (Some(place), Some(link)) if !unpins.is_empty() => Action::DetachLink {
            link: link.id,
            cgroup_id: place.cgroup_id,
            attach_type: place.attach_type,
        },
        (None, _) if !unpins.is_empty() => return unpins,
        _ => return cannot(Obstacle::KeptOutOfSight),
    };
    [detach].into_iter().chain(unpins).collect()
}
