//! What is said of sockets and devices that a limit does not hold, or holds twice.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use bpf::limits::Bytes;
use kernel::CgroupId;
use kernel::sockets::{Process, SocketKind, Traffic};
use terminal::{escape, escape_bytes};
use throttle_core::Direction;

use super::judge::{Held, Outside, Past};
use super::tally::Missed;

/// How many of a kind are named.
const NAMED: usize = 5;

/// Where a cgroup is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// Its path below the cgroup2 mount.
    At(PathBuf),
    /// The host's root cgroup.
    Root,
    /// It was removed.
    Removed,
    /// It exists, but not where it could be seen from here.
    Hidden,
}

/// What something that is said is about: each is said once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum About {
    /// Sockets of another cgroup.
    Outside(CgroupId),
    /// Sockets for whole frames.
    Frames(SocketKind),
    /// What a process puts into its device.
    Puts(Process, String),
    /// What others send through a process's device.
    Twice(Process, String),
}

/// Says of everything that a limit does not hold, or holds twice, what it is and what to do. `first`: the process that the
/// user named; `place` finds a cgroup, `home` that of a process.
pub(crate) fn all(
    past: &Past,
    first: Option<u32>,
    place: impl Fn(CgroupId) -> Place,
    home: impl Fn(u32) -> Option<Home>,
) -> BTreeMap<About, Vec<String>> {
    let mut said = BTreeMap::new();
    for (&id, outside) in &past.outside {
        let place = place(id);
        let what = not_limited(outside, first, &shown(&place, id));
        said.insert(About::Outside(id), vec![what, what_would_hold(&place)]);
    }
    for (&kind, group) in &past.frames {
        let (n, sockets) = (group.sockets, plural(group.sockets, "socket", "sockets"));
        let line = format!(
            "{n} {} {sockets} of {} {} not limited: whole frames belong to no cgroup; tc on the network device can \
             limit them",
            family(kind),
            processes(&group.processes, first),
            plural(n, "is", "are"),
        );
        said.insert(About::Frames(kind), vec![line]);
    }
    for held in &past.devices {
        let about = |it: fn(Process, String) -> About| it(held.process.clone(), held.name.clone());
        said.extend(puts(held).map(|line| (about(About::Puts), vec![line])));
        let twice = twice(held, home(held.process.pid).as_ref());
        said.extend(twice.map(|line| (about(About::Twice), vec![line])));
    }
    said
}

/// The lines that are new, of the first few things; and that there are more.
pub(crate) fn news(said: BTreeMap<About, Vec<String>>, told: &mut BTreeSet<About>) -> Vec<String> {
    let new: Vec<_> = said.into_iter().filter(|(about, _)| told.insert(about.clone())).collect();
    let more = new.len().saturating_sub(NAMED);
    let mut lines: Vec<_> = new.into_iter().take(NAMED).flat_map(|(_, lines)| lines).collect();
    if more > 0 {
        let things =
            plural(more, "cgroup or device is like that", "cgroups or devices are like that");
        lines.push(format!("{more} more {things}"));
    }
    lines
}

fn family(kind: SocketKind) -> &'static str {
    if kind == SocketKind::Xdp { "AF_XDP" } else { "AF_PACKET" }
}

/// Where a process lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Home {
    /// Its cgroup's path below the cgroup2 mount.
    pub(crate) path: PathBuf,
    /// That is a cgroup below the limited one.
    pub(crate) is_below: bool,
}

fn not_limited(outside: &Outside, first: Option<u32>, cgroup: &str) -> String {
    let (n, of) = (outside.group.sockets, outside.of);
    let sockets = plural(of, "socket", "sockets");
    let owners = processes(&outside.group.processes, first);
    let are = plural(n, "is not limited: it belongs", "are not limited: they belong");
    let listening = match outside.listening {
        0 => String::new(),
        n => format!(
            "; {n} {} connections, which will belong there, too",
            plural(n, "accepts", "accept")
        ),
    };
    format!("{n} of {of} {sockets} of {owners} {are} to {cgroup}{listening}")
}

fn what_would_hold(place: &Place) -> String {
    match place {
        Place::At(path) => {
            let path = escape_bytes(path.as_os_str().as_bytes());
            format!(
                "to hold them, limit that cgroup as well (--cgroup {path}); a restart helps if the process opened them \
                 before it came to this cgroup"
            )
        }
        Place::Root => "to hold them, restart the process in this cgroup: a limit on the root cgroup is one on the \
                        whole host"
            .to_owned(),
        Place::Removed => "to hold them, restart the process".to_owned(),
        Place::Hidden => {
            "to hold them, restart the process, or limit that cgroup on the host".to_owned()
        }
    }
}

/// `process 4 (qemu) holds the tap device tap0`.
fn holds(held: &Held) -> String {
    let kind = match held.is_tap {
        Some(true) => "tap device",
        Some(false) => "tun device",
        None => "tun or tap device",
    };
    let process = &held.process;
    format!(
        "process {} ({}) holds the {kind} {}",
        process.pid,
        escape(&process.name),
        escape(&held.name)
    )
}

fn puts(held: &Held) -> Option<String> {
    // What is put into a tun by who sends on what comes out of it came by a socket of its own.
    (held.is_tap != Some(false) || !held.sends_on).then(|| {
        format!(
            "{}: what the process puts into it is no socket's, and not limited; tc on {} can limit that",
            holds(held),
            escape(&held.name)
        )
    })
}

