//! Finds out what is attached where, with one query per cgroup and attach type.

use std::collections::{BTreeMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use kernel::cgroup::{Cgroup, below};
use kernel::error::{Call, Error, Kind};
use kernel::list::{ProgramList, Query, Scope};
use kernel::{AttachType, CgroupId};
use nix::errno::Errno;

use super::gap;
use super::programs::{Presence, Programs};
use super::walk::Visitor;
use crate::facts::{AttachmentFact, Coverage, Gap, Look, Note, Subject};

/// The number of queries for one list if its programs keep disappearing before their info is read.
const ATTEMPTS: usize = 10;

/// Queries every cgroup that a walk shows it.
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

    /// Returns the attachments by cgroup and, within one, in the kernel's order.
    pub(super) fn into_facts(mut self) -> (Vec<AttachmentFact>, Coverage) {
        self.found.sort_by(|a, b| a.cgroup.cmp(&b.cgroup));
        (self.found, self.coverage)
    }

    /// Queries a cgroup and everything below it at once, through the cgroup iterator. `load` grows by the time spent on
    /// loading the iterator.
    ///
    /// # Errors
    /// The kernel has no such iterator, or a cgroup that the iterator visited cannot be identified.
    pub(super) fn iterate(
        &mut self,
        root: &Cgroup,
        mount: &Path,
        load: &mut Duration,
    ) -> kernel::Result<()> {
        let walked =
            kernel::walk::walk(root.as_fd(), self.types, self.query.tells_program_flags())?;
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

    /// Keeps the lists of a cgroup that the iterator visited. Returns false if this had to query the cgroup itself.
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
        // A list has changed since the iterator read it, so query the cgroup for its current lists.
        self.found.truncate(before);
        self.visit(cgroup.as_fd(), id, path);
        false
    }

    /// Discards everything found and adds a gap, because the user asked for an iterator that does not work.
    pub(super) fn cannot_iterate(&mut self, error: &Error) {
        self.forget();
        let why = format!("--method query needs no iterator; {}", bpf::advice::why(error));
        let what = "the programs attached to cgroups".to_owned();
        self.coverage.gaps.push(Gap { about: Subject::Cgroups, what, why });
    }

    /// Discards everything found; the caller then queries every cgroup. The result is as good, but a note reports an
    /// unexpected error of the iterator.
    pub(super) fn do_without_iterator(&mut self, error: &Error) {
        self.forget();
        tracing::debug!("the cgroups are asked one by one: {}", bpf::advice::explained(error));
        if let Some(log) = error.log() {
            // This target tells the formatter that the message has many lines.
            tracing::debug!(target: "log", "{log}");
        }
        if !matches!(error.kind(), Kind::Unsupported | Kind::Denied) {
            let what = "the iterator over cgroups".to_owned();
            let why = format!("every cgroup was asked instead; {}", bpf::advice::why(error));
            self.coverage.notes.push(Note { what, why });
        }
    }

    fn forget(&mut self) {
        self.found.clear();
        self.coverage = Coverage { attach_types: self.types.to_owned(), ..Coverage::default() };
    }

    /// Queries those cgroups again on which a look found attachments.
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
                // Another cgroup has this path now, so the sought one is gone.
                Ok(_) => self.coverage.cgroups_vanished += 1,
                Err(error) => self.lose(&error, shown(path)),
            }
        }
    }

    /// Queries one cgroup for one attach type, and reads the programs in the answer.
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

    /// Keeps the rest of a list that changed during every query. The programs that still exist were attached at the
    /// time of the query. The others are no longer attached.
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
            // Another program disappeared just now, so read the programs one by one.
            for program in &list.programs {
                let one = ProgramList { programs: vec![*program], ..list.clone() };
                self.read(&one, id, path, attach_type);
            }
        }
    }

    /// Keeps a list. Returns false, and keeps nothing, if one of its programs is gone.
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
            // The kernel refuses every query, and a gap already says so.
            self.coverage.cgroups_denied += 1;
            return;
        }
        let before = self.found.len();
        for &attach_type in self.types {
            if let Err(errno) = self.ask(cgroup, id, path, attach_type) {
                let what = place(path, attach_type);
                let error = Error::new(Call::Query, what.clone(), errno);
                if error.kind() == Kind::Vanished {
                    // The cgroup's attachments went with the cgroup.
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

/// Writes out a path for a message. A snapshot keeps the message, so the text must show every byte.
pub(super) fn shown(path: &Path) -> String {
    let byte = |byte: &u8| format!("\\x{byte:02x}");
    let character = |it: char| match it {
        '\\' | '\'' | '"' => it.to_string(),
        '\n' | '\r' | '\t' => it.escape_default().to_string(),
        control if control.is_control() => format!("\\x{:02x}", u32::from(control)),
        other => other.escape_debug().to_string(),
    };
    let chunks = path.as_os_str().as_encoded_bytes().utf8_chunks();
    let shown = chunks.map(|chunk| {
        let valid: String = chunk.valid().chars().map(character).collect();
        valid + &chunk.invalid().iter().map(byte).collect::<String>()
    });
    shown.collect()
}

fn place(path: &Path, attach_type: AttachType) -> String {
    format!("{} ({attach_type})", shown(path))
}

#[cfg(test)]
#[path = "attachments_tests.rs"]
mod tests;
