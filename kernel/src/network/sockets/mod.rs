//! Through what the processes of a cgroup send and receive: their network sockets, each with the cgroup that it
//! belongs to, and their tun and tap devices.
//!
//! A socket stays with the cgroup that it was made in, and an accepted one with that of its listener. So a process may
//! have sockets that no program on its cgroup ever sees. Packets of `AF_PACKET`, `AF_XDP` and a tap device belong to no
//! cgroup at all.

// Generated code: neither its style nor its documentation is ours.
#[allow(warnings, clippy::all, clippy::pedantic)]
mod skeleton {
    include!(concat!(env!("OUT_DIR"), "/files.skel.rs"));
}
mod device;
mod record;

use std::collections::HashSet;
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use nix::errno::Errno;

use crate::cgroup::Cgroup;
use crate::error::{Call, Error, Result};
use crate::host::process::pid_namespace;
use crate::network::netns::unless_gone;
use crate::object::ids::CgroupId;
use crate::object::iterator::all_printed;
use crate::sys::libbpf;

const WHAT: &str = "the iterator over open files";

/// A process that has something open.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// Its pid, in this pid namespace.
    pub pid: u32,
    /// Its name (`/proc/PID/comm`), as text.
    pub name: String,
}

/// Something that a process has open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Open {
    /// A network socket.
    Socket(Socket),
    /// A tun or tap device.
    Device(Device),
}

/// A network socket. Those that are for this host alone (Unix, netlink) are none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Socket {
    /// Its inode number, which tells it from every other socket that there is now.
    pub inode: u64,
    /// What it sends and receives.
    pub kind: SocketKind,
    /// The cgroup that it belongs to.
    pub cgroup: CgroupId,
    /// That cgroup is the one that was asked for, or below it; also where it was removed.
    pub is_inside: bool,
    /// It accepts connections, and they will belong to the same cgroup.
    pub listens: bool,
    /// Bytes of data that it has sent and received so far. Only TCP counts them.
    pub traffic: Option<Traffic>,
    /// The inode number of its network namespace.
    pub network: u32,
    /// The device that it sent through last, if that is known.
    pub device: Option<String>,
}

/// The kinds of socket that packets of a network go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SocketKind {
    /// TCP.
    Tcp,
    /// Anything else that is sent by IP: UDP, ICMP, raw, SCTP.
    Ip,
    /// `AF_PACKET`: whole frames, past the IP layer and every cgroup.
    Packet,
    /// `AF_XDP`: the same.
    Xdp,
}

/// Bytes of data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Sent, what was sent again included.
    pub sent: u64,
    /// Received.
    pub received: u64,
}

/// A tun or tap device that a process holds: it makes up the packets that come out of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// What goes through it: Ethernet frames (tap) or IP packets (tun). `None`: the device is not in the process's network
    /// namespace, or could not be looked at.
    pub is_tap: Option<bool>,
    /// The inode number of the process's network namespace, if it could be read.
    pub network: Option<u64>,
}

/// What was found open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenFile {
    /// By whom.
    pub process: Process,
    /// What.
    pub what: Open,
}

/// A program that the kernel runs for every open file, loaded: each look at the processes of one cgroup costs no more
/// than going over the files.
#[must_use = "it looks when it is told to"]
#[derive(Debug)]
pub struct Sockets {
    program: OwnedFd,
    path: PathBuf,
    is_threaded: bool,
}

impl Sockets {
    /// Loads the program, for the processes of a cgroup and those below it.
    ///
    /// Needs Linux 5.15 with type information (`CONFIG_DEBUG_INFO_BTF`), `CAP_BPF` and `CAP_PERFMON`. It is attached to
    /// nothing, and goes with this process.
    ///
    /// # Errors
    /// `Unsupported` where the kernel has no such iterator or no type information, `Denied` without the rights.
    pub fn load(cgroup: &Cgroup) -> Result<Self> {
        let fail = |error: libbpf_rs::Error| Error::of_load(Call::Iterate, WHAT, &error);
        let path = cgroup.path().to_owned();
        let kind = path.join("cgroup.type");
        // The root has no such file, and is never threaded.
        let is_threaded = unless_gone(&kind, fs::read_to_string(&kind))?
            .is_some_and(|kind| kind.trim_end() == "threaded");
        libbpf::listen();
        let mut storage = MaybeUninit::uninit();
        let mut open = skeleton::FilesSkelBuilder::default().open(&mut storage).map_err(fail)?;
        let no_data = || {
            Error::found(Call::Iterate, WHAT, Errno::EINVAL)
                .with_detail("the object has no data section")
        };
        let rodata = open.maps.rodata_data.as_deref_mut().ok_or_else(no_data)?;
        rodata.cgroup_id = cgroup.id().0;
        rodata.pid_namespace = pid_namespace()?;
        rodata.everybody = is_threaded.into();
        let skeleton = open.load().map_err(fail)?;
        // A descriptor of our own: the skeleton closes its own when it is dropped.
        let program = skeleton.progs.walk_files.as_fd().try_clone_to_owned();
        let program = program.map_err(|error| Error::from_io(Call::Iterate, WHAT, &error))?;
        Ok(Self { program, path, is_threaded })
    }

