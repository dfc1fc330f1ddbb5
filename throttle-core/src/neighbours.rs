//! The effect of a throttle on other people's programs on its cgroup and on the ancestors.
//!
//! A program attached with `BPF_F_ALLOW_OVERRIDE` runs only while nothing is attached below it. So a throttle could
//! switch a firewall off, and the kernel would report no error. The engine checks before it attaches, and again after.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bpf::CgroupBpf;
use kernel::lineage::{Level, Lineage, ListMode};
use kernel::list::MAX_PROGRAMS;
use kernel::{AttachType, ProgramId};

use crate::error::{Error, Result};
pub use crate::neighbour::Neighbour;

/// The effect of attaching one more program with `BPF_F_ALLOW_MULTI`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Joining<'a> {
    /// The program is attached, and every other program runs as before.
    Free,
    /// The kernel refuses the program, because the list is full.
    Full,
    /// The kernel refuses the program, because this list of the cgroup or an ancestor accepts one program only.
    Exclusive(&'a Level),
    /// The program is attached, and the program on this ancestor's list goes out of force.
    Displaces(&'a Level),
    /// These programs run for the cgroup from ancestors out of sight. Nobody can tell whether they would go on.
    Unknown(Vec<ProgramId>),
}

/// Decides the effect of joining a list, by the kernel's rules in `hierarchy_allows_attach` and
/// `compute_effective_progs`.
pub fn joining(lineage: &Lineage) -> Joining<'_> {
    let Some((own, ancestors)) = lineage.levels.split_first() else {
        return Joining::Unknown(lineage.in_force.clone());
    };
    let nearest = ancestors.iter().find(|level| level.mode() != ListMode::Empty);
    let above = nearest.map(|level| (level, level.mode()));
    match (own.mode(), above) {
        (ListMode::Override | ListMode::Exclusive, _) => return Joining::Exclusive(own),
        // The kernel checks the ancestors even if the cgroup already has a list of its own.
        (_, Some((level, ListMode::Exclusive))) => return Joining::Exclusive(level),
        (ListMode::Multi, _) if own.list.programs.len() >= MAX_PROGRAMS => return Joining::Full,
        // The cgroup's own program has already put its ancestors' OVERRIDE lists out of force.
        (ListMode::Multi, _) => return Joining::Free,
        (ListMode::Empty, _) => {}
    }
    match above {
        Some((level, ListMode::Override)) => Joining::Displaces(level),
        Some(_) => Joining::Free,
        None if lineage.is_whole || lineage.in_force.is_empty() => Joining::Free,
        None => Joining::Unknown(lineage.in_force.clone()),
    }
}

/// Returns the programs that `ours` has put out of force, each with its cgroup, or `None` if that is out of sight.
///
/// `before` and `after` were read before and after attaching `ours`. Programs that somebody has detached in between do
/// not count, as far as that is visible.
pub fn displaced(
    before: &Lineage,
    after: &Lineage,
    ours: ProgramId,
) -> Vec<(ProgramId, Option<PathBuf>)> {
    let count = |ids: &mut dyn Iterator<Item = ProgramId>| {
        let mut counts = BTreeMap::<ProgramId, usize>::new();
        for id in ids {
            *counts.entry(id).or_default() += 1;
        }
        counts
    };
    let runs = count(&mut after.in_force.iter().copied());
    let ran = count(&mut before.in_force.iter().copied());
    let listed = |lineage: &Lineage, id: ProgramId| -> usize {
        lineage.levels.iter().map(|level| level.list.count(id)).sum()
    };
    let mut gone: Vec<_> = ran
        .into_iter()
        .filter(|(id, count)| runs.get(id).copied().unwrap_or_default() < *count)
        // A program that its owner has detached is not our doing.
        .filter(|(id, _)| listed(after, *id) >= listed(before, *id))
        .map(|(id, _)| {
            let level = after.levels.iter().find(|level| level.list.count(id) > 0);
            (id, level.map(|level| level.path.clone()))
        })
        .collect();
    // A program that joined between the two reads would be in force without ours.
    let without_ours = without(after, |id| id == ours);
    if let Joining::Displaces(level) = joining(&without_ours) {
        let new = level.list.programs.iter().map(|program| program.id);
        let known: Vec<_> = gone.iter().map(|(id, _)| *id).collect();
        let new = new.filter(|id| !known.contains(id) && !after.in_force.contains(id));
        gone.extend(new.map(|id| (id, Some(level.path.clone()))));
    }
    gone
}

