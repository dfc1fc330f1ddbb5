//! The ledger: the format of its entries, and reading them.
//!
//! A ledger is a folder (by default [`DEFAULT_DIR`]) with one JSON file for each throttle that outlives its owner. Such
//! a throttle is attached the legacy way, or pinned.
//!
//! The engine writes an entry before it attaches (see `throttle-core`). The engine's next start and the auditor read
//! it. The folder is on a tmpfs. Every entry also names its boot, and an entry of another boot means nothing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kernel::{AttachType, CgroupId, LinkId, ProgramId, ProgramIdentity};
use serde::{Deserialize, Serialize};

use crate::Owner;
use crate::limits::{Burst, Departures, FqDevices, Limits, Rate, Traffic};

/// The default folder of the ledger.
pub const DEFAULT_DIR: &str = "/run/chadthrottle";

/// The version of the entry format that this build writes and reads.
pub const SCHEMA_VERSION: u32 = 1;

/// The progress of a throttle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The entry was written before the kernel calls. Some, all or none of the attachments may exist.
    Intent,
    /// Every attachment exists, and the throttle is armed.
    Attached,
    /// The owner has begun to remove the throttle.
    Removing,
}

/// One attached program of a throttle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedAttachment {
    /// The program's attach type.
    pub attach_type: AttachType,
    /// The program's id.
    pub program_id: ProgramId,
    /// The program's tag, 16 hexadecimal digits.
    pub tag: String,
    /// The program's load time, in nanoseconds since boot.
    pub loaded_at_ns: u64,
    /// The id of the link, once it exists. `None` for a legacy attachment.
    pub link_id: Option<LinkId>,
    /// The link's pin, which may not exist yet.
    pub pin: Option<PathBuf>,
    /// The limits, needed to arm the throttle again. `None` for the program for TCP, and in entries of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<RecordedLimits>,
    /// The cgroup of a former attachment, if it is not the entry's cgroup. That cgroup had the path before, was
    /// removed, and still has open sockets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former_cgroup: Option<CgroupId>,
}

impl RecordedAttachment {
    /// Returns the program's identity, which no other program of that boot has.
    pub fn identity(&self) -> ProgramIdentity {
        let (id, tag) = (self.program_id, self.tag.clone());
        ProgramIdentity { id, tag, loaded_at_ns: self.loaded_at_ns }
    }
}

/// The recorded limits of one direction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedLimits {
    /// The rate in bytes per second.
    pub rate: Rate,
    /// The burst in nanoseconds at the rate.
    pub burst_ns: u64,
    /// The class of traffic to limit.
    pub traffic: Traffic,
    /// The numbers of the devices where packets wait in `fq`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fq_devices: Vec<u32>,
}

impl From<&Limits> for RecordedLimits {
    fn from(limits: &Limits) -> Self {
        let devices = limits.departures.devices().unwrap_or_default();
        Self {
            rate: limits.rate,
            burst_ns: limits.burst.as_nanos(),
            traffic: limits.traffic,
            fq_devices: devices.numbers().collect(),
        }
    }
}

impl RecordedLimits {
    /// Returns the limits, with a burst of at most [`Burst::MAX`]. The ledger does not record queues for downloads.
    pub fn limits(&self) -> Limits {
        let devices: FqDevices = self.fq_devices.iter().copied().collect();
        Limits {
            rate: self.rate,
            burst: Burst::new(Duration::from_nanos(self.burst_ns)).unwrap_or(Burst::MAX),
            traffic: self.traffic,
            departures: if devices.is_empty() {
                Departures::Never
            } else {
                Departures::Fq(devices)
            },
        }
    }
}

/// The ledger entry of one throttle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The version of the format: [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The throttle's name, unique on this host and boot. The file is `NAME.json`.
    pub throttle: String,
    /// The process that added the throttle.
    pub owner: Owner,
    /// The throttle's progress.
    pub stage: Stage,
    /// The throttle is meant to outlive its owner.
    pub persist: bool,
    /// The absolute path of the cgroup's directory when the throttle was added.
    #[serde(with = "crate::serde_path")]
    pub cgroup_path: PathBuf,
    /// The cgroup's id. A new directory at the same path is another cgroup.
    pub cgroup_id: CgroupId,
    /// The attachments that exist, or that the engine was about to make.
    pub attachments: Vec<RecordedAttachment>,
    /// The owner is running, has seen its cgroup removed, and waits for a new cgroup at the path.
    #[serde(default, skip_serializing_if = "is_false")]
    pub waiting: bool,
    /// The inode number of the cgroup namespace in which `cgroup_path` was written; 0 if unknown. In another namespace
    /// the same path may name another cgroup.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cgroup_namespace: u64,
    /// The cgroup at the top of the mount through which `cgroup_path` leads. Below another top the same path names
    /// another cgroup. `None` if unknown, as in entries of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup_top: Option<CgroupId>,
    /// The throttle may put other people's programs out of force.
    #[serde(default, skip_serializing_if = "is_false")]
    pub displace: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(value: &bool) -> bool {
    !*value
}

