//! A cgroup's own list and those of its ancestors: what a program that joins the list does to the others follows from
//! them.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{Mode, fstat};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, fstatfs};

use crate::attach::attach_type::AttachType;
use crate::attach::list::{AttachFlags, ProgramList, Query, Scope, place};
use crate::attach::walk;
use crate::cgroup::{Cgroup, DIRECTORY, ROOT_CGROUP_ID, shown};
use crate::error::{Call, Error, Result};
use crate::object::ids::{CgroupId, ProgramId};

/// What is attached to one cgroup for one attach type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Level {
    /// The cgroup.
    pub cgroup: CgroupId,
    /// Its directory, for messages.
    pub path: PathBuf,
    /// Its list.
    pub list: ProgramList,
}

impl Level {
    /// What the list lets others do, in one word.
    pub fn mode(&self) -> ListMode {
        if self.list.programs.is_empty() {
            ListMode::Empty
        } else if self.list.flags.contains(AttachFlags::MULTI) {
            ListMode::Multi
        } else if self.list.flags.contains(AttachFlags::OVERRIDE) {
            ListMode::Override
        } else {
            ListMode::Exclusive
        }
    }
}

/// What a list lets others do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListMode {
    /// Nothing is attached, so that any kind of list can begin.
    Empty,
    /// `BPF_F_ALLOW_MULTI`: others may join, and those of descendants run beside it.
    Multi,
    /// `BPF_F_ALLOW_OVERRIDE`: one program, and it goes out of force where a descendant has one.
    Override,
    /// No flag: one program, and no other here or below.
    Exclusive,
}

/// The lists that matter to a cgroup for one attach type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lineage {
    /// The attach type.
    pub attach_type: AttachType,
    /// The cgroup itself, then its ancestors, nearest first.
    pub levels: Vec<Level>,
    /// The last level is the root of the hierarchy. If not, there are ancestors that this mount does not show.
    pub is_whole: bool,
    /// The programs that run for the cgroup, in order, those of ancestors out of sight included.
    pub in_force: Vec<ProgramId>,
}

/// Asks a cgroup and its ancestors for the lists of these attach types.
///
/// Needs `CAP_NET_ADMIN`. Ancestors above the top of the mount that the cgroup was opened on are out of sight. Where it
/// matters what they have, an iterator asks them ([`walk::upwards`]), if the kernel has it and the rights are there. The
/// programs in force are told all the same. Nothing is left behind.
///
/// # Errors
/// `Denied` without the right; `Vanished` when the cgroup was removed.
pub fn lineages(cgroup: &Cgroup, attach_types: &[AttachType]) -> Result<Vec<Lineage>> {
    let mut lineages = in_sight(cgroup, attach_types)?;
    if lineages.iter().any(Lineage::hides_what_matters)
        && let Ok(above) = walk::upwards(cgroup.as_fd(), attach_types)
    {
        complete_all(&mut lineages, &above);
    }
    Ok(lineages)
}

/// The same with every ancestor that has programs, whether this mount shows it or not.
///
/// # Errors
/// Those of [`lineages`]; where ancestors are out of sight also those of [`walk::upwards`], which needs Linux 6.1.
pub fn whole_lineages(cgroup: &Cgroup, attach_types: &[AttachType]) -> Result<Vec<Lineage>> {
    let mut lineages = in_sight(cgroup, attach_types)?;
    if lineages.iter().any(|lineage| !lineage.is_whole) {
        let above = walk::upwards(cgroup.as_fd(), attach_types)?;
        complete_all(&mut lineages, &above);
    }
    Ok(lineages)
}

fn complete_all(lineages: &mut [Lineage], above: &[(CgroupId, BTreeMap<AttachType, ProgramList>)]) {
    for lineage in lineages {
        lineage.complete(above);
    }
}

