//! Defines facts about a host. The verdict depends on nothing else.
//!
//! The auditor can write a snapshot to a file and judge it later, elsewhere, without root. A snapshot records as a
//! [`Gap`] what could not be seen, so an absent fact never counts as "none".

mod inventory;
mod objects;
mod stand_in;

use std::path::PathBuf;

use bpf::ledger::Entry;
use kernel::{AttachType, CgroupId, LinkId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) use self::inventory::in_namespace;
pub use self::inventory::{
    AnyLinkFact, DeviceProgramFact, Inventory, LoadedProgram, MapFact, SlotFact,
};
pub use self::objects::{
    AttachmentFact, Count, DeviceFact, DeviceLinkFact, HolderFact, LinkFact, Object, OwnerFact,
    PinFact, Process, ProgramFact, ThrottleFact,
};
pub use self::stand_in::Path as WrittenPath;

/// The version of the snapshot file.
pub const SCHEMA_VERSION: u32 = 1;

/// What `chadthrottle-audit snapshot` writes: facts about a host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Snapshot {
    /// The version of this shape: 1.
    pub schema_version: u32,
    /// The program that wrote it.
    pub tool: Tool,
    /// Where it was taken.
    pub host: Vantage,
    /// What was asked for.
    pub scope: Scope,
    /// One look, or, where the first one showed suspects, several: the last is the one to judge, and
    /// the one before it tells a leak from a throttle that was just being set up or taken down.
    /// Never empty.
    pub looks: Vec<Look>,
    /// From the first system call to the last, in milliseconds.
    pub duration_ms: f64,
    /// Where the time went, over all looks.
    pub timings_ms: Timings,
}

/// A program and its version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tool {
    /// `chadthrottle-audit`.
    pub name: String,
    /// Its version.
    pub version: String,
}

impl Tool {
    /// Describes this program.
    pub fn this() -> Self {
        Self {
            name: "chadthrottle-audit".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// A host, during one boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Host {
    /// The kernel's release, as `uname -r` prints it.
    pub kernel: String,
    /// The host's name.
    pub hostname: String,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
}

/// Where a snapshot was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Vantage {
    /// The host.
    #[serde(flatten)]
    pub host: Host,
    /// The inode number of the auditor's own pid namespace. An owner of another one has a pid
    /// that means nothing here.
    pub pid_namespace: u32,
}

/// What the audit was asked to look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Scope {
    /// Only attachments at this cgroup and below it, relative to the cgroup2 mount; `/` is all.
    #[serde(with = "bpf::serde_path")]
    #[schemars(with = "stand_in::Path")]
    pub root: PathBuf,
    /// Names of programs that count as ours, as globs; a name is what the kernel kept of it, at most
    /// 15 characters.
    pub programs: Vec<String>,
    /// The attach types that were asked for, whether or not this kernel knows them.
    #[schemars(with = "Vec<String>")]
    pub attach_types: Vec<AttachType>,
}

/// Milliseconds spent in each part of an audit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Timings {
    /// Loading a program for the walk, where the method needs one.
    pub load: f64,
    /// Walking and querying cgroups.
    pub walk: f64,
    /// Programs, links, maps and their info.
    pub objects: f64,
    /// Processes that hold them.
    pub holders: f64,
    /// Pins.
    pub pins: f64,
    /// Waiting between two looks.
    pub settle: f64,
}

/// The host at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Look {
    /// When, in RFC 3339, UTC.
    pub taken_at: String,
    /// How the cgroups were enumerated: `query` or `iter`.
    pub method: String,
    /// What was visited and what was not.
    pub coverage: Coverage,
    /// Every attachment in scope, ours or not, in the order in which the kernel runs them within
    /// one cgroup and attach type.
    pub attachments: Vec<AttachmentFact>,
    /// Every cgroup-attachable program that is loaded, whatever is attached, and those of a queue of ours
    /// (`sched_cls`), by id.
    pub programs: Vec<ProgramFact>,
    /// Every cgroup link, by id.
    pub links: Vec<LinkFact>,
    /// Every tcx link of one of the programs, by id.
    #[serde(default)]
    pub device_links: Vec<DeviceLinkFact>,
    /// Every pin of one of the programs or links; with an inventory of whatever is in that.
    pub pins: Vec<PinFact>,
    /// Every process that holds one of the programs or links; with an inventory whatever is in that.
    pub holders: Vec<HolderFact>,
    /// Owners named by metadata or by the ledger that were looked up, and whether they live.
    pub owners: Vec<OwnerFact>,
    /// The readable entries of the ledger.
    #[schemars(with = "Vec<stand_in::Entry>")]
    pub ledger: Vec<Entry>,
    /// Cgroups that entries of the ledger name and that have been removed, by id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<u64>")]
    pub removed_cgroups: Vec<CgroupId>,
    /// Every `ifb` device that is named as one of our queues, and whatever else is named so and was met.
    #[serde(default)]
    pub devices: Vec<DeviceFact>,
    /// Everything of BPF, whatever it is for; none where that was not asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inventory: Option<Inventory>,
}

