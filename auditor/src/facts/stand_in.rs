//! Describes in schemas how types of the crate `bpf` are written. That crate has no schemas of its own.

#![expect(dead_code, reason = "only the shapes are used")]

use schemars::JsonSchema;

/// A path; one that is not UTF-8 is written as its bytes.
#[derive(JsonSchema)]
#[schemars(rename = "Path")]
#[serde(untagged)]
pub enum Path {
    /// As it is.
    Utf8(String),
    /// As bytes.
    Bytes {
        /// The bytes, in hexadecimal digits.
        hex: String,
    },
}

/// The process that loaded a program, told apart from later processes with the same pid.
#[derive(JsonSchema)]
pub(crate) struct Owner {
    /// The pid, in the pid namespace `pid_namespace`.
    pid: u32,
    /// When the process started: field 22 of `/proc/PID/stat`, in clock ticks since boot.
    start_time: u64,
    /// The inode number of the pid namespace that `pid` was read in.
    pid_namespace: u32,
    /// `/proc/sys/kernel/random/boot_id`.
    boot_id: String,
    /// The version of chadthrottle.
    version: String,
}

/// How far a throttle has come.
#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stage {
    /// Written before the kernel is asked: some, all or none of the attachments may exist.
    Intent,
    /// Every attachment exists and the throttle is armed.
    Attached,
    /// The owner has begun to remove it.
    Removing,
}

/// One program at one place, as the ledger has it.
#[derive(JsonSchema)]
pub(crate) struct RecordedAttachment {
    /// Where on the cgroup.
    attach_type: String,
    /// The program, as it was when it was loaded.
    program_id: u32,
    /// Its tag, 16 hexadecimal digits.
    tag: String,
    /// When it was loaded, in nanoseconds since boot.
    loaded_at_ns: u64,
    /// The link, where there is one and it exists already.
    link_id: Option<u32>,
    /// Where the link is pinned, or will be.
    pin: Option<String>,
    /// What it allows, so that it can be armed again.
    #[serde(default)]
    limits: Option<RecordedLimits>,
    /// The cgroup that it is attached to, where that is not the entry's: one that had the path before, was removed, and
    /// still has open sockets.
    #[serde(default)]
    former_cgroup: Option<u64>,
}

/// What a direction of a throttle allows.
#[derive(JsonSchema)]
pub(crate) struct RecordedLimits {
    /// Bytes per second.
    rate: u64,
    /// The burst in nanoseconds at that rate.
    burst_ns: u64,
    /// Whose packets: `all`, `internet` or `local`.
    traffic: String,
    /// The devices through which packets wait in `fq`, by their numbers.
    #[serde(default)]
    fq_devices: Vec<u32>,
}

/// One throttle, as the ledger has it.
#[derive(JsonSchema)]
pub(crate) struct Entry {
    /// The version of the entry's shape.
    schema_version: u32,
    /// The throttle's name, unique on this host and boot; the file is called `NAME.json`.
    throttle: String,
    /// Who made it.
    owner: Owner,
    /// How far it has come.
    stage: Stage,
    /// Meant to outlive its owner.
    persist: bool,
    /// The cgroup's directory when the throttle was made, as an absolute path.
    cgroup_path: Path,
    /// The cgroup's id: a directory made again at that path is not the same cgroup.
    cgroup_id: u64,
    /// What was, or was about to be, attached.
    attachments: Vec<RecordedAttachment>,
    /// The owner has seen that the cgroup was removed, and waits for another one at that path.
    #[serde(default)]
    waiting: bool,
    /// The inode number of the cgroup namespace that the path was written in; left out where nobody knew.
    #[serde(default)]
    cgroup_namespace: u64,
    /// The id of the cgroup at the top of the mount that the path leads through; left out where nobody knew.
    #[serde(default)]
    cgroup_top: Option<u64>,
    /// Other people's programs may go out of force while it lasts.
    #[serde(default)]
    displace: bool,
}
