//! Decides which sockets and devices a limit on a cgroup does not cover. It is a pure function of what the cgroup's
//! processes have open.

use std::collections::{BTreeMap, BTreeSet};

use kernel::CgroupId;
use kernel::sockets::{Open, OpenFile, Process, Socket, SocketKind};

/// Traffic that bypasses a limit, or passes through it twice.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Past {
    /// Sockets that belong to another cgroup, by cgroup.
    pub(crate) outside: BTreeMap<CgroupId, Outside>,
    /// Sockets with frames that belong to no cgroup, by kind.
    pub(crate) frames: BTreeMap<SocketKind, Group>,
    /// Devices that a process holds.
    pub(crate) devices: Vec<Held>,
}

/// Sockets and the processes that hold them. A socket that several processes hold counts once.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) processes: BTreeSet<Process>,
    pub(crate) sockets: usize,
}

/// Sockets that belong to another cgroup.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outside {
    pub(crate) group: Group,
    /// The number of these sockets that accept connections.
    pub(crate) listening: usize,
    /// The number of IP sockets that their processes hold in all.
    pub(crate) of: usize,
}

/// A tun or tap device that a process holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) process: Process,
    pub(crate) name: String,
    pub(crate) is_tap: Option<bool>,
    /// The process has sockets that the limit covers and that do more than listen. So it may send on what others send
    /// through the device.
    pub(crate) sends_on: bool,
    /// The number of other processes' sockets in the cgroup that have sent through the device.
    pub(crate) users: usize,
    /// Other processes of the cgroup have sockets or devices.
    pub(crate) has_company: bool,
}

/// Judges what the processes of a cgroup have open.
pub(crate) fn judge(files: &[OpenFile]) -> Past {
    let sockets: Vec<(&Process, &Socket)> = files
        .iter()
        .filter_map(|file| match &file.what {
            Open::Socket(socket) => Some((&file.process, socket)),
            Open::Device(_) => None,
        })
        .collect();
    let mut past = Past::default();
    for (id, owned) in by(&sockets, |it| is_outside(it).then_some(it.cgroup)) {
        let group = group(&owned);
        let is_theirs = |(process, _): &&(&Process, &Socket)| group.processes.contains(*process);
        let all: Vec<_> =
            sockets.iter().filter(is_theirs).filter(|it| is_ip(it.1)).copied().collect();
        let listening: Vec<_> = owned.iter().filter(|it| it.1.listens).copied().collect();
        let (listening, of) = (distinct(&listening), distinct(&all));
        past.outside.insert(id, Outside { group, listening, of });
    }
    for (kind, owned) in by(&sockets, |it| (!is_ip(it)).then_some(it.kind)) {
        past.frames.insert(kind, group(&owned));
    }
    past.devices = devices(files, &sockets);
    past
}

/// Tells whether the socket's packets pass the IP layer, where a cgroup's programs see them.
fn is_ip(socket: &Socket) -> bool {
    matches!(socket.kind, SocketKind::Tcp | SocketKind::Ip)
}

/// Tells whether the socket's packets belong to another cgroup.
pub(crate) fn is_outside(socket: &Socket) -> bool {
    is_ip(socket) && !socket.is_inside
}

type Owned<'a> = (&'a Process, &'a Socket);

fn by<'a, K: Ord>(
    sockets: &[Owned<'a>],
    key: impl Fn(&Socket) -> Option<K>,
) -> BTreeMap<K, Vec<Owned<'a>>> {
    let mut found: BTreeMap<K, Vec<_>> = BTreeMap::new();
    for owned in sockets {
        if let Some(key) = key(owned.1) {
            found.entry(key).or_default().push(*owned);
        }
    }
    found
}

