//! What is attached where: one query for each cgroup and attach type.

use std::collections::{BTreeMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use bpf::cgroup::{Cgroup, below};
use bpf::error::{Call, Error, Kind};
use bpf::list::{ProgramList, Query, Scope};
use bpf::{AttachType, CgroupId};
use nix::errno::Errno;

use super::gap;
use super::programs::{Presence, Programs};
use super::walk::Visitor;
use crate::escape::escape_bytes;
use crate::snapshot::{AttachmentFact, Coverage, Gap, Look, Subject};

/// How often a list is asked for again when a program of it went away before it could be read.
const ATTEMPTS: usize = 10;

/// Asks every cgroup that it is shown.
pub(super) struct Attachments<'a, 'b> {
    query: Query,
    types: &'a [AttachType],
    programs: &'a mut Programs<'b>,
    found: Vec<AttachmentFact>,
    coverage: Coverage,
}

impl<'a, 'b> Attachments<'a, 'b> {
    pub(super) fn new(
        types: &'a [AttachType],
        program_flags: bool,
        programs: &'a mut Programs<'b>,
    ) -> Self {
        Self {
            query: Query::new(program_flags),
            types,
            programs,
            found: Vec::new(),
            coverage: Coverage { attach_types: types.to_owned(), ..Coverage::default() },
        }
    }

    /// By cgroup; within one, in the kernel's order.
    pub(super) fn into_facts(mut self) -> (Vec<AttachmentFact>, Coverage) {
        self.found.sort_by(|a, b| a.cgroup.cmp(&b.cgroup));
        (self.found, self.coverage)
    }

    /// Asks cgroups again that a look has found something attached to.
    pub(super) fn revisit(&mut self, mount: &Path, before: &Look, cgroups: &HashSet<CgroupId>) {
        let paths: BTreeMap<CgroupId, &Path> = before
            .attachments
            .iter()
            .filter(|fact| cgroups.contains(&fact.cgroup_id))
            .map(|fact| (fact.cgroup_id, fact.cgroup.as_path()))
            .collect();
        for (id, path) in paths {
            match Cgroup::open(&below(mount, path)) {
                Ok(cgroup) if cgroup.id() == id => self.visit(cgroup.as_fd(), id, path),
                // Another one has its name: this one has gone.
                Ok(_) => self.coverage.cgroups_vanished += 1,
                Err(error) => self.lose(&error, shown(path)),
            }
        }
    }

    /// Asks one cgroup for one attach type, and for the programs in the answer.
    fn ask(
        &mut self,
        cgroup: BorrowedFd<'_>,
        id: CgroupId,
        path: &Path,
        attach_type: AttachType,
    ) -> Result<(), Errno> {
        for _ in 0..ATTEMPTS {
            let list = self.query.ask(cgroup, attach_type, Scope::Local)?;
            if list.programs.is_empty() || self.read(&list, id, path, attach_type) {
                return Ok(());
            }
        }
        self.coverage.gaps.push(Gap {
            about: Subject::Cgroups,
            what: place(path, attach_type),
            why: "its programs changed each time that they were looked at: look again".to_owned(),
        });
        Ok(())
    }

    /// Keeps a list; false if one of its programs has gone, and with it the list as it was.
    fn read(
        &mut self,
        list: &ProgramList,
        id: CgroupId,
        path: &Path,
        attach_type: AttachType,
    ) -> bool {
        let before = self.found.len();
        for program in &list.programs {
            let (presence, state) = self.programs.attached(program.id, id, attach_type);
            if presence == Presence::Gone {
                self.found.truncate(before);
                return false;
            }
            self.found.push(AttachmentFact {
                cgroup: path.to_owned(),
                cgroup_id: id,
                attach_type,
                program_id: program.id,
                list_flags: list.flags.bits(),
                program_flags: program.flags.map(|flags| flags.bits()),
                slots_used: u32::try_from(list.programs.len()).unwrap_or(u32::MAX),
                state,
            });
        }
        true
    }

    fn lose(&mut self, error: &Error, what: String) {
        if error.kind() == Kind::Vanished {
            self.coverage.cgroups_vanished += 1;
            return;
        }
        self.coverage.cgroups_denied += 1;
        self.coverage.gaps.push(gap(Subject::Cgroups, what, error));
    }
}

impl Visitor for Attachments<'_, '_> {
    fn visit(&mut self, cgroup: BorrowedFd<'_>, id: CgroupId, path: &Path) {
        if self.types.is_empty() {
            // Nobody may ask anything: there is a gap that says so already.
            self.coverage.cgroups_denied += 1;
            return;
        }
        let before = self.found.len();
        for &attach_type in self.types {
            if let Err(errno) = self.ask(cgroup, id, path, attach_type) {
                let what = place(path, attach_type);
                let error = Error::new(Call::Query, what.clone(), errno);
                if error.kind() == Kind::Vanished {
                    // What it had went with it.
                    self.found.truncate(before);
                }
                return self.lose(&error, what);
            }
        }
        self.coverage.cgroups_visited += 1;
    }

    fn fail(&mut self, path: &Path, errno: Errno) {
        let what = shown(path);
        self.lose(&Error::new(Call::OpenCgroup, what.clone(), errno), what);
    }

    fn stop(&mut self, path: &Path, errno: Errno) {
        let what = format!("the cgroups beside {} and above it", shown(path));
        let error = Error::new(Call::OpenCgroup, format!("the parent of {}", shown(path)), errno);
        self.coverage.gaps.push(gap(Subject::Cgroups, what, &error));
    }
}

/// A path in a message.
pub(super) fn shown(path: &Path) -> String {
    escape_bytes(path.as_os_str().as_encoded_bytes())
}

fn place(path: &Path, attach_type: AttachType) -> String {
    format!("{} ({attach_type})", shown(path))
}

#[cfg(test)]
#[path = "attachments_tests.rs"]
mod tests;
