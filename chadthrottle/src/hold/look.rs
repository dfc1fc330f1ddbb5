//! Whether programs may be on the cgroup above. They take nobody's out of force, and leave room for others.

use bpf::cgroup::Cgroup;
use bpf::error::Kind;
use bpf::follow::GUARDS;
use bpf::lineage::{Level, Lineage, whole_lineages};
use bpf::list::MAX_PROGRAMS;
use bpf::program::Program;
use bpf::{AttachType, LinuxBpf, ProgramId};
use throttle_core::neighbours::{Joining, joining, of_level, without};

use crate::limit::shown;

/// Others have the last 16 places of a list: whoever follows a path can do without.
const MOST: usize = 48;

/// Looks before programs are attached.
///
/// # Errors
/// Why they must not be.
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
        if let Some(why) = objection(lineage, &[]) {
            return Err(format!("programs on {} would {why}", shown(parent.path())));
        }
    }
    Ok(())
}

/// Looks while `ours` are attached.
///
/// # Errors
/// Why they must not stay.
pub(super) fn after(
    parent: &Cgroup,
    attach_types: &[AttachType],
    ours: &[ProgramId],
) -> Result<(), String> {
    for lineage in &lineages(parent, attach_types)? {
        if let Some(why) = objection(lineage, ours) {
            return Err(format!("the programs on {} {why}", shown(parent.path())));
        }
    }
    Ok(())
}

fn lineages(parent: &Cgroup, attach_types: &[AttachType]) -> Result<Vec<Lineage>, String> {
    match whole_lineages(parent, attach_types) {
        // With the cgroup its programs went.
        Err(error) if error.kind() == Kind::Vanished => Ok(Vec::new()),
        Err(error) => Err(format!("which programs are in force cannot be seen: {}", error.why())),
        Ok(lineages) => Ok(lineages),
    }
}

/// What programs that follow a path do to others there. Those of other limits count as well: each alone could go, and
/// nothing would be back in force.
fn objection(lineage: &Lineage, ours: &[ProgramId]) -> Option<String> {
    let others = without(lineage, |id| ours.contains(&id) || follows_a_path(id));
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

fn follows_a_path(id: ProgramId) -> bool {
    Program::open(id).is_ok_and(|program| program.info().name.starts_with(GUARDS))
}