fn twice(held: &Held, home: Option<&Home>) -> Option<String> {
    if !held.sends_on || !(held.has_company || home.is_some_and(|home| home.is_below)) {
        return None;
    }
    let now = match held.users {
        0 => String::new(),
        n => format!(" ({n} {} sent through it)", plural(n, "socket has", "sockets have")),
    };
    let apart = match home {
        Some(home) if home.is_below => {
            format!("limit {} alone", escape_bytes(home.path.as_os_str().as_bytes()))
        }
        _ => "give that process a cgroup of its own, outside of the limited one".to_owned(),
    };
    Some(format!(
        "{}: what others in this cgroup send or receive through it counts twice{now}; to count it once, {apart}",
        holds(held)
    ))
}

/// What to say while the limit waits, of the bytes that it has counted in each direction; `None` unless more than that
/// went past it.
pub(crate) fn while_waiting(
    counted: &[(Direction, u64)],
    missed: &Missed,
    first: Option<u32>,
    place: impl Fn(CgroupId) -> Place,
) -> Option<String> {
    let is_less = |(direction, bytes): &&(Direction, u64)| match direction {
        Direction::Upload => *bytes < missed.traffic.sent,
        Direction::Download => *bytes < missed.traffic.received,
    };
    let less: Vec<_> = counted.iter().filter(is_less).collect();
    let directions: Vec<_> = less.iter().map(|(direction, _)| *direction).collect();
    let what = amounts(missed.traffic, &directions)?;
    let counted = match less.iter().map(|(_, bytes)| bytes).sum() {
        0 => "nothing went through this limit".to_owned(),
        bytes => format!("only {} went through this limit", Bytes(bytes)),
    };
    Some(format!(
        "{counted}, but {} {} {what} past it, through sockets of {}",
        processes(&missed.processes, first),
        plural(missed.processes.len(), "has", "have"),
        cgroups(&missed.cgroups, place)
    ))
}

/// The line of the summary; empty if nothing is known to have gone past the limit.
pub(crate) fn at_the_end(missed: &Missed, place: impl Fn(CgroupId) -> Place) -> String {
    match amounts(missed.traffic, &Direction::BOTH) {
        Some(what) => format!(
            "outside   {what}, through sockets of {}, which this limit does not hold\n",
            cgroups(&missed.cgroups, place)
        ),
        None => String::new(),
    }
}

/// What to say in the end where the limit has counted nothing and something went past it that nobody counts, as far as was
/// told; empty if there was nothing of the kind.
pub(crate) fn unknown_at_the_end(told: &BTreeSet<About>, uncounted_sockets: usize) -> String {
    let mut what = Vec::new();
    if uncounted_sockets > 0 {
        let sockets = plural(uncounted_sockets, "socket", "sockets");
        what.push(format!("{uncounted_sockets} {sockets} of other cgroups"));
    }
    what.extend(told.iter().filter_map(|about| match about {
        About::Frames(kind) => Some(format!("{} sockets", family(*kind))),
        About::Puts(_, device) => Some(escape(device)),
        // These count, or those of them that do not are counted above.
        About::Outside(_) | About::Twice(..) => None,
    }));
    if what.is_empty() {
        return String::new();
    }
    format!("outside   unknown: nothing counts what goes past this limit through {}\n", list(&what))
}

/// `sent at least 1.2 GB and received at least 3 kB`, of these directions.
fn amounts(traffic: Traffic, directions: &[Direction]) -> Option<String> {
    let amount = |direction: &Direction| match direction {
        Direction::Upload => {
            (traffic.sent > 0).then(|| format!("sent at least {}", Bytes(traffic.sent)))
        }
        Direction::Download => {
            (traffic.received > 0).then(|| format!("received at least {}", Bytes(traffic.received)))
        }
    };
    let amounts: Vec<_> = directions.iter().filter_map(amount).collect();
    (!amounts.is_empty()).then(|| amounts.join(" and "))
}

fn cgroups(ids: &BTreeSet<CgroupId>, place: impl Fn(CgroupId) -> Place) -> String {
    list(&ids.iter().map(|&id| shown(&place(id), id)).collect::<Vec<_>>())
}

fn shown(place: &Place, id: CgroupId) -> String {
    match place {
        Place::At(path) => format!("cgroup {}", escape_bytes(path.as_os_str().as_bytes())),
        Place::Root => "the root cgroup".to_owned(),
        Place::Removed => format!("a cgroup that was removed (id {id})"),
        Place::Hidden => format!("a cgroup that cannot be seen from here (id {id})"),
    }
}

/// `process 1 (a)`, or `processes 1 (a), 2 (b) and 7 more`; the one that the user named first.
fn processes(found: &BTreeSet<Process>, first: Option<u32>) -> String {
    let is_first = |process: &&Process| Some(process.pid) == first;
    let (named, others): (Vec<_>, Vec<_>) = found.iter().partition(is_first);
    let shown: Vec<_> = named
        .into_iter()
        .chain(others)
        .map(|it| format!("{} ({})", it.pid, escape(&it.name)))
        .collect();
    format!("{} {}", plural(shown.len(), "process", "processes"), list(&shown))
}

/// `a, b and c`; of many the first few, and how many more.
fn list(items: &[String]) -> String {
    let more = items.len().saturating_sub(NAMED);
    if more > 0 {
        return format!("{} and {more} more", items[..NAMED].join(", "));
    }
    match items.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
        None => String::new(),
    }
}

fn plural<'a>(count: usize, one: &'a str, several: &'a str) -> &'a str {
    if count == 1 { one } else { several }
}

#[cfg(test)]
#[path = "words_tests.rs"]
mod tests;