impl Entry {
    /// Tells whether the throttle is complete and meant to outlive its owner.
    pub fn is_kept(&self) -> bool {
        self.persist && self.stage == Stage::Attached
    }

    /// Tells whether the entry has enough data to arm the throttle on another cgroup. Entries of older versions do not.
    pub fn can_be_armed(&self) -> bool {
        let mut limits = self.attachments.iter().filter(|it| it.former_cgroup.is_none());
        self.is_kept() && limits.any(|it| it.limits.is_some())
    }
}

/// The contents of a ledger.
#[derive(Debug, Default)]
pub struct Ledger {
    /// The readable entries, by file name.
    pub entries: Vec<(PathBuf, Entry)>,
    /// The unreadable files, which are torn, foreign, of another version, or denied. Readers leave them alone.
    pub unreadable: Vec<(PathBuf, String)>,
}

/// Reads the ledger in `dir`. A missing folder counts as an empty ledger.
///
/// Ignores files whose name does not end in `.json`.
///
/// # Errors
/// When the folder cannot be listed. [`Ledger::unreadable`] has the errors of single files.
pub fn read(dir: &Path) -> io::Result<Ledger> {
    let listing = match fs::read_dir(dir) {
        Ok(listing) => listing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Ledger::default()),
        Err(error) => return Err(error),
    };
    let paths = listing.map(|file| Ok(file?.path())).collect::<io::Result<Vec<_>>>()?;
    let entries = paths.into_iter().filter(|path| is_entry(path));
    Ok(Ledger::collect(entries.map(|path| (fs::read(&path), path))))
}

/// Tells from its name whether a file belongs to the ledger.
pub fn is_entry(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "json")
}

impl Ledger {
    /// Sorts the contents of the ledger's files into entries and unreadable files.
    pub fn collect(files: impl IntoIterator<Item = (io::Result<Vec<u8>>, PathBuf)>) -> Self {
        let mut ledger = Self::default();
        for (read, path) in files {
            match read {
                Ok(text) => match parse(&text) {
                    Ok(entry) => ledger.entries.push((path, entry)),
                    Err(why) => ledger.unreadable.push((path, why)),
                },
                // The owner has just removed the file.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => ledger.unreadable.push((path, error.to_string())),
            }
        }
        ledger.entries.sort_by(|a, b| a.0.cmp(&b.0));
        ledger.unreadable.sort();
        ledger
    }
}

