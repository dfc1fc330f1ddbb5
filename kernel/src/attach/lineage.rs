//! A cgroup's list and those of its ancestors. They decide what a new program on the cgroup does to other programs.

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

/// The programs attached to one cgroup for one attach type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Level {
    /// The cgroup's id.
    pub cgroup: CgroupId,
    /// The cgroup's directory, for messages.
    pub path: PathBuf,
    /// The cgroup's list.
    pub list: ProgramList,
}

impl Level {
    /// Returns which other programs the list accepts.
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

/// Which other programs a list accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListMode {
    /// The list is empty, so a program with any flags can start it.
    Empty,
    /// `BPF_F_ALLOW_MULTI`: the list accepts other programs, and descendants' programs run too.
    Multi,
    /// `BPF_F_ALLOW_OVERRIDE`: the list has one program, which is out of force for a descendant with its own program.
    Override,
    /// No flag: the list has one program, and no descendant may have another.
    Exclusive,
}

/// The lists that affect a cgroup for one attach type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lineage {
    /// The attach type.
    pub attach_type: AttachType,
    /// The cgroup's level, then its ancestors' levels, nearest first.
    pub levels: Vec<Level>,
    /// The last level is the hierarchy's root. Otherwise this mount does not show all ancestors.
    pub is_whole: bool,
    /// The programs that run for the cgroup, in run order. They include those of ancestors out of sight.
    pub in_force: Vec<ProgramId>,
}

/// Queries a cgroup and its ancestors for these attach types.
///
/// Ancestors above the top of the cgroup's mount are out of sight. If their lists matter, an iterator reads them
/// ([`walk::upwards`]), as far as the kernel and the capabilities allow. The programs in force are complete in any
/// case.
///
/// Needs `CAP_NET_ADMIN`. Leaves nothing behind if the process dies.
///
/// # Errors
/// `Denied` without the capability; `Vanished` when the cgroup was removed.
pub fn lineages(cgroup: &Cgroup, attach_types: &[AttachType]) -> Result<Vec<Lineage>> {
    let mut lineages = in_sight(cgroup, attach_types)?;
    if lineages.iter().any(Lineage::hides_what_matters)
        && let Ok(above) = walk::upwards(cgroup.as_fd(), attach_types)
    {
        complete_all(&mut lineages, &above);
    }
    Ok(lineages)
}

/// Queries as [`lineages`] does, and includes every ancestor with programs, even those that this mount does not show.
///
/// # Errors
/// Those of [`lineages`]. If ancestors are out of sight, also those of [`walk::upwards`], which needs Linux 6.1.
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

/// Queries the cgroup and those ancestors that this mount shows.
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
    /// Tells whether programs run for the cgroup, but no visible list has any program. If a nearer list has a program,
    /// farther lists only matter if they are MULTI.
    fn hides_what_matters(&self) -> bool {
        !self.is_whole
            && !self.in_force.is_empty()
            && self.levels.iter().all(|level| level.list.programs.is_empty())
    }

    /// Adds the ancestors with programs that are out of sight.
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

/// Returns the id of the cgroup at the top of a cgroup's mount. It is the farthest ancestor within reach.
///
/// # Errors
/// `Vanished` when the cgroup was removed.
pub fn top(cgroup: &Cgroup) -> Result<CgroupId> {
    let (ancestors, _) = ancestors(cgroup)?;
    Ok(ancestors.last().unwrap_or(cgroup).id())
}

/// Returns a cgroup's ancestors, nearest first, and whether the last one is the hierarchy's root.
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

/// Opens the parent through the open directory, not by name. Returns `None` at the top of the mount, where `..` is
/// another file system or the top itself.
fn parent(cgroup: &Cgroup) -> Result<Option<Cgroup>> {
    let target = || format!("the parent of {}", shown(cgroup.path()));
    let fail = |errno| Error::new(Call::OpenCgroup, target(), errno);
    let within = OpenHow::new().flags(DIRECTORY).resolve(ResolveFlag::RESOLVE_NO_XDEV);
    let opened = match openat2(cgroup, "..", within) {
        // Some sandboxes refuse this call.
        Err(Errno::ENOSYS | Errno::EPERM) => openat(cgroup, "..", DIRECTORY, Mode::empty()),
        opened => opened,
    };
    let fd = match opened {
        Ok(fd) => fd,
        // This is the top of the mount. Access to the folder above may be denied, even if the mount is accessible.
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
            // Before Linux 6.1 there is no iterator.
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
