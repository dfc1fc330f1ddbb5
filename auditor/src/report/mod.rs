//! Defines the report, which `--format json` prints and which the text comes from.
//!
//! The shape is stable. [`SCHEMA_VERSION`] 1 may gain fields, but never renames or removes one.

mod make;
mod places;

use kernel::{AttachType, CgroupId, LinkId, MapId, ProgramId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) use self::make::cgroup;
pub use self::make::report;
pub use self::places::{FullPlace, PlacedPrograms};
use crate::actions::{Action, Step};
use crate::facts::{self, DeviceFact, Host, Note, Process, Timings, Tool};
use crate::judge::{Claim, Finding, Verdict};

/// The version of the report.
pub const SCHEMA_VERSION: u32 = 1;

/// One audit, as `chadthrottle-audit scan --format json` prints it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Report")]
pub struct Report<R = Vec<Step>> {
    /// The version of this shape: 1.
    pub schema_version: u32,
    /// The program that took the snapshot.
    pub tool: Tool,
    /// Where it was taken.
    pub host: Host,
    /// When the last look was taken, in RFC 3339, UTC.
    pub taken_at: String,
    /// How long the whole took.
    pub duration_ms: f64,
    /// Where the time went.
    pub timings_ms: Timings,
    /// How the cgroups were enumerated.
    pub method: String,
    /// What it comes to.
    pub verdict: Verdict,
    /// What was visited and what was not.
    pub coverage: Coverage,
    /// Attachments: those of ours, or all that were asked for.
    pub attachments: Vec<Attachment>,
    /// Programs in scope without an attachment, and defunct links of any of them.
    pub programs: Vec<Program>,
    /// Network devices of queues of ours; with `all` also those of others that are named so.
    #[serde(default)]
    pub devices: Vec<Device>,
    /// The leaks, once more, with what to do about each.
    pub leaks: Vec<Leak<R>>,
    /// Places that take no program more, or few: 48 of the 64 slots are used, whoever uses them.
    #[serde(default)]
    pub full_places: Vec<FullPlace>,
    /// Numbers.
    pub summary: Summary,
    /// The earlier snapshot whose leaks are known; null where none was given.
    #[serde(default)]
    pub baseline: Option<BaselineInfo>,
    /// What was asked for: attachments at this cgroup and below it. For the text and the results only.
    #[serde(skip)]
    pub root: String,
    /// The options that ask for the same scope on the command line, each with a space before it. For the
    /// text only.
    #[serde(skip)]
    pub scope_options: String,
    /// Whether every attach type was asked for: else what is attached nowhere is not judged. For the results
    /// only.
    #[serde(skip)]
    pub has_every_type: bool,
}

impl<R> Report<R> {
    /// Replaces the remedy of each leak, for example steps by words.
    pub fn map_remedies<T>(self, map: impl Fn(R) -> T) -> Report<T> {
        let Self {
            schema_version,
            tool,
            host,
            taken_at,
            duration_ms,
            timings_ms,
            method,
            verdict,
            coverage,
            attachments,
            programs,
            devices,
            leaks,
            full_places,
            summary,
            baseline,
            root,
            scope_options,
            has_every_type,
        } = self;
        let leaks = leaks.into_iter().map(|leak| leak.map_remedy(&map)).collect();
        Report {
            schema_version,
            tool,
            host,
            taken_at,
            duration_ms,
            timings_ms,
            method,
            verdict,
            coverage,
            attachments,
            programs,
            devices,
            leaks,
            full_places,
            summary,
            baseline,
            root,
            scope_options,
            has_every_type,
        }
    }
}

impl<R> Leak<R> {
    fn map_remedy<T>(self, map: impl Fn(R) -> T) -> Leak<T> {
        let Self {
            finding,
            reason,
            cgroup,
            attach_type,
            program,
            device,
            device_links,
            link,
            pins,
            remedy,
            known,
        } = self;
        let remedy = map(remedy);
        Leak {
            finding,
            reason,
            cgroup,
            attach_type,
            program,
            device,
            device_links,
            link,
            pins,
            remedy,
            known,
        }
    }
}

