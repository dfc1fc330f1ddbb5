//! Describes the cgroup that a limit is for.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use kernel::cgroup::Reach;
use terminal::{escape, escape_bytes};
use throttle_core::target::{Neighbour, Resolved};

use crate::words::{say, warn};

/// The most neighbours that a message names.
const NAMED: usize = 5;

/// Prints what else will be limited, and which part of a process will not be.
pub(crate) fn tell(target: &Resolved, pid: Option<u32>) {
    for note in notes(target, pid) {
        say(&note);
    }
    if let Some(warning) = not_limited(target) {
        warn(&warning);
    }
}

fn notes(target: &Resolved, pid: Option<u32>) -> Vec<String> {
    let mut notes = Vec::new();
    match target.reach {
        Reach::Host => notes.push("this is the root cgroup: the whole host is limited".to_owned()),
        Reach::Namespace => notes.push(
            "this is the root of this cgroup namespace: the whole container is limited, and not the host"
                .to_owned(),
        ),
        Reach::Mount => notes.push(format!(
            "{} is a mount of a part of the cgroup2 hierarchy: that part is limited, and not the host",
            shown(&target.cgroup)
        )),
        Reach::Itself => {}
    }
    if let (Some(thread), Some(process)) = (pid, target.thread_of) {
        notes.push(format!(
            "{thread} is a thread of process {process}: the cgroup of that thread is limited"
        ));
    }
    notes
}

/// Returns which part of a process will not be limited.
fn not_limited(target: &Resolved) -> Option<String> {
    match &target.threads_elsewhere {
        Some(paths) if paths.is_empty() => None,
        Some(paths) => {
            let paths: Vec<_> = paths.iter().map(|path| shown(path)).collect();
            Some(format!(
                "this is a threaded cgroup: other threads of the process are in {}, and are not limited; to \
                 limit them all, limit the cgroup above",
                paths.join(", ")
            ))
        }
        None => Some(
            "this is a threaded cgroup, and whether other threads of the process are elsewhere, and so not \
             limited, cannot be seen"
                .to_owned(),
        ),
    }
}

/// Prints which other processes are limited.
pub(crate) fn tell_of_neighbours(neighbours: &[Neighbour], hidden: bool) {
    if hidden {
        say("not every process of the cgroup could be found out; all of them are limited");
    }
    if neighbours.is_empty() {
        return;
    }
    let named: Vec<_> = neighbours
        .iter()
        .take(NAMED)
        .map(|other| format!("{} ({})", other.pid, escape(&other.comm)))
        .collect();
    let more = neighbours.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    say(&format!("the same cgroup holds, and so limits: {}{more}", named.join(", ")));
}

fn shown(path: &Path) -> String {
    escape_bytes(path.as_os_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(reach: Reach) -> Resolved {
        Resolved {
            cgroup: "/sys/fs/cgroup/a".into(),
            cgroup_id: kernel::CgroupId(7),
            reach,
            neighbours: Vec::new(),
            neighbours_hidden: false,
            thread_of: None,
            threads_elsewhere: Some(Vec::new()),
        }
    }

    #[test]
    fn only_the_topmost_cgroup_is_called_the_whole_host() {
        let says_host = |reach| {
            let notes = notes(&resolved(reach), None);
            notes.iter().any(|note| note.contains("the whole host is limited"))
        };
        assert!(says_host(Reach::Host));
        for reach in [Reach::Namespace, Reach::Mount, Reach::Itself] {
            assert!(!says_host(reach.clone()), "{reach:?}");
        }
        assert_eq!(notes(&resolved(Reach::Itself), Some(1)), Vec::<String>::new());
        assert!(notes(&resolved(Reach::Namespace), None)[0].contains("the whole container"));
    }

    #[test]
    fn threads_that_are_not_limited_are_named_by_their_cgroups() {
        let target = Resolved {
            thread_of: Some(5),
            threads_elsewhere: Some(vec!["/p/t2".into()]),
            ..resolved(Reach::Itself)
        };
        let notes = notes(&target, Some(6));
        assert!(notes[0].starts_with("6 is a thread of process 5"), "{notes:?}");
        assert_eq!(notes.len(), 1);
        let warning = not_limited(&target).unwrap();
        assert!(warning.contains("/p/t2") && warning.contains("not limited"), "{warning}");
        let unseen = Resolved { threads_elsewhere: None, ..target };
        assert!(not_limited(&unseen).unwrap().contains("cannot be seen"));
        assert_eq!(not_limited(&resolved(Reach::Itself)), None);
    }
}
