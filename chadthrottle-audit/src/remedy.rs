//! Says in words what ends a leak.

use auditor::actions::{Action, Obstacle, Remains, Step};
use auditor::compare::Item;
use auditor::facts::Process;

/// The command that takes the steps.
const CLEAN: &str = "`chadthrottle-audit clean`";

/// Says what ends a thing that a command left behind.
pub(crate) fn of_item(item: &Item) -> String {
    match item {
        Item::Attachment { link: None, .. } => {
            "detach it when its work is done, or attach it through a link, which goes with its last holder"
        }
        Item::Attachment { .. } | Item::Link { .. } => {
            "it goes with the last pin of its link and the last process that has it open"
        }
        Item::Pin { path, .. } => return format!("remove the file: {path}"),
        Item::Program { .. } => {
            "it goes with its last attachment, link and pin, and the last process that has it open"
        }
        Item::Map { .. } => {
            "it goes with the last program that uses it, its last pin, and the last process that has it open"
        }
    }
    .to_owned()
}

/// Says what to do about a leak, in one sentence.
pub(crate) fn of_leak(steps: &[Step]) -> String {
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
        Action::Cannot(obstacle) => Some(self::obstacle(obstacle)),
        _ => step.remains.as_ref().map(remains),
    });
    clean.into_iter().chain(rest).collect::<Vec<_>>().join("; ")
}

/// Says why nothing may be done from here, and what helps.
pub(crate) fn obstacle(obstacle: &Obstacle) -> String {
    let guards = |why: &str| {
        format!(
            "{why}, and the cgroup has processes, which it may guard: end them first, or remove it with the tool \
             that made it"
        )
    };
    match obstacle {
        Obstacle::MayBeMeant => {
            "run the audit again as root, outside of any pid namespace: not every process could be \
             looked at, so one that means it may have been missed"
                .to_owned()
        }
        Obstacle::MayBeHeld => {
            "not every process could be looked at, and one may hold it: run it as root, on the host"
                .to_owned()
        }
        Obstacle::Pinned { path, is_named_as_ours } => {
            let named = if *is_named_as_ours {
                ", and only its name says that the program is ours"
            } else {
                ""
            };
            let path = path.display();
            format!(
                "it is pinned at {path}, so somebody keeps it{named}: remove the pin with the tool that made it"
            )
        }
        Obstacle::HeldOpen(holders) => {
            format!("end {}: only that closes the file descriptor", processes(holders))
        }
        Obstacle::AnsweredFor(holders) => {
            format!("{} holds it, and so answers for it: have it closed there", processes(holders))
        }
        Obstacle::MeantOutOfSight => {
            "something out of sight holds it, and may mean it: a pin on the bpffs of another mount \
             namespace, or a process or a file descriptor that cannot be seen from here; end it \
             there"
                .to_owned()
        }
        Obstacle::KeptOutOfSight => "something out of sight keeps it: end it there".to_owned(),
        Obstacle::OutOfReach => {
            "nothing to act on from here: a dying cgroup lets go of it when its last socket \
             closes, and another cgroup or pid namespace has to be audited from inside or from \
             the host"
                .to_owned()
        }
        Obstacle::LastProgram => guards("it is the last program at this place"),
        Obstacle::MayBeLastOnHook => {
            guards("whether another program is on its hook cannot be told")
        }
    }
}

/// Says what stays behind after a step that worked.
pub(crate) fn remains(remains: &Remains) -> String {
    match remains {
        Remains::Program(holders) => format!(
            "the program stays loaded, though attached no more, until {} closes it",
            processes(holders)
        ),
        Remains::DefunctLink(holders) => format!(
            "the defunct link stays behind, and holds the program, until {} closes it",
            processes(holders)
        ),
    }
}

fn processes(holders: &[Process]) -> String {
    let names: Vec<String> =
        holders.iter().map(|holder| format!("{} ({})", holder.pid, holder.comm)).collect();
    let noun = if names.len() == 1 { "process" } else { "processes" };
    format!("{noun} {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32) -> Process {
        Process { pid, comm: "somebody".to_owned() }
    }

    #[test]
    fn each_obstacle_says_what_is_in_the_way_and_what_helps() {
        let pinned = |is_named_as_ours| Obstacle::Pinned { path: "/x".into(), is_named_as_ours };
        let cases = [
            (Obstacle::MayBeMeant, "run the audit again as root", "may have been missed"),
            (Obstacle::MayBeHeld, "not every process could be looked at", "as root, on the host"),
            (
                pinned(true),
                "it is pinned at /x, so somebody keeps it, and only its name",
                "made it",
            ),
            (pinned(false), "it is pinned at /x, so somebody keeps it: remove", "made it"),
            (
                Obstacle::HeldOpen(vec![process(99)]),
                "end process 99 (somebody): ",
                "closes the file descriptor",
            ),
            (
                Obstacle::AnsweredFor(vec![process(98), process(99)]),
                "processes 98 (somebody), 99 (somebody) holds it",
                "have it closed there",
            ),
            (Obstacle::MeantOutOfSight, "something out of sight holds it", "end it there"),
            (Obstacle::KeptOutOfSight, "something out of sight keeps it", "end it there"),
            (Obstacle::OutOfReach, "nothing to act on from here", "or from the host"),
            (Obstacle::LastProgram, "it is the last program at this place, and", "made it"),
            (Obstacle::MayBeLastOnHook, "whether another program is on its hook", "made it"),
        ];
        for (it, first, last) in cases {
            let words = obstacle(&it);
            assert!(words.starts_with(first) && words.ends_with(last), "{it:?}: {words}");
        }
    }

    #[test]
    fn what_stays_behind_is_told_with_who_keeps_it() {
        let end = "until process 4711 (somebody) closes it";
        let words = remains(&Remains::Program(vec![process(4711)]));
        assert!(words.starts_with("the program stays loaded") && words.ends_with(end), "{words}");
        let words = remains(&Remains::DefunctLink(vec![process(4711)]));
        assert!(words.starts_with("the defunct link stays") && words.ends_with(end), "{words}");
    }
}