impl Leak {
    /// Tells whether a step of the remedy does something.
    pub fn is_removable(&self) -> bool {
        self.remedy.iter().any(|step| !matches!(step.action, Action::Cannot(_)))
    }
}

/// An earlier snapshot whose leaks are known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BaselineInfo {
    /// When it was taken, in RFC 3339, UTC.
    pub taken_at: String,
    /// Its file, as it was named. For the text only.
    #[serde(skip)]
    pub file: String,
}

/// What was visited and what was not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Coverage {
    /// Cgroups whose programs were asked for.
    pub cgroups_visited: u64,
    /// Cgroups that went away meanwhile.
    pub cgroups_vanished: u64,
    /// Cgroups that could not be asked.
    pub cgroups_denied: u64,
    /// The attach types that the kernel knows and that were queried.
    #[schemars(with = "Vec<String>")]
    pub attach_types: Vec<AttachType>,
    /// Programs whose info was read.
    pub programs_seen: u64,
    /// Network namespaces whose devices were looked at for queues of ours; null where they were not asked for.
    #[serde(default)]
    pub network_namespaces: Option<u64>,
    /// Links that were being made whenever they were asked for, so that nothing could be read of them. They make nothing
    /// incomplete but what they may attach.
    #[serde(default, skip_serializing_if = "facts::is_zero")]
    pub changing_links: u64,
    /// Lists of attached programs that changed each time that they were read; what was there of them last is in the report.
    #[serde(default, skip_serializing_if = "facts::is_zero")]
    pub changing_lists: u64,
    /// What could not be seen, or not be judged.
    pub gaps: Vec<Note>,
    /// What was not looked at or is left alone, and is no reason to doubt the verdict.
    #[serde(default)]
    pub notes: Vec<Note>,
}

/// One program on one cgroup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Attachment {
    /// The cgroup.
    pub cgroup: Cgroup,
    /// Where on it.
    #[schemars(with = "String")]
    pub attach_type: AttachType,
    /// What is attached.
    pub program: ProgramInfo,
    /// Through which link; null for a legacy attachment.
    pub link: Option<Link>,
    /// `multi` or `override`; neither for a list of one. (The kernel does not tell of `BPF_F_PREORDER`: seen
    /// on 6.18.)
    pub attach_flags: Vec<String>,
    /// How many programs are attached to this cgroup and attach type.
    pub slots_used: u32,
    /// How many the list takes: 64, or 1 where it is neither `multi` nor empty.
    #[serde(default = "Attachment::most_slots")]
    pub slots: u32,
    /// Pins of the link and of the program.
    pub pins: Vec<String>,
    /// Processes that hold either.
    pub holders: Vec<Process>,
    /// Who answers for it.
    pub owner: Option<Claim>,
    /// What it was found to be.
    pub finding: Finding,
    /// Why.
    pub reason: String,
}

impl Attachment {
    /// Returns the kernel's limit for a MULTI list.
    fn most_slots() -> u32 {
        u32::try_from(kernel::list::MAX_PROGRAMS).unwrap_or(u32::MAX)
    }
}

impl ProgramInfo {
    /// Returns the program's name for people: the full name if known.
    pub fn shown_name(&self) -> Option<&str> {
        self.full_name.as_deref().or(self.name.as_deref())
    }
}

/// A program without an attachment, or one of its defunct links.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Program {
    /// The program.
    pub program: ProgramInfo,
    /// The tcx links that attach it to network devices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub device_links: Vec<DeviceLink>,
    /// Its pins, or those of the defunct link.
    pub pins: Vec<String>,
    /// Processes that hold it, or the defunct link.
    pub holders: Vec<Process>,
    /// What it was found to be.
    pub finding: Finding,
    /// Why.
    pub reason: String,
}

/// A network device that is named as a queue of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Device {
    /// The device.
    pub device: DeviceInfo,
    /// Who answers for it.
    pub owner: Option<Claim>,
    /// What it was found to be.
    pub finding: Finding,
    /// Why.
    pub reason: String,
}

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceInfo {
    /// Its name.
    pub name: String,
    /// Its number in its network namespace.
    pub index: u32,
    /// The inode number of that namespace.
    pub network_namespace: u64,
    /// A way into that namespace; null for the auditor's own.
    pub namespace_path: Option<String>,
}

