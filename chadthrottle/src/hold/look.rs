//! Decides whether guard programs may be on the cgroup above. They displace nobody's program and leave places free.

use bpf::LinuxBpf;
use kernel::cgroup::Cgroup;
use kernel::error::Kind;
use kernel::lineage::{Level, Lineage, whole_lineages};
use kernel::list::MAX_PROGRAMS;
use kernel::{AttachType, ProgramId};
use throttle_core::neighbours::{Joining, joining, of_level, without};

use crate::in_force::{displaced, is_guard};
use crate::words::shown;

/// The most programs a list may have when the guard joins. The last 16 places are for others, because the limit works
/// without the guard.
const MOST: usize = 48;

/// Checks the lists before the programs are attached.
///
/// # Errors
/// Returns why the programs must not be attached.
pub(super) fn before(parent: &Cgroup, attach_types: &[AttachType]) -> Result<(), String> {
    for lineage in &lineages(parent, attach_types)? {
        let used = lineage.levels.first().map_or(0, |own| own.list.programs.len());
        if used >= MOST {
            return Err(format!(
                "{used} of the {MAX_PROGRAMS} places on {} are taken ({}), and the last {} are left to others",
                shown(parent.path()),
                lineage.attach_type,
                MAX_PROGRAMS - MOST
            ));
        }
        if let Some(why) = objection(lineage) {
            return Err(format!("programs on {} would {why}", shown(parent.path())));
        }
    }
    Ok(())
}

/// Checks the lists while the programs `ours` are attached.
///
/// # Errors
/// Returns why the programs must not stay.
pub(super) fn after(
    parent: &Cgroup,
    attach_types: &[AttachType],
    ours: &[ProgramId],
) -> Result<(), String> {
    let lineages = lineages(parent, attach_types)?;
    let displaced = displaced(&lineages, |id| ours.contains(&id) || is_guard(id));
    if displaced.is_empty() {
        return Ok(());
    }
    let named: Vec<_> = displaced.iter().map(ToString::to_string).collect();
    Err(format!(
        "the programs on {} switch off another one (have its owner attach it with BPF_F_ALLOW_MULTI): {}",
        shown(parent.path()),
        named.join("; ")
    ))
}

fn lineages(parent: &Cgroup, attach_types: &[AttachType]) -> Result<Vec<Lineage>, String> {
    match whole_lineages(parent, attach_types) {
        // The kernel detached the programs when it removed the cgroup.
        Err(error) if error.kind() == Kind::Vanished => Ok(Vec::new()),
        Err(error) => {
            Err(format!("which programs are in force cannot be seen: {}", bpf::advice::why(&error)))
        }
        Ok(lineages) => Ok(lineages),
    }
}

/// Returns what a guard program would do to other programs there, if anything.
fn objection(lineage: &Lineage) -> Option<String> {
    let others = without(lineage, is_guard);
    let named = |level: &Level| {
        let kernel = LinuxBpf::new().ok()?;
        let programs = of_level(&kernel, level, lineage.attach_type);
        Some(programs.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    };
    let named = |level| named(level).unwrap_or_else(|| "another program".to_owned());
    match joining(&others) {
        Joining::Free => None,
        Joining::Full => Some("find no place there".to_owned()),
        Joining::Exclusive(level) => Some(format!(
            "find the place taken by a program that lets no other join: {}",
            named(level)
        )),
        Joining::Displaces(level) => Some(format!(
            "switch off another one, which was attached with BPF_F_ALLOW_OVERRIDE (have its owner attach it with \
             BPF_F_ALLOW_MULTI): {}",
            named(level)
        )),
        Joining::Unknown(_) => {
            Some("may switch off others, because not all above can be seen".to_owned())
        }
    }
}
