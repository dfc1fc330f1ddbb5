//! Finds other people's programs and limits around a cgroup, so that `limit` can report them when it arms.

mod words;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry::Vacant;
use std::fs;
use std::path::{Path, PathBuf};

use bpf::ThrottleProgram;
use bpf::advice::explained;
use bpf::ledger::{self, Entry};
use bpf::limits::{Rate, Traffic};
use kernel::cgroup::Cgroup;
use kernel::error::{Call, Error, Kind};
use kernel::lineage::{Lineage, ListMode, lineages};
use kernel::list::{Scope, query};
use kernel::{AttachType, CgroupId, ProgramId, ProgramIdentity, objects};
use terminal::escape;
use throttle_core::neighbours::Neighbour;
use throttle_core::{Direction, Spec, Started};

use self::words::{beside, sentences};
use crate::words::{say, warn};

/// The position of another limit, relative to the cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Relation {
    /// On the same cgroup.
    Same,
    /// On an ancestor.
    Above,
    /// On a descendant.
    Below,
}

/// Another limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Other {
    pub(crate) relation: Relation,
    pub(crate) cgroup: PathBuf,
    pub(crate) direction: Direction,
    pub(crate) rate: Rate,
    /// The traffic that it limits. `None` means that a later version defined it and this version does not know it.
    pub(crate) traffic: Option<Traffic>,
    /// Its owner, in words.
    pub(crate) whose: String,
}

/// Somebody else's program that also runs for the cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Beside {
    pub(crate) id: ProgramId,
    /// `None` if the name cannot be read.
    pub(crate) name: Option<String>,
    pub(crate) attach_type: AttachType,
    pub(crate) mode: ListMode,
    pub(crate) cgroup: PathBuf,
}

/// The limits and programs that were found.
#[derive(Debug, Default)]
pub(crate) struct Around {
    pub(crate) limits: Vec<Other>,
    pub(crate) beside: Vec<Beside>,
}

/// The findings, or the reason why nothing could be seen.
pub(crate) type Found = kernel::Result<Around>;

/// Looks for limits on a cgroup, on its ancestors, and on its descendants. It queries two lists of each cgroup, which
/// takes some ten microseconds a cgroup. `ours` are the programs of a limit that is armed there already, if any.
pub(crate) fn around(cgroup: &Path, ours: &[(AttachType, ProgramId)]) -> Found {
    let open = Cgroup::open(cgroup)?;
    let attach_types = Direction::BOTH.map(Direction::attach_type);
    let ours = ours.iter().map(|(_, id)| *id).collect();
    let mut look = Look { ours, programs: BTreeMap::new(), ledger: None, found: Around::default() };
    for (lineage, direction) in lineages(&open, &attach_types)?.iter().zip(Direction::BOTH) {
        look.beside(lineage)?;
        for (distance, level) in lineage.levels.iter().enumerate() {
            let relation = if distance == 0 { Relation::Same } else { Relation::Above };
            let place = Place { relation, path: &level.path, id: level.cgroup, direction };
            look.at(&place, level.list.programs.iter().map(|program| program.id))?;
        }
    }
    look.below(cgroup)?;
    Ok(look.found)
}

struct Place<'a> {
    relation: Relation,
    path: &'a Path,
    id: CgroupId,
    direction: Direction,
}

struct Look {
    /// The programs of the limit that asks.
    ours: Vec<ProgramId>,
    /// The programs met so far. `None` stands for a program that has disappeared.
    programs: BTreeMap<ProgramId, Option<ThrottleProgram>>,
    ledger: Option<Vec<Entry>>,
    found: Around,
}

fn is_ours(program: &ThrottleProgram) -> bool {
    program.info().name.starts_with("chadthrottle")
}

impl Look {
    fn open(&mut self, id: ProgramId) -> kernel::Result<()> {
        if let Vacant(new) = self.programs.entry(id) {
            new.insert(objects::program(id)?.map(ThrottleProgram::from));
        }
        Ok(())
    }

    /// Collects other people's programs that are in force, as far as they are visible.
    fn beside(&mut self, lineage: &Lineage) -> kernel::Result<()> {
        for level in &lineage.levels {
            for program in &level.list.programs {
                let id = program.id;
                if !lineage.in_force.contains(&id) {
                    continue;
                }
                self.open(id)?;
                let Some(Some(open)) = self.programs.get(&id) else { continue };
                if is_ours(open) {
                    continue;
                }
                self.found.beside.push(Beside {
                    id,
                    name: Some(open.whole_name()).filter(|name| !name.is_empty()),
                    attach_type: lineage.attach_type,
                    mode: level.mode(),
                    cgroup: level.path.clone(),
                });
            }
        }
        Ok(())
    }

    fn at(
        &mut self,
        place: &Place<'_>,
        ids: impl Iterator<Item = ProgramId>,
    ) -> kernel::Result<()> {
        for id in ids {
            let Some(other) = self.limit(place, id)? else { continue };
            self.found.limits.push(other);
        }
        Ok(())
    }