impl From<&DeviceFact> for DeviceInfo {
    fn from(device: &DeviceFact) -> Self {
        Self {
            name: device.name.clone(),
            index: device.index,
            network_namespace: device.network_namespace,
            namespace_path: device.namespace_path.clone(),
        }
    }
}

// `R` is the remedy: the steps, or the words for them. (A doc comment would stand in the schema.)
/// A leak.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Leak")]
pub struct Leak<R = Vec<Step>> {
    /// Which.
    pub finding: Finding,
    /// Why it is one.
    pub reason: String,
    /// Where, if it is attached.
    pub cgroup: Option<Cgroup>,
    /// Where on the cgroup.
    #[schemars(with = "Option<String>")]
    pub attach_type: Option<AttachType>,
    /// The program; null where a network device is leaked.
    pub program: Option<ProgramInfo>,
    /// The network device that is leaked, if one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceInfo>,
    /// The tcx links that attach it to network devices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub device_links: Vec<DeviceLink>,
    /// The link, if there is one.
    pub link: Option<Link>,
    /// Pins of the link and of the program.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pins: Vec<String>,
    /// What to do about it, for people.
    pub remedy: R,
    /// It was there at the time of the baseline, and does not count.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub known: bool,
}

/// A cgroup.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Cgroup {
    /// Its path, relative to the cgroup2 mount, beginning with `/`. Bytes that are not UTF-8 are replaced.
    pub path: String,
    /// The path's bytes, in hexadecimal digits, where `path` could not keep them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_hex: Option<String>,
    /// Its id.
    #[schemars(with = "u64")]
    pub id: CgroupId,
}

/// A program. What is null could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProgramInfo {
    /// Its id.
    #[schemars(with = "u32")]
    pub id: ProgramId,
    /// Its name.
    pub name: Option<String>,
    /// The name that its author gave it, where the kernel has cut that and the program's type information tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full_name: Option<String>,
    /// Its tag.
    pub tag: Option<String>,
    /// Its type, as bpftool names it.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// When it was loaded, in RFC 3339, UTC.
    pub loaded_at: Option<String>,
    /// Its maps.
    #[schemars(with = "Vec<u32>")]
    pub map_ids: Vec<MapId>,
    /// What its instructions take, in bytes.
    pub memlock_bytes: Option<u64>,
}

/// A link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Link {
    /// Its id.
    #[schemars(with = "u32")]
    pub id: LinkId,
}

/// A tcx link, which is on a network device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceLink {
    /// Its id.
    #[schemars(with = "u32")]
    pub id: LinkId,
    /// The device's number in its network namespace, which the kernel does not name; null where it is gone.
    pub device: Option<u32>,
    /// `tcx_ingress` or `tcx_egress`.
    pub attach_type: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(value: &usize) -> bool {
    *value == 0
}

/// Numbers. Most are of attachments; `unowned` and `leaked` count programs without an attachment as well, and
/// `leaked` network devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    /// All of them, whoever's they are.
    pub attachments: usize,
    /// Those that are active.
    pub active: usize,
    /// Those that are kept on purpose.
    pub pinned: usize,
    /// Links and programs whose throttle waits for another cgroup at its path; of no attachments.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub waiting: usize,
    /// Those of others.
    pub foreign: usize,
    /// What was asked for by name and nothing says whose it is; programs without an attachment and defunct links, too.
    #[serde(default)]
    pub unowned: usize,
    /// Those that could not be judged; network devices of queues, too.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unknown: usize,
    /// Network devices of queues whose owners live; of no attachments.
    #[serde(default)]
    pub devices: usize,
    /// Leaks, but those that are known.
    pub leaked: usize,
    /// Leaks that were there at the time of the baseline.
    #[serde(default)]
    pub known: usize,
    /// The most programs on one cgroup and attach type, whoever's they are. The kernel's limit is 64.
    #[serde(default)]
    pub slots_used_max: u32,
}
