//! Everything of BPF that the kernel has.

use bpf::{LinkId, objects};

use super::gap;
use super::host::Clock;
use super::look::{known, merged};
use crate::snapshot::{Gap, Inventory, LoadedProgram, Subject};

/// Links are read before the programs and maps that they hold, and programs before maps: whatever is read is told of
/// in full, however much comes and goes meanwhile.
pub(super) fn inventory(
    clock: &Clock,
    gaps: &mut Vec<Gap>,
    changing: &mut Vec<LinkId>,
) -> Inventory {
    let links = known(objects::all_links(), "links of all types", gaps, changing);
    let programs = programs(clock, gaps);
    let maps = objects::maps().unwrap_or_else(|error| {
        gaps.push(gap(Subject::Programs, "maps", &error));
        Vec::new()
    });
    Inventory {
        programs,
        links: links.into_iter().map(Into::into).collect(),
        maps: maps.into_iter().map(Into::into).collect(),
    }
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
                programs.push(LoadedProgram::new(info, clock.wall_time(info.loaded_at_ns)));
            }
            Ok(None) => {}
            Err(error) => unreadable.push(error),
        }
    }
    gaps.extend(merged(Subject::Programs, &unreadable));
    programs
}
