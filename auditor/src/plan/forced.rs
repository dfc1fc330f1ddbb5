//! What may be done about something unowned when somebody insists on it.

use std::path::Path;

use super::{Action, Premise, Step, holders};
use crate::classify::reason::processes;
use crate::classify::{Classified, Judged};
use crate::snapshot::{Object, Subject};

/// The folder of the throttles' pins, at the top of a bpffs. Each throttle has a folder of its own in it.
const OUR_FOLDER: &str = "chadthrottle";

/// Whether a pin is in the folder of our own pins. Any other folder is somebody else's.
pub(crate) fn is_in_our_folder(pin: &Path) -> bool {
    let above = pin.parent().and_then(Path::parent).and_then(Path::file_name);
    above.is_some_and(|name| name == OUR_FOLDER)
}

/// The steps against one unowned thing, in their order.
///
/// What a process holds has somebody who answers for it. So has what is pinned elsewhere than in our folder, and
/// what something out of sight keeps: there is no step against them. That the last program of a place stays
/// while its cgroup has processes is made sure of right before the act.
pub fn forced(judged: &Judged<'_>, classified: &Classified<'_>) -> Vec<Step> {
    let Some(program) = judged.program else { return Vec::new() };
    actions(judged, classified)
        .into_iter()
        .map(|action| Step {
            finding: judged.finding,
            program: Some(program.into()),
            premise: Premise::Unowned,
            action,
            note: None,
        })
        .collect()
}

/// What may speak against it and could not be seen, for who is asked whether to do it.
pub fn doubt(classified: &Classified<'_>) -> Option<&'static str> {
    classified
        .unsure
        .contains(&Subject::HiddenProcesses)
        .then_some("a security policy hides what some processes hold, and one of them may hold it")
}

fn actions(judged: &Judged<'_>, classified: &Classified<'_>) -> Vec<Action> {
    let cannot = |why: String| vec![Action::Cannot { why, holders: holders(&judged.holders) }];
    if !judged.holders.is_empty() {
        return cannot(format!(
            "{} holds it, and so answers for it: have it closed there",
            processes(&judged.holders)
        ));
    }
    if classified.unsure.contains(&Subject::Processes) {
        return cannot(
            "not every process could be looked at, and one may hold it: run it as root, on the host".to_owned(),
        );
    }
    // A program's own pins keep the program, not the attachment; without a place they are all that there is.
    let is_meant = |object: Object| judged.place.is_none() || matches!(object, Object::Link(_));
    let pins: Vec<_> = judged.pins.iter().filter(|pin| is_meant(pin.object)).collect();
    if let Some(pin) = pins.iter().find(|pin| !is_in_our_folder(&pin.path)) {
        return cannot(format!(
            "it is pinned at {}, so somebody keeps it: remove the pin with the tool that made it",
            pin.path.display()
        ));
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
        _ => return cannot("something out of sight keeps it: end it there".to_owned()),
    };
    [detach].into_iter().chain(unpins).collect()
}
