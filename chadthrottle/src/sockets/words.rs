//! Phrases the messages about sockets and devices that a limit does not cover, or covers twice.

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

/// The most items of one kind that a message names.
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
    /// The cgroup exists, but is invisible from here.
    Hidden,
}

/// The topic of a message. Each topic is reported once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum About {
    /// Sockets of another cgroup.
    Outside(CgroupId),
    /// Sockets for whole frames.
    Frames(SocketKind),
    /// What a process writes into its device.
    Puts(Process, String),
    /// What others send through a process's device.
    Twice(Process, String),
}

/// Returns, for each topic, what a limit does not cover or covers twice, and what to do. `first` is the process that
/// the user named. `place` finds a cgroup, and `home` the cgroup of a process.
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

/// Returns the lines of the first few new topics, and a line if there are more.
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
    /// That cgroup is below the limited one.
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

/// Names a device and its holder, such as `process 4 (qemu) holds the tap device tap0`.
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
    // A process that sends on what leaves a tun received what it puts in through a socket of its own.
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

/// Returns the warning to print while the limit runs. `None` unless more bytes bypassed the limit than it has counted.
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

/// Returns the line of the summary, or an empty string if nothing is known to have bypassed the limit.
pub(crate) fn at_the_end(missed: &Missed, place: impl Fn(CgroupId) -> Place) -> String {
    match amounts(missed.traffic, &Direction::BOTH) {
        Some(what) => format!(
            "outside   {what}, through sockets of {}, which this limit does not hold\n",
            cgroups(&missed.cgroups, place)
        ),
        None => String::new(),
    }
}

/// Returns the line of the summary for a limit that counted nothing while uncounted traffic bypassed it. Empty if no
/// such traffic was reported.
pub(crate) fn unknown_at_the_end(told: &BTreeSet<About>, uncounted_sockets: usize) -> String {
    let mut what = Vec::new();
    if uncounted_sockets > 0 {
        let sockets = plural(uncounted_sockets, "socket", "sockets");
        what.push(format!("{uncounted_sockets} {sockets} of other cgroups"));
    }
    what.extend(told.iter().filter_map(|about| match about {
        About::Frames(kind) => Some(format!("{} sockets", family(*kind))),
        About::Puts(_, device) => Some(escape(device)),
        // TCP counts these, or `uncounted_sockets` includes them.
        About::Outside(_) | About::Twice(..) => None,
    }));
    if what.is_empty() {
        return String::new();
    }
    format!("outside   unknown: nothing counts what goes past this limit through {}\n", list(&what))
}

/// Formats the bytes in these directions, such as `sent at least 1.2 GB and received at least 3 kB`.
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

/// Returns `process 1 (a)`, or `processes 1 (a), 2 (b) and 7 more`. The process that the user named comes first.
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

/// Returns `a, b and c`. Of a long list it returns the first few and the number of the others.
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
