//! Makes the report from a judgement.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use kernel::AttachType;

use super::{
    Attachment, Cgroup, Coverage, Device, DeviceLink, Leak, Link, Program, ProgramInfo, Report,
    SCHEMA_VERSION, Summary, places,
};
use crate::actions::{removal, steps};
use crate::facts::{AttachmentFact, DeviceLinkFact, Note, Process, Scope, Snapshot};
use crate::judge::{Classified, DEFAULT_PROGRAMS, Finding, Judged, JudgedDevice};

/// `BPF_F_ALLOW_OVERRIDE` and `BPF_F_ALLOW_MULTI`.
const OVERRIDE: u32 = 1;
const MULTI: u32 = 2;

/// Makes the report. Counts other tools' attachments, and lists them only if `all` is set.
pub fn report(snapshot: &Snapshot, classified: &Classified<'_>, all: bool) -> Report {
    let last = snapshot.looks.last();
    let coverage = last.map(|look| look.coverage.clone()).unwrap_or_default();
    let count =
        |finding| classified.attachments.iter().filter(|judged| judged.finding == finding).count();
    let devices = || classified.devices.iter().map(|judged| judged.finding);
    Report {
        schema_version: SCHEMA_VERSION,
        tool: snapshot.tool.clone(),
        host: snapshot.host.host.clone(),
        taken_at: last.map(|look| look.taken_at.clone()).unwrap_or_default(),
        duration_ms: snapshot.duration_ms,
        timings_ms: snapshot.timings_ms,
        method: last.map(|look| look.method.clone()).unwrap_or_default(),
        verdict: classified.verdict,
        coverage: Coverage {
            cgroups_visited: coverage.cgroups_visited,
            cgroups_vanished: coverage.cgroups_vanished,
            cgroups_denied: coverage.cgroups_denied,
            attach_types: coverage.attach_types,
            programs_seen: coverage.programs_seen,
            network_namespaces: coverage.network_namespaces,
            changing_links: coverage.changing_links.len() as u64,
            changing_lists: coverage.changing_lists,
            notes: classified.notes.clone(),
            gaps: classified.gaps.iter().cloned().map(Note::from).collect(),
        },
        attachments: classified
            .attachments
            .iter()
            .filter(|judged| all || judged.finding != Finding::Foreign)
            .filter_map(|judged| Some(attachment(judged, judged.place?)))
            .collect(),
        programs: classified.programs.iter().map(program).collect(),
        devices: classified
            .devices
            .iter()
            .filter(|judged| all || judged.finding != Finding::Foreign)
            .map(device)
            .collect(),
        leaks: classified
            .leaks()
            .map(|judged| leak(judged, classified))
            .chain(classified.leaked_devices().map(leaked_device))
            .collect(),
        full_places: places::full(&classified.attachments),
        summary: Summary {
            attachments: classified.attachments.len(),
            active: count(Finding::Active),
            pinned: count(Finding::Pinned),
            waiting: classified
                .programs
                .iter()
                .filter(|judged| judged.finding == Finding::Waiting)
                .count(),
            foreign: count(Finding::Foreign),
            unowned: classified.unowned().count(),
            unknown: count(Finding::Unknown)
                + devices().filter(|finding| *finding == Finding::Unknown).count(),
            devices: devices().filter(|finding| *finding == Finding::Active).count(),
            leaked: classified.leaks().count() + classified.leaked_devices().count(),
            known: 0,
            slots_used_max: classified
                .attachments
                .iter()
                .filter_map(|judged| Some(judged.place?.slots_used))
                .max()
                .unwrap_or_default(),
        },
        baseline: None,
        root: snapshot.scope.root.to_string_lossy().into_owned(),
        scope_options: scope_options(&snapshot.scope),
        has_every_type: has_every_type(&snapshot.scope),
    }
}

/// Words the scope as options for a shell.
fn scope_options(scope: &Scope) -> String {
    let root = (scope.root != Path::new("/"))
        .then(|| format!(" --root {}", quoted(scope.root.as_os_str().as_bytes())));
    let programs = (scope.programs != [DEFAULT_PROGRAMS]).then(|| {
        let options = scope.programs.iter().map(|glob| quoted(glob.as_bytes()));
        options.flat_map(|glob| [" --program ".to_owned(), glob]).collect()
    });
    let types = (!has_every_type(scope)).then(|| {
        let types = scope.attach_types.iter();
        types.flat_map(|it| [" --attach-type ".to_owned(), it.to_string()]).collect()
    });
    [root, programs, types].into_iter().flatten().collect()
}

fn has_every_type(scope: &Scope) -> bool {
    AttachType::all().all(|it| scope.attach_types.contains(&it))
}

