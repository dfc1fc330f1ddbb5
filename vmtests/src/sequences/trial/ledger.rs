//! Takes steps that damage the ledger's files.

use std::path::PathBuf;

use throttle_core::ledger::LedgerDir;

use super::{Checked, Property, Trial, Violation, nth};
use crate::sequences::census::Surveyed;
use crate::sequences::expected::Ownership;
use crate::sequences::step::Damage;
use crate::sequences::system::{Handle, System};

fn failed(error: impl std::fmt::Display) -> Violation {
    Violation::new(Property::GateIsRight, format!("the ledger cannot be damaged: {error}"))
}

impl<W: Surveyed, S: System> Trial<W, S> {
    pub(super) fn damage(&mut self, damage: Damage) -> Checked<bool> {
        let Some((files, folder)) = self.system.ledger() else { return Ok(false) };
        files.make_folder(&folder).map_err(failed)?;
        let write = |name: String, text: &[u8]| {
            let path = folder.join(name);
            files.write(&path, text).map_err(failed).map(|()| path)
        };
        match damage {
            Damage::Junk => {
                let path = write(format!("junk{}.json", self.junk.len()), JUNK)?;
                self.junk.push(path);
            }
            Damage::Draft => drop(write(".7.json.draft".to_owned(), b"{")?),
            Damage::OtherBoot => drop(write("900.json".to_owned(), OTHER_BOOT.as_bytes())?),
            Damage::Torn(which) => {
                let recorded = self.records()?;
                let Some(at) = nth(&recorded, which) else { return Ok(false) };
                let (handle, path) = &recorded[at];
                files.write(path, TORN).map_err(failed)?;
                self.junk.push(path.clone());
                if let Some(throttle) = self.expected.throttle_mut(*handle) {
                    throttle.torn = true;
                    if !matches!(throttle.ownership, Ownership::Held(_)) {
                        throttle.ownership = Ownership::Lost;
                    }
                }
            }
        }
        Ok(true)
    }

    /// Returns the throttles that have a record, with its path. It leaves out orphaned throttles, because their record
    /// may be obsolete.
    fn records(&self) -> Checked<Vec<(Handle, PathBuf)>> {
        let Some((files, folder)) = self.system.ledger() else { return Ok(Vec::new()) };
        let ledger = LedgerDir::on(files, folder).read().map_err(failed)?;
        let records = ledger.entries.into_iter().filter_map(|(path, entry)| {
            let programs: Vec<_> = entry.attachments.iter().map(|it| it.program_id).collect();
            let handle = self.handle_of(&entry.cgroup_path, entry.cgroup_id, &programs)?;
            let ownership = self.expected.throttle(handle)?.ownership;
            (ownership != Ownership::Orphaned).then_some((handle, path))
        });
        Ok(records.collect())
    }
}

const JUNK: &[u8] = b"no entry";
const TORN: &[u8] = b"torn";

/// Tells whether nobody can know what a file with these contents recorded.
pub(super) fn is_junk(text: &[u8]) -> bool {
    text == JUNK || text == TORN
}

const OTHER_BOOT: &str = r#"{"schema_version":1,"throttle":"900","owner":{"pid":1,"start_time":1,
    "pid_namespace":1,"boot_id":"another","version":"0"},"stage":"attached","persist":true,
    "cgroup_path":"/","cgroup_id":1,"attachments":[]}"#;
