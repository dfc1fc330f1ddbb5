//! Network devices that are named as queues of ours, and the programs that are on devices.

use bpf::link::Way;
use bpf::{LinkId, devices, objects};

use super::gap;
use super::look::{known, merged};
use crate::snapshot::{
    Coverage, DEVICE_PROGRAM, DeviceFact, DeviceLinkFact, Gap, Note, ProgramFact, Subject,
};

/// Those in every network namespace that can be found.
///
/// A namespace that is known and could not be looked at is a gap. That some process does not let anybody see which
/// one it is in is ordinary on some hosts (policies that hide a process even from root, containers), so that is a
/// note.
pub(super) fn device_facts(coverage: &mut Coverage) -> Vec<DeviceFact> {
    let found = match devices::devices() {
        Ok(found) => found,
        Err(error) => {
            coverage.gaps.push(gap(Subject::Devices, "network devices of queues", &error));
            return Vec::new();
        }
    };
    coverage.network_namespaces = Some(found.namespaces);
    coverage.gaps.extend(merged(Subject::Devices, &found.unreadable));
    let note = |what: String, why: &str| Note { what, why: why.to_owned() };
    if let Some(gap) = merged(Subject::Devices, &found.unseen) {
        let what = format!("queues in a network namespace that only {} could tell of", gap.what);
        coverage.notes.push(note(what, &gap.why));
    }
    if found.changing > 0 {
        let what = format!("devices that came or went in {} network namespaces", found.changing);
        let why =
            "they changed each time that they were listed; what was there all the time was seen";
        coverage.notes.push(note(what, why));
    }
    if bpf::pid_namespace().ok() != Some(bpf::INITIAL_PID_NAMESPACE) {
        coverage.notes.push(note(
            "queues in network namespaces of processes outside of this pid namespace".to_owned(),
            "they cannot be seen from here: run the audit on the host",
        ));
    }
    let fact = |device: devices::Device| DeviceFact {
        network_namespace: device.network_namespace,
        namespace_path: device.path.map(|path| path.to_string_lossy().into_owned()),
        index: device.index,
        name: device.name,
        is_ifb: device.is_ifb,
        alias: device.alias,
    };
    found.devices.into_iter().map(fact).collect()
}

/// The tcx links of those programs that are for devices; nobody is asked where there are none.
pub(super) fn device_links(
    programs: &[ProgramFact],
    gaps: &mut Vec<Gap>,
    changing: &mut Vec<LinkId>,
) -> Vec<DeviceLinkFact> {
    let of_ours = |id| programs.iter().any(|it| it.id == id && it.kind == DEVICE_PROGRAM);
    if !programs.iter().any(|it| it.kind == DEVICE_PROGRAM) {
        return Vec::new();
    }
    known(objects::device_links(), "links on network devices", gaps, changing)
        .into_iter()
        .filter(|link| of_ours(link.program_id))
        .map(|link| DeviceLinkFact {
            id: link.id,
            program_id: link.program_id,
            device: link.device.unwrap_or(0),
            attach_type: match link.way {
                Way::Ingress => "tcx_ingress".to_owned(),
                Way::Egress => "tcx_egress".to_owned(),
            },
        })
        .collect()
}