/// Quotes a word for a shell: unchanged if that is safe, otherwise as `'…'`, or as `$'…'` if it could harm a terminal.
fn quoted(word: &[u8]) -> String {
    let is_plain = |c: &u8| c.is_ascii_alphanumeric() || b"/._-@:".contains(c);
    let escaped = word.escape_ascii().to_string();
    if !word.is_empty() && word.iter().all(is_plain) {
        escaped
    } else if escaped.as_bytes() == word {
        format!("'{escaped}'")
    } else {
        format!("$'{escaped}'")
    }
}

fn attachment(judged: &Judged<'_>, place: &AttachmentFact) -> Attachment {
    Attachment {
        cgroup: cgroup(place),
        attach_type: place.attach_type,
        program: info(judged),
        link: link(judged),
        attach_flags: flags(place),
        slots_used: place.slots_used,
        // For LSM programs the kernel reports the lists of all hooks as one.
        slots: if is_multi(place) { Attachment::most_slots() } else { place.slots_used.max(1) },
        pins: pins(judged),
        holders: holders(judged),
        owner: judged.owner,
        finding: judged.finding,
        reason: judged.reason.clone(),
    }
}

fn program(judged: &Judged<'_>) -> Program {
    Program {
        program: info(judged),
        device_links: device_links(judged),
        pins: pins(judged),
        holders: holders(judged),
        finding: judged.finding,
        reason: judged.reason.clone(),
    }
}

fn leak(judged: &Judged<'_>, classified: &Classified<'_>) -> Leak {
    Leak {
        finding: judged.finding,
        reason: judged.reason.clone(),
        cgroup: judged.place.map(cgroup),
        attach_type: judged.place.map(|place| place.attach_type),
        program: Some(info(judged)),
        device: None,
        device_links: device_links(judged),
        link: link(judged),
        pins: pins(judged),
        remedy: steps(judged, classified),
        known: false,
    }
}

fn device(judged: &JudgedDevice<'_>) -> Device {
    Device {
        device: judged.device.into(),
        owner: judged.owner,
        finding: judged.finding,
        reason: judged.reason.clone(),
    }
}

fn leaked_device(judged: &JudgedDevice<'_>) -> Leak {
    Leak {
        finding: judged.finding,
        reason: judged.reason.clone(),
        cgroup: None,
        attach_type: None,
        program: None,
        device: Some(judged.device.into()),
        device_links: Vec::new(),
        link: None,
        pins: Vec::new(),
        remedy: vec![removal(judged)],
        known: false,
    }
}

fn device_links(judged: &Judged<'_>) -> Vec<DeviceLink> {
    let link = |link: &&DeviceLinkFact| DeviceLink {
        id: link.id,
        device: (link.device != 0).then_some(link.device),
        attach_type: link.attach_type.clone(),
    };
    judged.device_links.iter().map(link).collect()
}

/// Returns the cgroup of an attachment.
pub(crate) fn cgroup(place: &AttachmentFact) -> Cgroup {
    let path: &Path = &place.cgroup;
    let path_hex =
        path.to_str().is_none().then(|| hex::encode(path.as_os_str().as_encoded_bytes()));
    Cgroup { path: path.to_string_lossy().into_owned(), path_hex, id: place.cgroup_id }
}

fn info(judged: &Judged<'_>) -> ProgramInfo {
    let program = judged.program;
    ProgramInfo {
        id: judged.program_id,
        name: program.map(|program| program.loaded.name.clone()),
        full_name: program.and_then(|program| program.loaded.full_name.clone()),
        tag: program.map(|program| program.loaded.tag.clone()),
        kind: program.map(|program| program.loaded.kind.clone()),
        loaded_at: program.map(|program| program.loaded.loaded_at.clone()),
        map_ids: program.map(|program| program.loaded.map_ids.clone()).unwrap_or_default(),
        memlock_bytes: program.map(|program| program.memlock_bytes),
    }
}

fn link(judged: &Judged<'_>) -> Option<Link> {
    judged.link.map(|link| Link { id: link.id })
}

/// Returns all flags of an attachment. For an LSM list the kernel reports only the programs' own flags.
fn all_flags(place: &AttachmentFact) -> u32 {
    place.list_flags | place.program_flags.unwrap_or_default()
}

fn is_multi(place: &AttachmentFact) -> bool {
    all_flags(place) & MULTI != 0
}

fn flags(place: &AttachmentFact) -> Vec<String> {
    let flags = all_flags(place);
    [(OVERRIDE, "override"), (MULTI, "multi")]
        .into_iter()
        .filter(|(bit, _)| flags & bit != 0)
        .map(|(_, name)| name.to_owned())
        .collect()
}

fn pins(judged: &Judged<'_>) -> Vec<String> {
    judged.pins.iter().map(|pin| pin.path.to_string_lossy().into_owned()).collect()
}

fn holders(judged: &Judged<'_>) -> Vec<Process> {
    judged.holders.iter().map(|holder| holder.process.clone()).collect()
}
