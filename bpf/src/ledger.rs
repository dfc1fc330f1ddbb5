//! What owners leave in writing: the entries of the ledger, and how they are read.
//!
//! A ledger is a folder (by default [`DEFAULT_DIR`]) with one JSON file for each throttle that the end
//! of its owner would not undo: attached the legacy way, or pinned. The engine writes entries ahead
//! (see `throttle-core`); the engine's next start and the auditor read them. The folder is on a tmpfs,
//! and every entry names its boot: what another boot wrote means nothing now.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{AttachType, CgroupId, LinkId, Owner, ProgramId};

/// Where the ledger is unless somebody says otherwise.
pub const DEFAULT_DIR: &str = "/run/chadthrottle";

/// The version of the entries that this build writes and reads.
pub const SCHEMA_VERSION: u32 = 1;

/// How far a throttle has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Written before the kernel is asked: some, all or none of the attachments may exist.
    Intent,
    /// Every attachment exists and the throttle is armed.
    Attached,
    /// The owner has begun to remove it.
    Removing,
}

/// One program at one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedAttachment {
    /// Where on the cgroup.
    pub attach_type: AttachType,
    /// The program, as it was when it was loaded.
    pub program_id: ProgramId,
    /// Its tag, 16 hexadecimal digits.
    pub tag: String,
    /// When it was loaded, in nanoseconds since boot.
    pub loaded_at_ns: u64,
    /// The link, where there is one and it exists already.
    pub link_id: Option<LinkId>,
    /// Where the link is pinned, or will be.
    pub pin: Option<PathBuf>,
}

/// One throttle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The throttle's name, unique on this host and boot; the file is called `NAME.json`.
    pub throttle: String,
    /// Who made it.
    pub owner: Owner,
    /// How far it has come.
    pub stage: Stage,
    /// Meant to outlive its owner.
    pub persist: bool,
    /// The cgroup's directory when the throttle was made, as an absolute path.
    #[serde(with = "crate::serde_path")]
    pub cgroup_path: PathBuf,
    /// The cgroup's id: a directory made again at that path is not the same cgroup.
    pub cgroup_id: CgroupId,
    /// What was, or was about to be, attached.
    pub attachments: Vec<RecordedAttachment>,
}

/// A ledger as it was found.
#[derive(Debug, Default)]
pub struct Ledger {
    /// The entries that could be read, by file name.
    pub entries: Vec<(PathBuf, Entry)>,
    /// Files that could not: torn, foreign, of another version, or denied. They are left alone.
    pub unreadable: Vec<(PathBuf, String)>,
}

/// Reads the ledger in `dir`. A folder that does not exist is an empty ledger.
///
/// Files that do not end in `.json` are none of the ledger's.
///
/// # Errors
/// When the folder itself cannot be listed; what is wrong with one file is in
/// [`Ledger::unreadable`] instead.
pub fn read(dir: &Path) -> io::Result<Ledger> {
    let mut ledger = Ledger::default();
    let listing = match fs::read_dir(dir) {
        Ok(listing) => listing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(ledger),
        Err(error) => return Err(error),
    };
    for file in listing {
        let path = file?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        match fs::read(&path) {
            Ok(text) => match parse(&text) {
                Ok(entry) => ledger.entries.push((path, entry)),
                Err(why) => ledger.unreadable.push((path, why)),
            },
            // Its owner has just removed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => ledger.unreadable.push((path, error.to_string())),
        }
    }
    ledger.entries.sort_by(|a, b| a.0.cmp(&b.0));
    ledger.unreadable.sort();
    Ok(ledger)
}

/// Reads one entry.
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