/// The type of a queue's device programs, which tcx links attach. The auditor reads only programs of this type that
/// name an owner. Other tools may attach such programs in ways that the auditor does not look at.
pub const DEVICE_PROGRAM: &str = "sched_cls";

/// What was visited and what was not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Coverage {
    /// Cgroups whose programs were asked for.
    pub cgroups_visited: u64,
    /// Cgroups that went away between being listed and being asked: normal on a busy host.
    pub cgroups_vanished: u64,
    /// Cgroups that could not be asked: each has a gap.
    pub cgroups_denied: u64,
    /// The attach types that this kernel knows and that were queried.
    #[schemars(with = "Vec<String>")]
    pub attach_types: Vec<AttachType>,
    /// Programs whose info was read.
    pub programs_seen: u64,
    /// Network namespaces whose devices were looked at for queues of ours; none where they were not asked for.
    #[serde(default)]
    pub network_namespaces: Option<u64>,
    /// Links that were being made whenever they were asked for: nothing can be read of them yet. That is ordinary on a busy
    /// host, and no gap.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<u32>")]
    pub changing_links: Vec<LinkId>,
    /// Lists of programs of which one had gone each time that they were read: what was there of the last one counts.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub changing_lists: u64,
    /// Everything else that could not be seen.
    pub gaps: Vec<Gap>,
    /// What was not looked at, and is no reason to doubt the rest.
    #[serde(default)]
    pub notes: Vec<Note>,
}

/// Something that nobody looked at or could see, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Note {
    /// What.
    pub what: String,
    /// Why, and what to do about it.
    pub why: String,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // Serde calls it with a reference.
pub(crate) fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Coverage {
    /// Adds the coverage of the look that this one continues. `known` are gaps that both looks have.
    pub(crate) fn continue_from(&mut self, before: &Self, known: &[Gap]) {
        // The earlier look has already counted the cgroups that this one queries again.
        self.cgroups_visited = before.cgroups_visited;
        self.cgroups_vanished += before.cgroups_vanished;
        self.cgroups_denied += before.cgroups_denied;
        self.changing_lists += before.changing_lists;
        let of_cgroups = before
            .gaps
            .iter()
            .filter(|gap| gap.about == Subject::Cgroups && !known.contains(gap))
            .cloned();
        self.gaps.extend(of_cgroups);
    }
}

impl From<Gap> for Note {
    fn from(gap: Gap) -> Self {
        Self { what: gap.what, why: gap.why }
    }
}

/// Something that could not be seen. One gap makes the audit incomplete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Gap {
    /// What kind of fact is missing: it decides which judgements cannot be made without it.
    pub about: Subject,
    /// What: a path, a program, a process.
    pub what: String,
    /// Why, and what to do about it.
    pub why: String,
}

/// What a [`Gap`] hides. It is for the judgement, not for the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// Cgroups, and with them what is attached there.
    Cgroups,
    /// Programs and maps: whose a program is, and what its state says.
    Programs,
    /// Links: without them nobody knows which attachments are legacy ones.
    Links,
    /// Processes: whether they live, and what they hold.
    Processes,
    /// What single processes hold that some policy hides even from one who may look into every other.
    HiddenProcesses,
    /// Pins.
    Pins,
    /// Pins in a bpffs that is not mounted where the auditor runs: nobody knows whether there are any.
    HiddenPins,
    /// Entries of the ledger.
    Ledger,
    /// The ledger of the host, where the auditor runs among other files.
    HiddenLedger,
    /// Network devices of our queues.
    Devices,
}