    /// Returns the limit of a program at a place. `None` means that it is no limit's program, or that it has
    /// disappeared.
    fn limit(&mut self, place: &Place<'_>, id: ProgramId) -> kernel::Result<Option<Other>> {
        if self.ours.contains(&id) {
            return Ok(None);
        }
        self.open(id)?;
        let Some(Some(program)) = self.programs.get(&id) else { return Ok(None) };
        if !is_ours(program) {
            return Ok(None);
        }
        let state = match program.state(place.id, place.direction.attach_type()) {
            Ok(Some(state)) if state.is_armed() => state,
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == Kind::Vanished => return Ok(None),
            Err(error) => return Err(error),
        };
        let Ok(rate) = Rate::from_bytes_per_second(state.rate()) else { return Ok(None) };
        let ledger = self.ledger.get_or_insert_with(|| {
            // Without the ledger, the limit has no name in the message. It is still reported.
            let read = ledger::read(Path::new(ledger::DEFAULT_DIR)).unwrap_or_default();
            read.entries.into_iter().map(|(_, entry)| entry).collect()
        });
        let whose = whose(program, place.id, ledger);
        Ok(Some(Other {
            relation: place.relation,
            cgroup: place.path.to_owned(),
            direction: place.direction,
            rate,
            traffic: state.traffic(),
            whose,
        }))
    }

    /// Collects the limits below `top`. A cgroup that disappears meanwhile has no limits any more.
    fn below(&mut self, top: &Path) -> kernel::Result<()> {
        let mut folders = children(top)?;
        while let Some(folder) = folders.pop() {
            match self.one_below(&folder).and_then(|()| children(&folder)) {
                Ok(children) => folders.extend(children),
                Err(error) if error.kind() == Kind::Vanished => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn one_below(&mut self, folder: &Path) -> kernel::Result<()> {
        let cgroup = Cgroup::open(folder)?;
        for direction in Direction::BOTH {
            let list = query(&cgroup, direction.attach_type(), Scope::Local, false)?;
            let (relation, id) = (Relation::Below, cgroup.id());
            let place = Place { relation, path: folder, id, direction };
            self.at(&place, list.programs.iter().map(|program| program.id))?;
        }
        Ok(())
    }
}

fn children(folder: &Path) -> kernel::Result<Vec<PathBuf>> {
    let fail = |error: std::io::Error| {
        Error::from_io(Call::OpenCgroup, folder.display().to_string(), &error)
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Names the owner of a limit, such as `process 4711 (chadthrottle)` or `the pinned throttle 3`.
fn whose(program: &ThrottleProgram, cgroup: CgroupId, ledger: &[Entry]) -> String {
    if let Some(entry) = recorded(&program.info().identity(), cgroup, ledger) {
        return format!("the pinned throttle {}", escape(&entry.throttle));
    }
    let Ok(Some(owner)) = bpf::owner_of(program) else { return "an unknown owner".to_owned() };
    let pid = owner.pid;
    if kernel::process::pid_namespace().is_ok_and(|here| here != owner.pid_namespace) {
        return format!("process {pid} of another pid namespace");
    }
    match owner.is_alive() {
        Ok(Some(true)) => {
            let comm = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
            let comm = escape(String::from_utf8_lossy(&comm).trim_end());
            format!("process {pid} ({comm})")
        }
        Ok(Some(false)) => format!("process {pid}, which has ended"),
        Ok(None) | Err(_) => format!("process {pid} (of which nothing can be seen from here)"),
    }
}

/// Returns the record of the pinned throttle that has this program on this cgroup.
fn recorded<'a>(
    program: &ProgramIdentity,
    cgroup: CgroupId,
    ledger: &'a [Entry],
) -> Option<&'a Entry> {
    let is_it = |entry: &&Entry| {
        entry.persist
            && entry.cgroup_id == cgroup
            && entry.attachments.iter().any(|it| it.identity() == *program)
    };
    ledger.iter().find(is_it)
}

/// Warns about the programs that the new limit puts out of force.
pub(crate) fn tell_of_displaced(displaced: &[Neighbour]) {
    for program in displaced {
        warn(&format!("out of force here as long as this limit lasts: {program}"));
    }
}

/// Prints what the new limit does to other programs, and which other limits apply as well.
pub(crate) fn tell(others: &Found, spec: &Spec, started: &Started) {
    tell_of_displaced(&started.displaced);
    match others {
        Ok(around) => {
            let beside = beside(&around.beside, spec, &started.displaced);
            for sentence in beside.iter().chain(&sentences(&around.limits, spec)) {
                say(sentence);
            }
        }
        Err(error) => say(&format!(
            "whether other limits hold on this cgroup, above or below it cannot be seen: {}",
            explained(error)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A throttle that its owner left pinned on purpose.
    fn pinned() -> Entry {
        let snapshot = include_str!("../../../auditor/tests/snapshots-in/pinned.json");
        let snapshot: auditor::facts::Snapshot = serde_json::from_str(snapshot).unwrap();
        snapshot.looks[0].ledger[0].clone()
    }

    #[test]
    fn a_limit_is_that_of_a_record_which_names_its_cgroup_and_program_and_is_pinned() {
        type Edit<'a> = &'a dyn Fn(&mut Entry);
        let (program, cgroup) = (pinned().attachments[0].identity(), pinned().cgroup_id);
        let cases: [(&str, Edit<'_>); 6] = [
            ("same", &|_| ()),
            ("cgroup", &|entry| entry.cgroup_id.0 += 1),
            ("owner's own", &|entry| entry.persist = false),
            ("program", &|entry| entry.attachments[0].program_id.0 += 1),
            ("tag", &|entry| entry.attachments[0].tag.replace_range(..1, "0")),
            ("load time", &|entry| entry.attachments[0].loaded_at_ns += 1),
        ];
        for (what, edit) in cases {
            let mut entry = pinned();
            edit(&mut entry);
            let ledger = [entry];
            let found = recorded(&program, cgroup, &ledger);
            assert_eq!(found.is_some(), what == "same", "{what}");
        }
    }
}
