//! What a throttle does to other people's programs on its cgroup and above it.
//!
//! A program that was attached with `BPF_F_ALLOW_OVERRIDE` runs only as long as nothing is attached below it. So a
//! throttle could switch a firewall off without an error from the kernel. The engine looks before it attaches, and once
//! more after it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bpf::CgroupBpf;
use kernel::lineage::{Level, Lineage, ListMode};
use kernel::list::MAX_PROGRAMS;
use kernel::{AttachType, ProgramId};

use crate::error::{Error, Result};
pub use crate::neighbour::Neighbour;

/// What comes of attaching one more program to a cgroup so that others may join it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Joining<'a> {
    /// It is attached, and every other program runs as before.
    Free,
    /// The kernel refuses it: the list is full.
    Full,
    /// The kernel refuses it: this list, of the cgroup or above it, takes one program only.
    Exclusive(&'a Level),
    /// It is attached, and the program of this list above goes out of force.
    Displaces(&'a Level),
    /// These programs run for the cgroup and are attached above what can be seen. Whether they go on cannot be told.
    Unknown(Vec<ProgramId>),
}

/// Decides what comes of joining a list. The rules are those of `hierarchy_allows_attach` and
/// `compute_effective_progs` in the kernel.
pub fn joining(lineage: &Lineage) -> Joining<'_> {
    let Some((own, ancestors)) = lineage.levels.split_first() else {
        return Joining::Unknown(lineage.in_force.clone());
    };
    let nearest = ancestors.iter().find(|level| level.mode() != ListMode::Empty);
    let above = nearest.map(|level| (level, level.mode()));
    match (own.mode(), above) {
        (ListMode::Override | ListMode::Exclusive, _) => return Joining::Exclusive(own),
        // The kernel asks the ancestors also where the cgroup has a list of its own already.
        (_, Some((level, ListMode::Exclusive))) => return Joining::Exclusive(level),
        (ListMode::Multi, _) if own.list.programs.len() >= MAX_PROGRAMS => return Joining::Full,
        // With something of its own the cgroup has put its ancestors' OVERRIDE lists out of force already.
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

/// The programs that were in force before and are not any more, though nobody has detached them, as far as that can be
/// seen; each with the cgroup that it is attached to, or `None` where that is out of sight.
///
/// `ours` has been attached in between.
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
        // What its owner has detached meanwhile is none of our doing.
        .filter(|(id, _)| listed(after, *id) >= listed(before, *id))
        .map(|(id, _)| {
            let level = after.levels.iter().find(|level| level.list.count(id) > 0);
            (id, level.map(|level| level.path.clone()))
        })
        .collect();
    // One that came between the two looks: without ours it would be in force.
    let without_ours = without(after, |id| id == ours);
    if let Joining::Displaces(level) = joining(&without_ours) {
        let new = level.list.programs.iter().map(|program| program.id);
        let known: Vec<_> = gone.iter().map(|(id, _)| *id).collect();
        let new = new.filter(|id| !known.contains(id) && !after.in_force.contains(id));
        gone.extend(new.map(|id| (id, Some(level.path.clone()))));
    }
    gone
}

/// The lists as they would be without programs of ours on the cgroup.
pub fn without(lineage: &Lineage, is_ours: impl Fn(ProgramId) -> bool) -> Lineage {
    let mut lineage = lineage.clone();
    if let Some(own) = lineage.levels.first_mut() {
        own.list.programs.retain(|program| !is_ours(program.id));
    }
    lineage
}

/// The same without them on the cgroups above either.
pub fn without_anywhere(lineage: &Lineage, is_ours: impl Fn(ProgramId) -> bool) -> Lineage {
    let mut lineage = lineage.clone();
    for level in &mut lineage.levels {
        level.list.programs.retain(|program| !is_ours(program.id));
    }
    lineage
}

impl Neighbour {
    /// Names a program. What cannot be read of it is left out.
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

/// Names the programs of a list.
pub fn of_level<B: CgroupBpf>(kernel: &B, level: &Level, at: AttachType) -> Vec<Neighbour> {
    let ids = level.list.programs.iter().map(|program| program.id);
    ids.map(|id| Neighbour::of(kernel, id, at, Some(level.path.clone()))).collect()
}

/// Whether programs of ours may be attached where these lists are. Returns the programs that would go out of force, if
/// that is allowed (`displace`).
///
/// # Errors
/// When the kernel would refuse one, or one would put somebody's program out of force.
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

/// The programs that ours have put out of force after all.
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
