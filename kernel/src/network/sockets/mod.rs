//! The network sockets and the tun and tap devices of a cgroup's processes, each socket with the cgroup that it belongs
//! to.
//!
//! A socket belongs to the cgroup in which it was made, and an accepted one to its listener's. So a process may have
//! sockets that no program on its cgroup sees. Packets of `AF_PACKET`, `AF_XDP` and tap devices belong to no cgroup.

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

/// A process with an open socket or device.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// The process's pid in this pid namespace.
    pub pid: u32,
    /// The process's name (`/proc/PID/comm`), as text.
    pub name: String,
}

/// An open socket or device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Open {
    /// A network socket.
    Socket(Socket),
    /// A tun or tap device.
    Device(Device),
}

/// A network socket. Sockets within this host (Unix, netlink) do not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Socket {
    /// The socket's inode number, which no other existing socket has.
    pub inode: u64,
    /// The kind of packets that the socket sends and receives.
    pub kind: SocketKind,
    /// The cgroup that the socket belongs to.
    pub cgroup: CgroupId,
    /// The socket's cgroup is the requested one or a descendant, even if it was removed.
    pub is_inside: bool,
    /// The socket accepts connections, which will belong to the same cgroup.
    pub listens: bool,
    /// The bytes of data sent and received so far. Only TCP counts them.
    pub traffic: Option<Traffic>,
    /// The inode number of the socket's network namespace.
    pub network: u32,
    /// The device that the socket sent through last, if known.
    pub device: Option<String>,
}

/// The kinds of network socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SocketKind {
    /// TCP.
    Tcp,
    /// Other protocols over IP: UDP, ICMP, raw, SCTP.
    Ip,
    /// `AF_PACKET`: whole frames, which bypass the IP layer and every cgroup.
    Packet,
    /// `AF_XDP`: whole frames, which bypass the IP layer and every cgroup.
    Xdp,
}

/// Bytes of a socket's data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes sent, including retransmissions.
    pub sent: u64,
    /// Bytes received.
    pub received: u64,
}

/// A tun or tap device that a process has open. The process generates the packets that come from the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// The device's name.
    pub name: String,
    /// The device carries Ethernet frames (tap) or IP packets (tun). `None` if it is not in the process's network
    /// namespace, or could not be read.
    pub is_tap: Option<bool>,
    /// The inode number of the process's network namespace, if readable.
    pub network: Option<u64>,
}

/// An open file of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenFile {
    /// The process.
    pub process: Process,
    /// The socket or device.
    pub what: Open,
}

/// A loaded program that the kernel runs for each open file. Each look at one cgroup's processes costs only the walk
/// over the files.
#[must_use = "it looks when it is told to"]
#[derive(Debug)]
pub struct Sockets {
    program: OwnedFd,
    path: PathBuf,
    is_threaded: bool,
}

impl Sockets {
    /// Loads the program for the processes of a cgroup and its descendants. The program is not attached, and ends with
    /// this process.
    ///
    /// Needs Linux 5.15 with type information (`CONFIG_DEBUG_INFO_BTF`), `CAP_BPF` and `CAP_PERFMON`.
    ///
    /// # Errors
    /// `Unsupported` without such an iterator or without type information; `Denied` without the capabilities.
    pub fn load(cgroup: &Cgroup) -> Result<Self> {
        let fail = |error: libbpf_rs::Error| Error::of_load(Call::Iterate, WHAT, &error);
        let path = cgroup.path().to_owned();
        let kind = path.join("cgroup.type");
        // The hierarchy's root has no such file, and is never threaded.
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
        // This is a descriptor of our own, because the skeleton closes its descriptor when it is dropped.
        let program = skeleton.progs.walk_files.as_fd().try_clone_to_owned();
        let program = program.map_err(|error| Error::from_io(Call::Iterate, WHAT, &error))?;
        Ok(Self { program, path, is_threaded })
    }

    /// Lists the open sockets and devices of the processes, in every network namespace. A socket that several processes
    /// share is listed for each of them.
    ///
    /// Does not see processes outside this pid namespace, sockets that nobody has accepted yet, and sockets that only a
    /// registered file of `io_uring` holds.
    ///
    /// # Errors
    /// When the iterator cannot be run. `EIO` when this build does not understand its output.
    pub fn look(&self) -> Result<Vec<OpenFile>> {
        let told = all_printed(self.program.as_fd(), WHAT)?;
        let records = record::parse(&told).ok_or_else(|| {
            Error::found(Call::Iterate, WHAT, Errno::EIO)
                .with_detail("what it told is not what it should tell")
        })?;
        // In a threaded cgroup, the first thread of a member may be elsewhere.
        let threaded =
            if self.is_threaded { Some(processes_of_threads(&self.path)?) } else { None };
        let is_wanted = |record: &record::Record| {
            threaded.as_ref().is_none_or(|members| members.contains(&record.process))
        };
        // A thread with its own descriptor table lists shared sockets again.
        let mut met = HashSet::new();
        let once = |it: &record::Record| it.is_device || met.insert((it.process, it.inode));
        Ok(records.into_iter().filter(is_wanted).filter(once).filter_map(file).collect())
    }

    /// Tells whether a look misses processes of the cgroup or its descendants, because they are outside this pid
    /// namespace.
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

/// Returns the processes with a thread in a threaded cgroup or its descendants.
fn processes_of_threads(cgroup: &Path) -> Result<HashSet<u32>> {
    let mut found = HashSet::new();
    for thread in numbers_below(cgroup, "cgroup.threads")? {
        let path = PathBuf::from(format!("/proc/{thread}/status"));
        let status = unless_gone(&path, fs::read(&path))?.unwrap_or_default();
        found.extend(number_after(&status, b"Tgid:"));
    }
    Ok(found)
}

/// Parses the number after a name in a file of `/proc`. Other lines need not be text.
fn number_after(text: &[u8], name: &[u8]) -> Option<u32> {
    text.split(|&byte| byte == b'\n').find_map(|line| {
        std::str::from_utf8(line.strip_prefix(name)?.trim_ascii()).ok()?.parse().ok()
    })
}

/// Reads the numbers in one file of a cgroup and of each descendant. A cgroup that vanishes meanwhile has none.
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