fn group(owned: &[Owned<'_>]) -> Group {
    let processes = owned.iter().map(|(process, _)| (*process).clone()).collect();
    Group { processes, sockets: distinct(owned) }
}

fn distinct(owned: &[Owned<'_>]) -> usize {
    owned.iter().map(|(_, socket)| socket.inode).collect::<BTreeSet<_>>().len()
}

fn devices(files: &[OpenFile], sockets: &[Owned<'_>]) -> Vec<Held> {
    let mut found: Vec<Held> = Vec::new();
    for file in files {
        let Open::Device(device) = &file.what else { continue };
        // A process opens a device with several queues several times.
        if found.iter().any(|it| it.process == file.process && it.name == device.name) {
            continue;
        }
        let is_own = |it: &&Owned<'_>| *it.0 == file.process;
        let goes_there = |it: &Owned<'_>| {
            it.1.device.as_deref() == Some(&*device.name)
                && device.network.is_none_or(|network| network == u64::from(it.1.network))
        };
        let users: Vec<_> =
            sockets.iter().filter(|it| !is_own(it) && goes_there(it)).copied().collect();
        let may_send_on = |it: &Owned<'_>| is_ip(it.1) && it.1.is_inside && !it.1.listens;
        found.push(Held {
            process: file.process.clone(),
            name: device.name.clone(),
            is_tap: device.is_tap,
            sends_on: sockets.iter().filter(is_own).any(may_send_on),
            users: distinct(&users),
            has_company: files.iter().any(|other| other.process != file.process),
        });
    }
    found
}

#[cfg(test)]
pub(super) mod tests {
    use kernel::sockets::{Device, Traffic};

    use super::*;

    pub(crate) const ELSEWHERE: CgroupId = CgroupId(7);

    pub(crate) fn process(pid: u32) -> Process {
        Process { pid, name: format!("p{pid}") }
    }

    /// Creates a connected TCP socket of the limited cgroup.
    pub(crate) fn socket(inode: u64) -> Socket {
        Socket {
            inode,
            kind: SocketKind::Tcp,
            cgroup: CgroupId(5),
            is_inside: true,
            listens: false,
            traffic: Some(Traffic::default()),
            network: 1,
            device: None,
        }
    }

    pub(crate) fn outside(inode: u64) -> Socket {
        Socket { cgroup: ELSEWHERE, is_inside: false, ..socket(inode) }
    }

    pub(crate) fn open(pid: u32, socket: Socket) -> OpenFile {
        OpenFile { process: process(pid), what: Open::Socket(socket) }
    }

    fn tun(pid: u32, name: &str) -> OpenFile {
        let device = Device { name: name.to_owned(), is_tap: Some(false), network: Some(1) };
        OpenFile { process: process(pid), what: Open::Device(device) }
    }

    #[test]
    fn sockets_of_the_cgroup_are_held() {
        let files = [open(1, socket(10)), open(2, Socket { listens: true, ..socket(11) })];
        assert_eq!(judge(&files), Past::default());
    }

    #[test]
    fn sockets_of_another_cgroup_are_told_with_their_processes_and_counted_once() {
        let listener = || Socket { listens: true, ..outside(10) };
        let files = [
            open(1, listener()),
            open(2, listener()),
            open(2, outside(11)),
            open(2, socket(12)),
            open(3, socket(13)),
        ];
        let past = judge(&files);
        let group = Group { processes: [process(1), process(2)].into(), sockets: 2 };
        let expected = Outside { group, listening: 1, of: 3 };
        assert_eq!(past.outside, [(ELSEWHERE, expected)].into());
        assert!(past.frames.is_empty());
    }

    #[test]
    fn whole_frames_are_nobodys_whatever_cgroup_their_socket_was_made_in() {
        let frames = Socket { kind: SocketKind::Packet, traffic: None, ..socket(10) };
        let elsewhere = Socket { is_inside: false, inode: 11, ..frames.clone() };
        let past = judge(&[open(1, frames), open(1, elsewhere)]);
        let group = Group { processes: [process(1)].into(), sockets: 2 };
        assert_eq!(past.frames, [(SocketKind::Packet, group)].into());
        assert!(past.outside.is_empty());
    }

    #[test]
    fn who_holds_a_device_and_sends_by_a_limited_socket_may_send_on() {
        let sends_on = |files: &[OpenFile]| judge(files).devices[0].sends_on;
        assert!(sends_on(&[tun(1, "t"), open(1, socket(10))]));
        assert!(!sends_on(&[tun(1, "t")]));
        assert!(!sends_on(&[tun(1, "t"), open(2, socket(10))]), "another process's");
        assert!(!sends_on(&[tun(1, "t"), open(1, outside(10))]), "not limited");
        assert!(!sends_on(&[tun(1, "t"), open(1, Socket { listens: true, ..socket(10) })]));
    }

    #[test]
    fn users_of_a_device_are_others_that_have_sent_through_it() {
        let through = |inode| Socket { device: Some("t".to_owned()), ..socket(inode) };
        let elsewhere = Socket { network: 2, ..through(12) };
        let files = [tun(1, "t"), open(1, through(10)), open(2, through(11)), open(2, elsewhere)];
        let held = &judge(&files).devices[0];
        assert_eq!((held.users, held.has_company), (1, true));
        let alone = &judge(&[tun(1, "t"), open(1, through(10))]).devices[0];
        assert_eq!((alone.users, alone.has_company), (0, false));
    }

    #[test]
    fn a_device_that_is_open_several_times_is_one() {
        let names: Vec<_> = judge(&[tun(1, "t"), tun(1, "t"), tun(1, "u"), tun(2, "t")]).devices;
        assert_eq!(names.len(), 3);
    }
}
