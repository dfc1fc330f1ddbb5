//! Defines the facts of a look, one type per kind: attachments, pins, holders, owners and more.

use std::path::PathBuf;

use bpf::Owner;
use kernel::pins::Held;
use kernel::{AttachType, CgroupId, LinkId, MapId, ProgramId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LoadedProgram, stand_in};

/// One program on one cgroup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AttachmentFact {
    /// The cgroup, relative to the cgroup2 mount, beginning with `/`.
    #[serde(with = "bpf::serde_path")]
    #[schemars(with = "stand_in::Path")]
    pub cgroup: PathBuf,
    /// Its id.
    #[schemars(with = "u64")]
    pub cgroup_id: CgroupId,
    /// Where on it.
    #[schemars(with = "String")]
    pub attach_type: AttachType,
    /// The program.
    #[schemars(with = "u32")]
    pub program_id: ProgramId,
    /// The flags of the list (`BPF_F_ALLOW_OVERRIDE` 1, `BPF_F_ALLOW_MULTI` 2, neither 0).
    pub list_flags: u32,
    /// The flags of this program, where the kernel tells (6.0 and newer): those of its list, also for an LSM
    /// list, whose `list_flags` are 0.
    pub program_flags: Option<u32>,
    /// How many programs are attached to this cgroup and attach type; the kernel's limit is 64.
    pub slots_used: u32,
    /// What the throttle's own state says, for programs with chadthrottle's state map.
    pub state: Option<ThrottleFact>,
}

/// A throttle's state, as its map in the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ThrottleFact {
    /// The throttle limits. Its owner disarms it before detaching it.
    pub armed: bool,
    /// Bytes per second.
    pub rate: u64,
    /// Burst, in nanoseconds at that rate.
    pub burst_ns: u64,
    /// `all`, `internet` or `local`.
    pub traffic: String,
    /// What is above the rate waits in `fq`, at a device or in a queue of the throttle's own, rather than being dropped.
    #[serde(default)]
    pub departures: bool,
    /// The numbers (ifindex) of the devices with `fq` where that is, of what is sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fq_devices: Vec<u32>,
    /// Packets and bytes that passed, of the traffic that is limited.
    pub passed: Count,
    /// The same of what was dropped, and so lost.
    pub dropped: Count,
    /// The same of TCP's segments that were held back and sent later, not lost. Each attempt counts.
    #[serde(default)]
    pub held_back: Count,
}

/// Packets and bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes, from the IP header on.
    pub bytes: u64,
}

/// A loaded program that can be on a cgroup, or that is of a queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProgramFact {
    /// What is known of any program.
    #[serde(flatten)]
    pub loaded: LoadedProgram,
    /// What its instructions take, in bytes.
    pub memlock_bytes: u64,
    /// Who its `bpf_metadata_*` variables say made it.
    #[schemars(with = "Option<stand_in::Owner>")]
    pub owner: Option<Owner>,
}

/// One cgroup link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LinkFact {
    /// Its id.
    #[schemars(with = "u32")]
    pub id: LinkId,
    /// The program that it holds.
    #[schemars(with = "u32")]
    pub program_id: ProgramId,
    /// The cgroup that it attaches the program to; 0 for a defunct link.
    #[schemars(with = "u64")]
    pub cgroup_id: CgroupId,
    /// Where on it; none for a type that this program does not know.
    #[schemars(with = "Option<String>")]
    pub attach_type: Option<AttachType>,
}

/// One tcx link: a program on a network device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceLinkFact {
    /// Its id.
    #[schemars(with = "u32")]
    pub id: LinkId,
    /// The program that it holds.
    #[schemars(with = "u32")]
    pub program_id: ProgramId,
    /// The device's number in its network namespace, which the kernel does not name; 0 for a defunct link.
    pub device: u32,
    /// `tcx_ingress` or `tcx_egress`.
    pub attach_type: String,
}

/// A network device that is named as one of our queues: whose it is, its alias says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceFact {
    /// The inode number of the network namespace that it is in.
    pub network_namespace: u64,
    /// A way into that namespace, for people; none for the auditor's own.
    pub namespace_path: Option<String>,
    /// Its number there.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// It is of the kind that queues are made of.
    pub is_ifb: bool,
    /// What was written on it.
    pub alias: Option<String>,
}

impl DeviceFact {
    /// Returns the owner; `None` if the device is not a queue of ours.
    pub fn owner(&self) -> Option<Owner> {
        bpf::devices::owner_of(&self.name, self.is_ifb, self.alias.as_deref())
    }
}

/// Names the device for people: `device chadq4711a (7)`, with its namespace if that is not the auditor's own.
impl std::fmt::Display for DeviceFact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "device {} ({})", self.name, self.index)?;
        match &self.namespace_path {
            Some(path) => write!(f, " in {path}"),
            None => Ok(()),
        }
    }
}

/// What a pin is of, or what a process holds.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Object {
    /// A program.
    Program(#[schemars(with = "u32")] ProgramId),
    /// A link.
    Link(#[schemars(with = "u32")] LinkId),
    /// A map.
    Map(#[schemars(with = "u32")] MapId),
}

impl From<Held> for Object {
    fn from(held: Held) -> Self {
        match held {
            Held::Program(id) => Self::Program(id),
            Held::Link(id) => Self::Link(id),
            Held::Map(id) => Self::Map(id),
        }
    }
}

/// A file in a bpffs that holds something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PinFact {
    /// The file, as an absolute path.
    #[serde(with = "bpf::serde_path")]
    #[schemars(with = "stand_in::Path")]
    pub path: PathBuf,
    /// What it holds.
    pub object: Object,
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Process {
    /// Its pid, in the auditor's pid namespace.
    pub pid: u32,
    /// Its name.
    pub comm: String,
}

/// A process that holds something through open files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HolderFact {
    /// Which.
    #[serde(flatten)]
    pub process: Process,
    /// What it holds.
    pub objects: Vec<Object>,
}

/// Whether an owner lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OwnerFact {
    /// Who.
    #[schemars(with = "stand_in::Owner")]
    pub owner: Owner,
    /// A process with that pid and start time runs, in this boot. None: not to be told from here
    /// (another pid namespace).
    pub alive: Option<bool>,
}
