//! Everything of BPF that the kernel has.

use bpf::Error;
use bpf::device_programs::{DevicePrograms, device_programs};
use bpf::objects;

use super::gap;
use super::host::Clock;
use super::look::{known, merged};
use super::programs::full_name;
use crate::snapshot::{Coverage, DeviceProgramFact, Gap, Inventory, LoadedProgram, Note, Subject};

/// Links are read before the programs and maps that they hold, and programs before maps: whatever is read is told of
/// in full, however much comes and goes meanwhile.
pub(super) fn inventory(clock: &Clock, coverage: &mut Coverage) -> Inventory {
    let Coverage { gaps, notes, changing_links: changing, .. } = coverage;
    let links = known(objects::all_links(), "links of all types", gaps, changing);
    let programs = programs(clock, gaps);
    let maps = objects::maps().unwrap_or_else(|error| {
        gaps.push(gap(Subject::Programs, "maps", &error));
        Vec::new()
    });
    // What could not be read of a map's slots explains less, and hides nothing.
    let unread: Vec<Error> = maps.iter().filter_map(|map| map.slots.clone().err()).collect();
    notes.extend(noted("what maps keep in their slots", &unread));
    Inventory {
        device_programs: on_devices(&programs, notes),
        programs,
        links: links.into_iter().map(Into::into).collect(),
        maps: maps.into_iter().map(Into::into).collect(),
    }
}

/// The types of programs on network devices.
const DEVICE_TYPES: [&str; 2] = ["sched_cls", "xdp"];

/// Where programs are on network devices. That some namespace cannot be looked at hides a place, and no program.
fn on_devices(programs: &[LoadedProgram], notes: &mut Vec<Note>) -> Vec<DeviceProgramFact> {
    if !programs.iter().any(|program| DEVICE_TYPES.contains(&program.kind.as_str())) {
        return Vec::new();
    }
    let found = device_programs().unwrap_or_else(|error| DevicePrograms {
        unseen: vec![error],
        ..DevicePrograms::default()
    });
    notes.extend(noted("programs on devices in some network namespaces", &found.unseen));
    found.programs.into_iter().map(Into::into).collect()
}

/// One note for errors that are likely to have one cause.
fn noted(what: &str, errors: &[Error]) -> Option<Note> {
    let gap = merged(Subject::Devices, errors)?;
    Some(Note { what: format!("{what} ({})", gap.what), why: gap.why })
}

fn programs(clock: &Clock, gaps: &mut Vec<Gap>) -> Vec<LoadedProgram> {
    let ids = objects::program_ids().unwrap_or_else(|error| {
        gaps.push(gap(Subject::Programs, "programs of all types", &error));
        Vec::new()
    });
    let (mut programs, mut unreadable) = (Vec::new(), Vec::new());
    for id in ids {
        match objects::program(id) {
            Ok(Some(program)) => {
                let info = program.info();
                let loaded_at = clock.wall_time(info.loaded_at_ns);
                programs.push(LoadedProgram::new(info, full_name(&program), loaded_at));
            }
            Ok(None) => {}
            Err(error) => unreadable.push(error),
        }
    }
    gaps.extend(merged(Subject::Programs, &unreadable));
    programs
}
