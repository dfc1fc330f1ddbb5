//! Judges network devices whose names look like our queues, and programs attached to devices.

use super::facts::Facts;
use super::reason::nobody;
use super::standing::{Claim, Source, Standing};
use super::{Finding, Judged, Key};
use crate::facts::{DeviceFact, Gap, Note, Scope, Subject};

/// The name of a program that every queue has. If the globs exclude this name, they exclude the devices too.
const PROGRAM: &str = "chadthrottle_queue";

/// One network device and its finding.
#[derive(Debug, Clone, PartialEq)]
pub struct JudgedDevice<'a> {
    /// The finding.
    pub finding: Finding,
    /// The reason, in one sentence. It contains names exactly as the system has them. Escape it before printing.
    pub reason: String,
    /// The device.
    pub device: &'a DeviceFact,
    /// The owner.
    pub owner: Option<Claim>,
}

impl JudgedDevice<'_> {
    /// Returns the key that identifies the same suspect in another look.
    pub(crate) fn key(&self) -> Key {
        Key::Device {
            network_namespace: self.device.network_namespace,
            index: self.device.index,
            alias: self.device.alias.clone(),
        }
    }
}

/// Tells whether the audit covers network devices. A root other than `/` excludes them because a device belongs to no
/// cgroup. Globs that name other programs than ours exclude them too.
pub(crate) fn are_in_scope(scope: &Scope, ours: &super::Ours) -> bool {
    scope.root.as_os_str() == "/" && ours.has(super::ours::cut(PROGRAM))
}

/// Judges every network device in the look.
///
/// - A device is ours if it is an `ifb`, its name contains a pid and its alias names an owner with that pid. Any other
///   device with such a name belongs to somebody else, and a note reports it.
/// - A device is a leak if its owner is dead. Only the next queue in the same network namespace would remove the
///   device.
/// - An owner may be in another pid or time namespace. Its programs then tell whether it is running. An owner keeps
///   them open while it has a queue.
pub(super) fn judge<'a>(
    facts: &Facts<'a>,
    gaps: &mut Vec<Gap>,
    notes: &mut Vec<Note>,
) -> Vec<JudgedDevice<'a>> {
    if !are_in_scope(facts.scope, &facts.ours) {
        return Vec::new();
    }
    if facts.look.coverage.network_namespaces.is_none() && !facts.has_gap(Subject::Devices) {
        notes.push(Note {
            what: "network devices of queues".to_owned(),
            why: "the program that took this snapshot did not look for them".to_owned(),
        });
    }
    facts.look.devices.iter().map(|device| of_device(facts, device, gaps, notes)).collect()
}

fn of_device<'a>(
    facts: &Facts<'a>,
    device: &'a DeviceFact,
    gaps: &mut Vec<Gap>,
    notes: &mut Vec<Note>,
) -> JudgedDevice<'a> {
    let Some(owner) = device.owner() else {
        let reason =
            "it is named as a queue of ours, but no alias of ours says whose it is".to_owned();
        let why = format!("{reason}: left alone; if nobody needs it: ip link delete");
        notes.push(Note { what: device.to_string(), why });
        return JudgedDevice { finding: Finding::Foreign, reason, device, owner: None };
    };
    let alive = facts.lives(&owner);
    let mut claim = Claim { pid: owner.pid, alive, source: Source::Alias };
    let its_programs =
        || facts.look.programs.iter().filter(|program| program.owner.as_ref() == Some(&owner));
    let (finding, reason) = match alive {
        Some(true) => (Finding::Active, format!("its owner, process {}, lives", owner.pid)),
        Some(false) => {
            (Finding::OrphanedDevice, format!("its owner, process {}, is dead", owner.pid))
        }
        None => {
            let who = format!("its owner, process {} of another pid or time namespace,", owner.pid);
            let holder =
                its_programs().find_map(|it| facts.holders(it.loaded.id, None).into_iter().next());
            if let Some(holder) = holder {
                claim =
                    Claim { pid: holder.process.pid, alive: Some(true), source: Source::Holder };
                let reason = format!(
                    "process {} ({}) holds its programs",
                    holder.process.pid, holder.process.comm
                );
                (Finding::Active, reason)
            } else if facts.sees_every_process() && !facts.has_gap(Subject::Programs) {
                let reason = format!("{who} has its programs open no longer, so it is dead");
                (Finding::OrphanedDevice, reason)
            } else {
                let reason = format!("whether {who} lives cannot be told from here");
                gaps.push(Gap {
                    about: Subject::Processes,
                    what: device.to_string(),
                    why: format!("{reason}; run the audit on the host, as root"),
                });
                (Finding::Unknown, reason)
            }
        }
    };
    JudgedDevice { finding, reason, device, owner: Some(claim) }
}

/// Judges a program of ours by its tcx links. Returns `None` if no tcx link attaches the program to a device.
pub(super) fn of_links(standing: &Standing<'_>, judged: &Judged<'_>) -> Option<(Finding, String)> {
    let places: Vec<String> = judged
        .device_links
        .iter()
        .filter(|link| link.device != 0)
        .map(|link| format!("{} ({}, link {})", link.device, link.attach_type, link.id))
        .collect();
    if places.is_empty() {
        return None;
    }
    let noun = if places.len() == 1 { "device" } else { "devices" };
    let how = format!("attached to network {noun} {}", places.join(", "));
    Some(if let Some(living) = standing.living() {
        (Finding::Active, format!("{how}; process {} lives", living.pid))
    } else if let Some(entry) = standing.kept {
        let throttle = &entry.throttle;
        (Finding::Pinned, format!("{how}; recorded as meant to stay: throttle '{throttle}'"))
    } else if !judged.pins.is_empty() {
        let pins = super::attached::paths(&judged.pins);
        let nobody = nobody(standing, &judged.holders);
        (Finding::OrphanedPin, format!("{how}, kept by the pin {pins}, but {nobody}"))
    } else if !judged.holders.is_empty() {
        let nobody = nobody(standing, &judged.holders);
        (Finding::OrphanedAttachment, format!("{how}, and {nobody}"))
    } else {
        let nobody = nobody(standing, &[]);
        (Finding::UnreachableProgram, format!("{how}, nothing visible holds it, and {nobody}"))
    })
}