/// Returns the lists without our programs on the cgroup.
pub fn without(lineage: &Lineage, is_ours: impl Fn(ProgramId) -> bool) -> Lineage {
    let mut lineage = lineage.clone();
    if let Some(own) = lineage.levels.first_mut() {
        own.list.programs.retain(|program| !is_ours(program.id));
    }
    lineage
}

/// Returns the lists without our programs on the cgroup and on its ancestors.
pub fn without_anywhere(lineage: &Lineage, is_ours: impl Fn(ProgramId) -> bool) -> Lineage {
    let mut lineage = lineage.clone();
    for level in &mut lineage.levels {
        level.list.programs.retain(|program| !is_ours(program.id));
    }
    lineage
}

impl Neighbour {
    /// Describes a program. Leaves out what cannot be read.
    pub fn of<B: CgroupBpf>(
        kernel: &B,
        id: ProgramId,
        attach_type: AttachType,
        cgroup: Option<PathBuf>,
    ) -> Self {
        let info = kernel.program_info(id).ok();
        let name = info.as_ref().map(|info| info.name.clone()).filter(|name| !name.is_empty());
        Self { id, name, tag: info.map(|info| info.tag), attach_type, cgroup }
    }
}

/// Describes the programs of a list.
pub fn of_level<B: CgroupBpf>(kernel: &B, level: &Level, at: AttachType) -> Vec<Neighbour> {
    let ids = level.list.programs.iter().map(|program| program.id);
    ids.map(|id| Neighbour::of(kernel, id, at, Some(level.path.clone()))).collect()
}

/// Checks whether our programs may join these lists. Returns the programs that would go out of force, if `displace`
/// allows that.
///
/// # Errors
/// When the kernel would refuse a program. When somebody else's program would go out of force, and `displace` is false.
pub(crate) fn check<B: CgroupBpf>(
    kernel: &B,
    lineages: &[Lineage],
    displace: bool,
) -> Result<Vec<Neighbour>> {
    let (mut displaced, mut errors) = (Vec::new(), Vec::new());
    for lineage in lineages {
        let at = lineage.attach_type;
        let cgroup = || lineage.levels.first().map(|level| level.path.clone()).unwrap_or_default();
        match joining(lineage) {
            Joining::Free | Joining::Unknown(_) => {}
            Joining::Full => errors.push(Error::Full { cgroup: cgroup(), attach_type: at }),
            Joining::Exclusive(level) => errors
                .push(Error::Exclusive { cgroup: cgroup(), programs: of_level(kernel, level, at) }),
            Joining::Displaces(level) if displace => displaced.extend(of_level(kernel, level, at)),
            Joining::Displaces(level) => errors.push(Error::WouldDisplace {
                cgroup: cgroup(),
                programs: of_level(kernel, level, at),
                recorded: None,
            }),
        }
    }
    Error::collect(errors)?;
    Ok(displaced)
}

/// Returns the programs that ours have put out of force.
pub(crate) fn displaced_by<B: CgroupBpf>(
    kernel: &B,
    before: &[Lineage],
    after: &[Lineage],
    ours: impl Fn(AttachType) -> ProgramId,
) -> Vec<Neighbour> {
    let pairs = before.iter().zip(after);
    let found = pairs.flat_map(|(before, after)| {
        let at = after.attach_type;
        let gone = displaced(before, after, ours(at));
        gone.into_iter().map(move |(id, cgroup)| Neighbour::of(kernel, id, at, cgroup))
    });
    found.collect()
}

#[cfg(test)]
#[path = "neighbours_tests.rs"]
mod tests;
