//! What is attached where: one query for each cgroup and attach type.

use std::collections::{BTreeMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use bpf::cgroup::{Cgroup, below};
use bpf::error::{Call, Error, Kind};
use bpf::list::{ProgramList, Query, Scope};
use bpf::{AttachType, CgroupId};
use nix::errno::Errno;

use super::gap;
use super::programs::{Presence, Programs};
use super::walk::Visitor;
use crate::escape::escape_bytes;
use crate::snapshot::{AttachmentFact, Coverage, Gap, Look, Note, Subject};

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

    /// Asks a cgroup and everything below it, all at once, for what is attached. `load` grows by the time that
    /// only loading the iterator took.
    ///
    /// # Errors
    /// When there is no such iterator, or it cannot be told which cgroups it has met: then nothing was kept.
    pub(super) fn iterate(
        &mut self,
        root: &Cgroup,
        mount: &Path,
        load: &mut Duration,
    ) -> bpf::Result<()> {
        let walked = bpf::walk::walk(root.as_fd(), self.types, self.query.tells_program_flags())?;
        *load += walked.load;
        let (mut vanished, mut asked) = (0, 0);
        for (id, lists) in walked.lists {
            let cgroup = match Cgroup::open_by_id(root, id) {
                Ok(cgroup) => cgroup,
                Err(error) if error.kind() == Kind::Vanished => {
                    vanished += 1;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let path = cgroup.path().strip_prefix(mount).map_err(|_| {
                Error::new(Call::OpenCgroup, shown(cgroup.path()), Errno::EXDEV)
                    .with_detail("it is not below the mount that was gone over")
            })?;
            let path = Path::new("/").join(path);
            asked += u64::from(!self.keep(&lists, &cgroup, &path));
        }
        self.coverage.cgroups_visited += walked.visited.saturating_sub(vanished + asked);
        self.coverage.cgroups_vanished += vanished;
        Ok(())
    }

    /// Keeps the lists of a cgroup that the iterator has met; false if the cgroup had to be asked itself.
    fn keep(
        &mut self,
        lists: &BTreeMap<AttachType, ProgramList>,
        cgroup: &Cgroup,
        path: &Path,
    ) -> bool {
        let before = self.found.len();
        let id = cgroup.id();
        if lists.iter().all(|(&attach_type, list)| self.read(list, id, path, attach_type)) {
            return true;
        }
        // What was attached a moment ago has changed: as it is now is told by the cgroup itself.
        self.found.truncate(before);
        self.visit(cgroup.as_fd(), id, path);
        false
    }

    /// Nothing of what was found counts: there was no iterator, though it was asked for.
    pub(super) fn cannot_iterate(&mut self, error: &Error) {
        self.forget();
        let why = format!("--method query needs no iterator; {}", error.why());
        let what = "the programs attached to cgroups".to_owned();
        self.coverage.gaps.push(Gap { about: Subject::Cgroups, what, why });
    }

    /// Nothing of what was found counts: every cgroup will be asked instead. That is as good; but where it should
    /// not have been necessary it is told.
    pub(super) fn do_without_iterator(&mut self, error: &Error) {
        self.forget();
        tracing::debug!("the cgroups are asked one by one: {error}");
        error.log().into_iter().for_each(crate::talk::log);
        if !matches!(error.kind(), Kind::Unsupported | Kind::Denied) {
            let what = "the iterator over cgroups".to_owned();
            let why = format!("every cgroup was asked instead; {}", error.why());
            self.coverage.notes.push(Note { what, why });
        }
    }

    fn forget(&mut self) {
        self.found.clear();
        self.coverage = Coverage { attach_types: self.types.to_owned(), ..Coverage::default() };
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
        let mut last = ProgramList::default();
        for _ in 0..ATTEMPTS {
            last = self.query.ask(cgroup, attach_type, Scope::Local)?;
            if last.programs.is_empty() || self.read(&last, id, path, attach_type) {
                return Ok(());
            }
        }
        self.read_the_rest(last, id, path, attach_type);
        Ok(())
    }

    /// Keeps what is still there of a list that has changed each time: those programs were attached when it was asked
    /// for, and the others are attached no more.
    fn read_the_rest(
        &mut self,
        mut list: ProgramList,
        id: CgroupId,
        path: &Path,
        attach_type: AttachType,
    ) {
        self.coverage.changing_lists += 1;
        let is_here = |presence| presence == Presence::Here;
        list.programs.retain(|it| is_here(self.programs.attached(it.id, id, attach_type).0));
        if !self.read(&list, id, path, attach_type) {
            // Another one has gone in this very moment: one by one.
            for program in &list.programs {
                let one = ProgramList { programs: vec![*program], ..list.clone() };
                self.read(&one, id, path, attach_type);
            }
        }
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
