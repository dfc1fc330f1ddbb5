//! Models attach, detach and query.

use kernel::lineage::{Level, Lineage};
use kernel::list::{AttachFlags, AttachedProgram, ProgramList, Scope};
use kernel::{AttachType, CgroupId, ProgramId, ProgramInfo};
use nix::errno::Errno;

use super::Kernel;
use crate::model::list::{self, Hold, List};

impl Kernel {
    /// Models `BPF_PROG_ATTACH`.
    pub(crate) fn attach(
        &mut self,
        program: ProgramId,
        cgroup: CgroupId,
        attach_type: AttachType,
        flags: AttachFlags,
        replace: Option<ProgramId>,
        expected_revision: Option<u64>,
    ) -> nix::Result<()> {
        let mut known = AttachFlags::OVERRIDE | AttachFlags::MULTI | AttachFlags::REPLACE;
        if self.version.has_preorder() {
            known |= AttachFlags::PREORDER;
        }
        if self.version.has_insertion() {
            known |= list::INSERTION;
        }
        if !known.contains(flags) {
            return Err(Errno::EINVAL);
        }
        self.check_revision_known(expected_revision)?;
        self.check_type(program, attach_type)?;
        self.tree.online(cgroup)?;
        let replaces = flags.contains(AttachFlags::MULTI | AttachFlags::REPLACE);
        let replace = if replaces { Some(self.replaced(replace, attach_type)?) } else { None };
        self.join(Hold::Program(program), cgroup, attach_type, flags, replace, expected_revision)?;
        self.ensure_storage(program, cgroup, attach_type);
        self.reap();
        Ok(())
    }

    /// Returns the program to replace, which must be of the right type. If no program is named, the descriptor is 0,
    /// which belongs to no program.
    fn replaced(
        &self,
        named: Option<ProgramId>,
        attach_type: AttachType,
    ) -> nix::Result<ProgramId> {
        named.filter(|id| self.is_of_type(*id, attach_type)).ok_or(Errno::EINVAL)
    }

    fn is_of_type(&self, id: ProgramId, attach_type: AttachType) -> bool {
        self.programs
            .get(&id)
            .is_some_and(|program| program.attach_type.program_type() == attach_type.program_type())
    }

    fn check_revision_known(&self, expected: Option<u64>) -> nix::Result<()> {
        if expected.is_some() && !self.version.has_revisions() {
            Err(Errno::EINVAL)
        } else {
            Ok(())
        }
    }

    pub(super) fn join(
        &mut self,
        hold: Hold,
        cgroup: CgroupId,
        attach_type: AttachType,
        flags: AttachFlags,
        replace: Option<ProgramId>,
        expected_revision: Option<u64>,
    ) -> nix::Result<()> {
        list::check_flags(flags)?;
        self.check_revision(cgroup, attach_type, expected_revision)?;
        let ancestors = self.tree.lists(cgroup, attach_type).filter(|(id, _)| *id != cgroup);
        if !list::ancestors_allow(ancestors.map(|(_, list)| list)) {
            return Err(Errno::EPERM);
        }
        self.tree.list_mut(cgroup, attach_type)?.attach(hold, flags, replace)
    }

    fn check_revision(
        &self,
        cgroup: CgroupId,
        attach_type: AttachType,
        expected: Option<u64>,
    ) -> nix::Result<()> {
        let revision = self.tree.list(cgroup, attach_type).map_or(1, |list| list.revision);
        if expected.is_some_and(|expected| expected != revision) {
            return Err(Errno::ESTALE);
        }
        Ok(())
    }

    /// Creates the state when a program is first attached to a cgroup. The state stays when the program is detached.
    pub(super) fn ensure_storage(
        &mut self,
        id: ProgramId,
        cgroup: CgroupId,
        attach_type: AttachType,
    ) {
        if let Some(load) = self.programs.get(&id).and_then(|program| program.load) {
            self.states.entry((load, cgroup)).or_default();
            if attach_type != AttachType::SOCK_OPS {
                self.counters.entry((load, cgroup, attach_type)).or_default();
            }
        }
    }

    /// Models `BPF_PROG_DETACH`. A program of another type counts as no program.
    pub(crate) fn detach(
        &mut self,
        program: Option<ProgramId>,
        cgroup: CgroupId,
        attach_type: AttachType,
        flags: AttachFlags,
        expected_revision: Option<u64>,
    ) -> nix::Result<()> {
        if !flags.is_empty() {
            return Err(Errno::EINVAL);
        }
        self.check_revision_known(expected_revision)?;
        self.tree.online(cgroup)?;
        self.check_revision(cgroup, attach_type, expected_revision)?;
        let named = program.filter(|id| self.is_of_type(*id, attach_type));
        self.tree.list_mut(cgroup, attach_type)?.detach(named.map(Hold::Program))?;
        self.reap();
        Ok(())
    }

    /// Models `BPF_PROG_QUERY`.
    pub(crate) fn query(
        &self,
        cgroup: CgroupId,
        attach_type: AttachType,
        scope: Scope,
    ) -> nix::Result<ProgramList> {
        self.tree.online(cgroup)?;
        let none = List::default();
        let list = self.tree.list(cgroup, attach_type).unwrap_or(&none);
        Ok(match scope {
            Scope::Local => ProgramList {
                programs: self.attached(list.entries.iter().map(|entry| entry.hold), || {
                    self.version.since(6, 0).then_some(list.flags)
                }),
                flags: list.flags,
                revision: self.version.has_revisions().then_some(list.revision),
            },
            Scope::Effective => {
                let effective = list::effective(self.tree.lists(cgroup, attach_type));
                ProgramList {
                    programs: self.attached(effective.iter().map(|(_, entry)| entry.hold), || None),
                    flags: AttachFlags::empty(),
                    revision: None,
                }
            }
        })
    }

    /// Returns the lists of a cgroup and its ancestors. Every cgroup is visible.
    pub(crate) fn lineage(
        &self,
        cgroup: CgroupId,
        attach_type: AttachType,
    ) -> nix::Result<Lineage> {
        let levels = self.tree.upwards(cgroup).map(|(id, node)| {
            // The real call does not ask for the flags of each program.
            let mut list = self.query(id, attach_type, Scope::Local)?;
            for program in &mut list.programs {
                program.flags = None;
            }
            Ok(Level { cgroup: id, path: node.path.clone(), list })
        });
        let in_force = self.query(cgroup, attach_type, Scope::Effective)?;
        Ok(Lineage {
            attach_type,
            levels: levels.collect::<nix::Result<_>>()?,
            is_whole: true,
            in_force: in_force.programs.iter().map(|program| program.id).collect(),
        })
    }

    /// Returns what the real kernel would say about a program, as far as the model knows it.
    pub(crate) fn program_info(&self, id: ProgramId) -> Option<ProgramInfo> {
        let program = self.programs.get(&id)?;
        Some(ProgramInfo {
            id,
            name: program.name.clone(),
            tag: format!("{:0>16}", program.name),
            kind: program.attach_type.program_type().to_owned(),
            loaded_at_ns: program.loaded_at,
            uid: 0,
            map_ids: Vec::new(),
            has_btf: false,
        })
    }

    fn attached(
        &self,
        holds: impl Iterator<Item = Hold>,
        flags: impl Fn() -> Option<AttachFlags>,
    ) -> Vec<AttachedProgram> {
        holds
            .filter_map(|hold| Some(AttachedProgram { id: self.program_of(hold)?, flags: flags() }))
            .collect()
    }
}