/// The lists of the cgroup and of those ancestors that this mount shows.
fn in_sight(cgroup: &Cgroup, attach_types: &[AttachType]) -> Result<Vec<Lineage>> {
    let (ancestors, is_whole) = ancestors(cgroup)?;
    let mut query = Query::new(false);
    let mut lineages = Vec::new();
    for &attach_type in attach_types {
        let mut ask = |cgroup: &Cgroup, scope| {
            query
                .ask(cgroup.as_fd(), attach_type, scope)
                .map_err(|errno| Error::new(Call::Query, place(cgroup, attach_type), errno))
        };
        let effective = ask(cgroup, Scope::Effective)?;
        let levels = std::iter::once(cgroup).chain(&ancestors).map(|level| {
            let list = ask(level, Scope::Local)?;
            Ok(Level { cgroup: level.id(), path: level.path().to_owned(), list })
        });
        lineages.push(Lineage {
            attach_type,
            levels: levels.collect::<Result<_>>()?,
            is_whole,
            in_force: effective.programs.iter().map(|program| program.id).collect(),
        });
    }
    Ok(lineages)
}

impl Lineage {
    /// Programs run for the cgroup, and none of them is on a list that can be seen. (Beside one on a nearer list only
    /// those of MULTI lists run.)
    fn hides_what_matters(&self) -> bool {
        !self.is_whole
            && !self.in_force.is_empty()
            && self.levels.iter().all(|level| level.list.programs.is_empty())
    }

    /// Adds the ancestors that are out of sight and have programs.
    fn complete(&mut self, above: &[(CgroupId, BTreeMap<AttachType, ProgramList>)]) {
        if self.is_whole {
            return;
        }
        for (id, lists) in above {
            if let Some(list) = lists.get(&self.attach_type)
                && self.levels.iter().all(|level| level.cgroup != *id)
            {
                let path = PathBuf::from(format!("cgroup {id} above this mount"));
                self.levels.push(Level { cgroup: *id, path, list: list.clone() });
            }
        }
        self.is_whole = true;
    }
}

/// The cgroup at the top of the mount that a cgroup was opened on: the nearest to the root that can be reached from it.
///
/// # Errors
/// `Vanished` when the cgroup was removed.
pub fn top(cgroup: &Cgroup) -> Result<CgroupId> {
    let (ancestors, _) = ancestors(cgroup)?;
    Ok(ancestors.last().unwrap_or(cgroup).id())
}

/// The ancestors of a cgroup, nearest first, and whether the last one is the root of the hierarchy.
fn ancestors(cgroup: &Cgroup) -> Result<(Vec<Cgroup>, bool)> {
    let mut found: Vec<Cgroup> = Vec::new();
    loop {
        let last = found.last().unwrap_or(cgroup);
        if last.id() == ROOT_CGROUP_ID {
            return Ok((found, true));
        }
        match parent(last)? {
            Some(parent) => found.push(parent),
            None => return Ok((found, false)),
        }
    }
}

