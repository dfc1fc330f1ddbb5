//! Finds network devices whose names look like our queues, and programs attached to devices.

use bpf::devices;
use kernel::link::{DeviceLinkInfo, Way};
use kernel::{LinkId, objects};

use super::gap;
use super::look::{known, merged};
use crate::facts::{
    Coverage, DEVICE_PROGRAM, DeviceFact, DeviceLinkFact, Gap, Note, ProgramFact, Subject,
};

/// What an unseen network namespace means for the audit.
const MATTERS: &str = "This matters only if a killed 'chadthrottle limit --download-queue' ran there: the idle device \
                       that it left is missed. Then run the audit on the host, where all processes are visible";

/// Returns the queue devices in every network namespace that can be found.
///
/// A known namespace that could not be inspected is a gap. A process that hides its network namespace is ordinary on
/// some hosts, because of containers or of policies that hide a process even from root. So that is only a note.
pub(super) fn device_facts(coverage: &mut Coverage) -> Vec<DeviceFact> {
    let is_host =
        kernel::process::pid_namespace().ok() == Some(kernel::process::INITIAL_PID_NAMESPACE);
    facts_of(devices::devices(), is_host, coverage)
}

/// Returns the devices, and adds what could not be seen to `coverage`. `is_host` says that no process is outside of
/// this pid namespace.
fn facts_of(
    found: kernel::Result<devices::Devices>,
    is_host: bool,
    coverage: &mut Coverage,
) -> Vec<DeviceFact> {
    let found = match found {
        Ok(found) => found,
        Err(error) => {
            coverage.gaps.push(gap(Subject::Devices, "network devices of queues", &error));
            return Vec::new();
        }
    };
    coverage.network_namespaces = Some(found.namespaces);
    coverage.gaps.extend(merged(Subject::Devices, &found.unreadable));
    coverage.notes.extend(unseen(&found.unseen));
    if found.changing > 0 {
        let what = format!("devices that came or went in {} network namespaces", found.changing);
        let why =
            "they changed each time that they were listed; what was there all the time was seen";
        coverage.notes.push(Note { what, why: why.to_owned() });
    }
    if !is_host {
        let what = "the network namespaces of processes outside of this pid namespace".to_owned();
        coverage.notes.push(Note { what, why: format!("they are out of sight here. {MATTERS}") });
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

/// Words the note about processes that hide their network namespace.
fn unseen(errors: &[kernel::Error]) -> Option<Note> {
    let (first, others) = errors.split_first()?;
    let process = first.target().strip_prefix("/proc/").and_then(|it| it.split('/').next());
    let process = process.map_or_else(|| first.target().to_owned(), |pid| format!("process {pid}"));
    let what = match others.len() {
        0 => format!("the network namespace of {process}"),
        1 => format!("the network namespaces of {process} and one other process"),
        more => format!("the network namespaces of {process} and {more} other processes"),
    };
    Some(Note { what, why: format!("{}. {MATTERS}", bpf::advice::why(first)) })
}

/// Returns the tcx links of the given device programs. Does not ask the kernel if there is no such program.
pub(super) fn device_links(
    programs: &[ProgramFact],
    gaps: &mut Vec<Gap>,
    changing: &mut Vec<LinkId>,
) -> Vec<DeviceLinkFact> {
    let of_ours =
        |id| programs.iter().any(|it| it.loaded.id == id && it.loaded.kind == DEVICE_PROGRAM);
    if !programs.iter().any(|it| it.loaded.kind == DEVICE_PROGRAM) {
        return Vec::new();
    }
    known(objects::device_links(), "links on network devices", gaps, changing)
        .into_iter()
        .filter(|link| of_ours(link.program_id))
        .map(link_fact)
        .collect()
}

fn link_fact(link: DeviceLinkInfo) -> DeviceLinkFact {
    DeviceLinkFact {
        id: link.id,
        program_id: link.program_id,
        device: link.device.unwrap_or(0),
        attach_type: match link.way {
            Way::Ingress => "tcx_ingress".to_owned(),
            Way::Egress => "tcx_egress".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use kernel::ProgramId;
    use kernel::error::Call;
    use nix::errno::Errno;

    use super::*;

    #[test]
    fn every_device_is_told_and_so_is_each_reason_why_there_may_be_more() {
        let denied =
            |pid| kernel::Error::new(Call::ReadProc, format!("/proc/{pid}/ns/net"), Errno::EACCES);
        let device = |index| devices::Device {
            network_namespace: 7,
            path: Some("/run/netns/blue".into()),
            index,
            name: format!("chadq{index}a"),
            is_ifb: index != 2,
            alias: (index != 3).then(|| "{}".to_owned()),
        };
        for bits in 0..16 {
            let has = |bit: u32| bits >> bit & 1 == 1;
            let found = devices::Devices {
                devices: (1..=3).map(device).collect(),
                namespaces: 5,
                changing: u64::from(has(0)),
                unreadable: has(1).then(|| denied(1)).into_iter().collect(),
                unseen: has(2).then(|| denied(2)).into_iter().collect(),
            };
            let mut coverage = Coverage::default();
            let facts = facts_of(Ok(found), has(3), &mut coverage);
            let told = facts.iter().map(|it| (it.index, it.is_ifb, it.alias.is_some()));
            assert_eq!(
                told.collect::<Vec<_>>(),
                [(1, true, true), (2, false, true), (3, true, false)]
            );
            assert!(facts.iter().all(|it| it.network_namespace == 7
                && it.namespace_path.as_deref() == Some("/run/netns/blue")));
            assert_eq!(coverage.network_namespaces, Some(5));
            let gaps: Vec<_> = coverage.gaps.iter().map(|gap| gap.about).collect();
            assert_eq!(gaps, vec![Subject::Devices; usize::from(has(1))]);
            let notes = usize::from(has(0)) + usize::from(has(2)) + usize::from(!has(3));
            assert_eq!(coverage.notes.len(), notes, "{:?}", coverage.notes);
        }
        let mut coverage = Coverage::default();
        assert_eq!(facts_of(Err(denied(1)), true, &mut coverage), []);
        // Nobody has looked.
        assert_eq!((coverage.network_namespaces, coverage.gaps.len()), (None, 1));
        assert_eq!(coverage.gaps[0].about, Subject::Devices);
    }

    #[test]
    fn a_link_is_told_with_its_device_or_that_it_is_on_none_any_more() {
        for (device, told) in [(None, 0), (Some(7), 7)] {
            for (way, attach_type) in [(Way::Ingress, "tcx_ingress"), (Way::Egress, "tcx_egress")] {
                let (id, program_id) = (LinkId(31), ProgramId(41));
                let fact = link_fact(DeviceLinkInfo { id, program_id, device, way });
                assert_eq!((fact.id, fact.program_id), (id, program_id));
                assert_eq!((fact.device, &*fact.attach_type), (told, attach_type));
            }
        }
    }

    #[test]
    fn a_network_namespace_that_was_not_looked_at_is_told_with_what_it_means_and_what_to_do() {
        let hidden =
            |pid| kernel::Error::new(Call::ReadProc, format!("/proc/{pid}/ns/net"), Errno::EACCES);
        assert_eq!(unseen(&[]), None);
        let note = unseen(&[hidden(1)]).unwrap();
        assert_eq!(note.what, "the network namespace of process 1");
        assert!(note.why.contains(MATTERS), "{}", note.why);
        let of = |pids: &[u32]| unseen(&pids.iter().map(|&pid| hidden(pid)).collect::<Vec<_>>());
        assert!(of(&[1, 2]).unwrap().what.ends_with("process 1 and one other process"));
        assert!(of(&[1, 2, 3]).unwrap().what.ends_with("process 1 and 2 other processes"));
    }
}