    /// What the processes of the cgroup and below it have open now, in every network namespace. A socket that several
    /// processes share is told of for each. Processes outside of this pid namespace, sockets that are still to be accepted,
    /// and those that only a registered file of `io_uring` holds are not seen.
    ///
    /// # Errors
    /// When the iterator cannot be run; `EIO` when it says what this build does not understand.
    pub fn look(&self) -> Result<Vec<OpenFile>> {
        let told = all_printed(self.program.as_fd(), WHAT)?;
        let records = record::parse(&told).ok_or_else(|| {
            Error::found(Call::Iterate, WHAT, Errno::EIO)
                .with_detail("what it told is not what it should tell")
        })?;
        // Where the cgroup is threaded, the first thread of a member may be elsewhere.
        let threaded =
            if self.is_threaded { Some(processes_of_threads(&self.path)?) } else { None };
        let is_wanted = |record: &record::Record| {
            threaded.as_ref().is_none_or(|members| members.contains(&record.process))
        };
        // A thread with a table of files of its own tells of what it shares with the others as well.
        let mut met = HashSet::new();
        let once = |it: &record::Record| it.is_device || met.insert((it.process, it.inode));
        Ok(records.into_iter().filter(is_wanted).filter(once).filter_map(file).collect())
    }

    /// Whether some processes of the cgroup, or below it, are outside of this pid namespace, so that a look does not see
    /// them.
    ///
    /// # Errors
    /// When the cgroups cannot be read.
    pub fn is_blind(&self) -> Result<bool> {
        let file = if self.is_threaded { "cgroup.threads" } else { "cgroup.procs" };
        Ok(numbers_below(&self.path, file)?.contains(&0))
    }
}

fn file(record: record::Record) -> Option<OpenFile> {
    let what = if record.is_device {
        Open::Device(device::held(&record)?)
    } else {
        Open::Socket(record.socket()?)
    };
    Some(OpenFile { process: Process { pid: record.process, name: record.name }, what })
}

/// The processes that have a thread in a threaded cgroup, or below it.
fn processes_of_threads(cgroup: &Path) -> Result<HashSet<u32>> {
    let mut found = HashSet::new();
    for thread in numbers_below(cgroup, "cgroup.threads")? {
        let path = PathBuf::from(format!("/proc/{thread}/status"));
        let status = unless_gone(&path, fs::read(&path))?.unwrap_or_default();
        found.extend(number_after(&status, b"Tgid:"));
    }
    Ok(found)
}

/// The number behind a name in a file of `/proc`, of which other lines need not be text.
fn number_after(text: &[u8], name: &[u8]) -> Option<u32> {
    text.split(|&byte| byte == b'\n').find_map(|line| {
        std::str::from_utf8(line.strip_prefix(name)?.trim_ascii()).ok()?.parse().ok()
    })
}

/// The numbers in a file of a cgroup and of every one below it. What goes meanwhile has none.
fn numbers_below(cgroup: &Path, file: &str) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    let mut folders = vec![cgroup.to_owned()];
    while let Some(folder) = folders.pop() {
        let list = folder.join(file);
        let text = unless_gone(&list, fs::read_to_string(&list))?.unwrap_or_default();
        found.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
        let below = unless_gone(&folder, fs::read_dir(&folder))?.into_iter().flatten().flatten();
        folders.extend(
            below.filter(|it| it.file_type().is_ok_and(|it| it.is_dir())).map(|it| it.path()),
        );
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::Folder;

    #[test]
    fn a_number_is_found_beside_a_name_that_is_no_text() {
        assert_eq!(number_after(b"Name:\t\xff\nTgid:\t17\nPid:\t18\n", b"Tgid:"), Some(17));
        assert_eq!(number_after(b"Name:\tTgid: 3\nTgid:\tx\n", b"Tgid:"), None);
    }

    #[test]
    fn the_numbers_of_every_cgroup_below_are_read_and_one_without_a_list_has_none() {
        let cgroup = Folder::new("numbers");
        cgroup.file("cgroup.procs", "17\n0\n");
        cgroup.file("a/b/cgroup.procs", "18\n");
        let mut found = numbers_below(cgroup.path(), "cgroup.procs").unwrap();
        found.sort_unstable();
        assert_eq!(found, [0, 17, 18]);
    }
}