/// Parses one entry.
///
/// # Errors
/// A sentence for people: not JSON, not an entry, or an entry of another version.
pub fn parse(text: &[u8]) -> Result<Entry, String> {
    #[derive(Deserialize)]
    struct Version {
        schema_version: u32,
    }
    let Version { schema_version } =
        serde_json::from_slice(text).map_err(|error| format!("not a ledger entry: {error}"))?;
    if schema_version != SCHEMA_VERSION {
        return Err(format!(
            "written in version {schema_version} of the ledger, this program reads {SCHEMA_VERSION}"
        ));
    }
    serde_json::from_slice(text).map_err(|error| format!("not a ledger entry: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            schema_version: SCHEMA_VERSION,
            throttle: "backup".into(),
            owner: Owner::this_process("1").unwrap(),
            stage: Stage::Attached,
            persist: true,
            cgroup_path: "/sys/fs/cgroup/a".into(),
            cgroup_id: CgroupId(9_310),
            attachments: Vec::new(),
            waiting: false,
            cgroup_namespace: 0,
            cgroup_top: None,
            displace: false,
        }
    }

    fn text(entry: &Entry) -> Vec<u8> {
        serde_json::to_vec(entry).unwrap()
    }

    #[test]
    fn an_entry_of_another_version_is_refused_before_it_is_understood() {
        assert_eq!(parse(&text(&entry())), Ok(entry()));
        let why = parse(br#"{"schema_version": 2, "all": "else"}"#).unwrap_err();
        assert!(why.starts_with("written in version 2 of the ledger"), "{why}");
    }

    /// Entries of an older version lack the later fields.
    #[test]
    fn an_entry_without_limits_is_read_and_one_with_them_keeps_them() {
        let attachment = r#"{"attach_type":"cgroup_inet_egress","program_id":7,"tag":"0","loaded_at_ns":1,
            "link_id":null,"pin":null}"#;
        let recorded: RecordedAttachment = serde_json::from_str(attachment).unwrap();
        assert_eq!(recorded.limits, None);
        let text = String::from_utf8(text(&entry())).unwrap();
        for later in ["waiting", "cgroup_namespace", "cgroup_top", "displace"] {
            assert!(!text.contains(later), "{text}");
        }

        let limits = Limits {
            rate: Rate::MIN,
            burst: Burst::DEFAULT,
            traffic: Traffic::Internet,
            departures: Departures::Fq([3, 5].into_iter().collect()),
        };
        let recorded = RecordedAttachment { limits: Some((&limits).into()), ..recorded };
        let read: RecordedAttachment =
            serde_json::from_str(&serde_json::to_string(&recorded).unwrap()).unwrap();
        assert_eq!(read.limits.unwrap().limits(), limits);
    }

    fn recorded(limits: Option<&Limits>, former_cgroup: Option<CgroupId>) -> RecordedAttachment {
        RecordedAttachment {
            attach_type: AttachType::INET_EGRESS,
            program_id: ProgramId(7),
            tag: "0".into(),
            loaded_at_ns: 1,
            link_id: Some(LinkId(8)),
            pin: Some("/sys/fs/bpf/x".into()),
            limits: limits.map(Into::into),
            former_cgroup,
        }
    }

    #[test]
    fn limits_of_every_kind_and_every_later_field_come_back_as_they_were() {
        for traffic in [Traffic::All, Traffic::Internet, Traffic::Local] {
            for departures in [
                Departures::Never,
                Departures::Queue,
                Departures::Fq([3].into_iter().collect()),
                Departures::Fq((1..=8).collect()),
            ] {
                for rate in [Rate::MIN, Rate::MAX] {
                    let limits = Limits { rate, burst: Burst::MAX, traffic, departures };
                    let entry = Entry {
                        attachments: vec![recorded(Some(&limits), Some(CgroupId(1)))],
                        waiting: true,
                        cgroup_namespace: 7,
                        cgroup_top: Some(CgroupId(2)),
                        displace: true,
                        ..entry()
                    };
                    let read = parse(&text(&entry)).unwrap();
                    assert_eq!(read, entry);
                    // A queue ends with its owner.
                    let departures = departures.devices().map_or(Departures::Never, Departures::Fq);
                    let kept = read.attachments[0].limits.as_ref().unwrap().limits();
                    assert_eq!(kept, Limits { departures, ..limits });
                }
            }
        }
    }

    #[test]
    fn only_a_finished_throttle_that_is_meant_to_stay_is_kept_and_only_with_limits_armed_again() {
        let limits = Limits {
            rate: Rate::MIN,
            burst: Burst::DEFAULT,
            traffic: Traffic::All,
            departures: Departures::Never,
        };
        let (old, new) = (recorded(None, None), recorded(Some(&limits), None));
        // Attachments that sockets of an earlier cgroup keep are not armed again.
        let former = recorded(Some(&limits), Some(CgroupId(1)));
        let lists = [
            (vec![], false),
            (vec![old.clone()], false),
            (vec![former.clone()], false),
            (vec![new.clone()], true),
            (vec![old, former, new], true),
        ];
        for stage in [Stage::Intent, Stage::Attached, Stage::Removing] {
            for persist in [false, true] {
                for (attachments, has_limits) in lists.clone() {
                    let entry = Entry { stage, persist, attachments, ..entry() };
                    let is_kept = persist && stage == Stage::Attached;
                    assert_eq!(entry.is_kept(), is_kept, "{entry:?}");
                    assert_eq!(entry.can_be_armed(), is_kept && has_limits, "{entry:?}");
                }
            }
        }
    }

    #[test]
    fn every_entry_of_a_ledger_is_read_or_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &[u8]| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let b = file("b.json", &text(&entry()));
        let a = file("a.json", &text(&entry()));
        let torn = file("torn.json", b"{");
        let denied = folder.path().join("folder.json");
        fs::create_dir(&denied).unwrap();
        file("lock", b"");
        // The owner removes the entry between listing and reading.
        std::os::unix::fs::symlink("gone", folder.path().join("gone.json")).unwrap();

        let ledger = read(folder.path()).unwrap();
        assert_eq!(ledger.entries, [(a, entry()), (b, entry())]);
        let unreadable: Vec<_> = ledger.unreadable.into_iter().map(|(path, _)| path).collect();
        assert_eq!(unreadable, [denied, torn]);
    }

    #[test]
    fn only_a_folder_that_does_not_exist_is_an_empty_ledger() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read(&folder.path().join("gone")).unwrap().entries.is_empty());
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(read(&file).is_err());
    }
}
