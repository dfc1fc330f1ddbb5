//! Lists every BPF object that the kernel has.

use kernel::device_programs::{DevicePrograms, device_programs};
use kernel::{Error, objects};

use super::gap;
use super::host::Clock;
use super::look::{known, merged};
use super::programs::full_name;
use crate::facts::{Coverage, DeviceProgramFact, Gap, Inventory, LoadedProgram, Note, Subject};

/// Reads links before the programs and maps that they hold, and programs before maps. So the inventory fully describes
/// each object that it lists, however many objects come and go meanwhile.
pub(super) fn inventory(clock: &Clock, coverage: &mut Coverage) -> Inventory {
    let Coverage { gaps, notes, changing_links: changing, .. } = coverage;
    let links = known(objects::all_links(), "links of all types", gaps, changing);
    let programs = programs(clock, gaps);
    let maps = objects::maps().unwrap_or_else(|error| {
        gaps.push(gap(Subject::Programs, "maps", &error));
        Vec::new()
    });
    // An unreadable slot of a map removes an explanation, but hides no object.
    let unread: Vec<Error> = maps.iter().filter_map(|map| map.slots.clone().err()).collect();
    notes.extend(noted("what maps keep in their slots", &unread));
    Inventory {
        device_programs: on_devices(&programs, notes),
        programs,
        links: links.into_iter().map(Into::into).collect(),
        maps: maps.into_iter().map(Into::into).collect(),
    }
}

/// The types of programs that attach to network devices.
const DEVICE_TYPES: [&str; 2] = ["sched_cls", "xdp"];

/// Finds programs on network devices. A namespace that cannot be inspected hides a place, but no program.
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

/// Merges errors that probably have the same cause into one note.
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