/// The parent, by the open directory and not by its name. `None` at the top of the mount: what lies above it there is
/// another file system's, or the top itself.
fn parent(cgroup: &Cgroup) -> Result<Option<Cgroup>> {
    let target = || format!("the parent of {}", shown(cgroup.path()));
    let fail = |errno| Error::new(Call::OpenCgroup, target(), errno);
    let within = OpenHow::new().flags(DIRECTORY).resolve(ResolveFlag::RESOLVE_NO_XDEV);
    let opened = match openat2(cgroup, "..", within) {
        // Some sandboxes do not know the call.
        Err(Errno::ENOSYS | Errno::EPERM) => openat(cgroup, "..", DIRECTORY, Mode::empty()),
        opened => opened,
    };
    let fd = match opened {
        Ok(fd) => fd,
        // The top of the mount; the folder that holds it may be closed to who may use the mount.
        Err(Errno::EXDEV | Errno::EACCES | Errno::EPERM) => return Ok(None),
        Err(errno) => return Err(fail(errno)),
    };
    if fstatfs(&fd).map_err(fail)?.filesystem_type() != CGROUP2_SUPER_MAGIC {
        return Ok(None);
    }
    let id = CgroupId(fstat(&fd).map_err(fail)?.st_ino);
    if id == cgroup.id() {
        return Ok(None);
    }
    let path = cgroup.path().parent().map_or_else(|| Path::new("..").to_owned(), Path::to_owned);
    Ok(Some(Cgroup::from_parts(fd, id, path)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attach::list::AttachedProgram;

    #[test]
    fn root_ancestors_that_a_mount_does_not_show_are_asked_where_that_matters() {
        use crate::attach::list::attach;
        use crate::object::program::Program;
        use nix::mount::{MsFlags, mount};

        testkit::isolation::isolate();
        let egress = AttachType::INET_EGRESS;
        let scratch = testkit::cgroup::ScratchCgroup::new("hidden");
        let (inner, app) = (scratch.child("inner"), scratch.child("inner/app"));
        let plant = |at: &Path, flags| {
            let program = Program::load_pass("chadtest_above", egress).unwrap();
            attach(program.as_fd(), &Cgroup::open(at).unwrap(), egress, flags, None).unwrap();
            program.info().id
        };
        let part = Path::new("/run/part");
        std::fs::create_dir(part).unwrap();
        let none = None::<&str>;
        mount(Some(&inner), part, none, MsFlags::MS_BIND, none).unwrap();
        let of = |path: &Path| lineages(&Cgroup::open(path).unwrap(), &[egress]).unwrap().remove(0);
        let seen = of(&part.join("app"));
        assert_eq!(seen.levels.len(), 2, "{seen:?}");
        let before = seen.in_force;

        let id = plant(scratch.path(), AttachFlags::OVERRIDE);
        let whole = of(&app);
        assert!(whole.is_whole);
        let level = whole.levels.iter().find(|level| level.list.count(id) > 0).unwrap();
        assert_eq!((level.mode(), level.path.as_path()), (ListMode::Override, scratch.path()));
        let top_of = |path: &Path| top(&Cgroup::open(path).unwrap()).unwrap();
        let inner = Cgroup::open(&inner).unwrap().id();
        assert_eq!((top_of(&part.join("app")), top_of(part)), (inner, inner));
        assert_eq!(top_of(&app), whole.levels.last().unwrap().cgroup);
        let hidden = of(&part.join("app"));
        assert_eq!(hidden.in_force, whole.in_force);
        match walk::upwards(Cgroup::open(&app).unwrap().as_fd(), &[egress]) {
            Ok(_) => {
                assert!(hidden.is_whole, "{hidden:?}");
                let found = hidden.levels.iter().find(|it| it.list.count(id) > 0).unwrap();
                assert_eq!((found.cgroup, found.mode()), (level.cgroup, ListMode::Override));
            }
            // Before Linux 6.1 nobody can ask.
            Err(error) => {
                assert_eq!(error.kind(), crate::error::Kind::Unsupported, "{error}");
                assert!(!hidden.is_whole && hidden.in_force.len() > before.len());
            }
        }
    }

    fn level(flags: AttachFlags, programs: usize) -> Level {
        let program = |_| AttachedProgram { id: ProgramId(7), flags: None };
        let list = ProgramList {
            programs: (0..programs).map(program).collect(),
            flags,
            ..ProgramList::default()
        };
        Level { cgroup: CgroupId(2), path: "/a".into(), list }
    }

    #[test]
    fn a_list_is_of_the_kind_that_its_flags_say_unless_it_is_empty() {
        for (flags, mode) in [
            (AttachFlags::MULTI, ListMode::Multi),
            (AttachFlags::OVERRIDE, ListMode::Override),
            (AttachFlags::empty(), ListMode::Exclusive),
        ] {
            assert_eq!(level(flags, 1).mode(), mode);
            assert_eq!(level(flags, 0).mode(), ListMode::Empty);
        }
    }
}
