//! Indexes one look, so that the rules can query it.

use std::collections::{BTreeSet, HashMap, HashSet};

use bpf::Owner;
use bpf::ledger::{Entry, RecordedAttachment};
use kernel::{AttachType, CgroupId, LinkId, ProgramId};

use super::correlate::correlate;
use super::ours::Ours;
use crate::facts::{
    AttachmentFact, DeviceLinkFact, Gap, HolderFact, LinkFact, Look, Object, PinFact, ProgramFact,
    Scope, Subject, Vantage,
};

/// A look with its indices.
pub(super) struct Facts<'a> {
    pub(super) host: &'a Vantage,
    pub(super) scope: &'a Scope,
    pub(super) look: &'a Look,
    pub(super) ours: Ours,
    /// Gaps found while building the index, in addition to those of the look.
    pub(super) gaps: Vec<Gap>,
    /// The link of each attachment, by position in `look.attachments`.
    link_of: Vec<Option<LinkId>>,
    programs: HashMap<ProgramId, &'a ProgramFact>,
    links: HashMap<LinkId, &'a LinkFact>,
    pins: HashMap<Object, Vec<&'a PinFact>>,
    holders: HashMap<Object, Vec<&'a HolderFact>>,
    alive: HashMap<&'a Owner, Option<bool>>,
    ledger: HashMap<ProgramId, Vec<(&'a Entry, &'a RecordedAttachment)>>,
    cgroups: HashSet<CgroupId>,
}

impl<'a> Facts<'a> {
    pub(super) fn new(look: &'a Look, host: &'a Vantage, scope: &'a Scope) -> Self {
        let (ours, gaps) = Ours::new(&scope.programs);
        let mut pins: HashMap<Object, Vec<&PinFact>> = HashMap::new();
        for pin in &look.pins {
            pins.entry(pin.object).or_default().push(pin);
        }
        let mut holders: HashMap<Object, Vec<&HolderFact>> = HashMap::new();
        for holder in &look.holders {
            for object in holder.objects.iter().copied().collect::<HashSet<_>>() {
                holders.entry(object).or_default().push(holder);
            }
        }
        let mut ledger: HashMap<ProgramId, Vec<_>> = HashMap::new();
        // Ids from another boot now belong to other objects, so entries of another boot mean nothing.
        for entry in look.ledger.iter().filter(|entry| entry.owner.boot_id == host.host.boot_id) {
            for recorded in &entry.attachments {
                ledger.entry(recorded.program_id).or_default().push((entry, recorded));
            }
        }
        Self {
            host,
            scope,
            look,
            ours,
            gaps,
            link_of: correlate(&look.attachments, &look.links),
            programs: look.programs.iter().map(|program| (program.loaded.id, program)).collect(),
            links: look.links.iter().map(|link| (link.id, link)).collect(),
            pins,
            holders,
            alive: look.owners.iter().map(|fact| (&fact.owner, fact.alive)).collect(),
            ledger,
            cgroups: look.attachments.iter().map(|attachment| attachment.cgroup_id).collect(),
        }
    }

    /// Returns the attachments with their links.
    pub(super) fn attachments(&self) -> impl Iterator<Item = (&'a AttachmentFact, Option<LinkId>)> {
        self.look.attachments.iter().zip(self.link_of.iter().copied())
    }

    pub(super) fn program(&self, id: ProgramId) -> Option<&'a ProgramFact> {
        self.programs.get(&id).copied()
    }

    pub(super) fn link(&self, id: LinkId) -> Option<&'a LinkFact> {
        self.links.get(&id).copied()
    }

    /// Returns the tcx links of a program.
    pub(super) fn device_links(&self, program: ProgramId) -> Vec<&'a DeviceLinkFact> {
        self.look.device_links.iter().filter(|link| link.program_id == program).collect()
    }

    /// Returns the link or the tcx links, and the program. Whoever holds any of these objects keeps the program.
    fn objects(&self, program: ProgramId, link: Option<LinkId>) -> impl Iterator<Item = Object> {
        let on_devices = self.device_links(program).into_iter().map(|link| Object::Link(link.id));
        link.map(Object::Link).into_iter().chain(on_devices).chain([Object::Program(program)])
    }

    /// Returns the pins of the link and of the program.
    pub(super) fn pins(&self, program: ProgramId, link: Option<LinkId>) -> Vec<&'a PinFact> {
        self.objects(program, link)
            .filter_map(|object| self.pins.get(&object))
            .flatten()
            .copied()
            .collect()
    }

    /// Returns the processes that hold the link or the program, ordered by pid.
    pub(super) fn holders(&self, program: ProgramId, link: Option<LinkId>) -> Vec<&'a HolderFact> {
        let mut seen = BTreeSet::new();
        let mut holders: Vec<&HolderFact> = self
            .objects(program, link)
            .filter_map(|object| self.holders.get(&object))
            .flatten()
            .copied()
            .filter(|holder| seen.insert(holder.process.pid))
            .collect();
        holders.sort_by_key(|holder| holder.process.pid);
        holders
    }

    /// Tells whether the look shows a pin or a process that keeps the link. Without a link, any pin or holder of the
    /// program or its tcx links counts.
    pub(super) fn is_kept(&self, program: ProgramId, link: Option<LinkId>) -> bool {
        let is_seen =
            |object| self.pins.contains_key(&object) || self.holders.contains_key(&object);
        match link {
            Some(link) => is_seen(Object::Link(link)),
            None => self.objects(program, None).any(is_seen),
        }
    }

    /// Tells whether the owner is running; `None` if unknown.
    pub(super) fn lives(&self, owner: &Owner) -> Option<bool> {
        if owner.boot_id != self.host.host.boot_id {
            return Some(false);
        }
        self.alive.get(owner).copied().flatten()
    }

    /// Returns the records of this boot's ledger that describe the program. Records of an earlier program with the same
    /// id do not match.
    pub(super) fn records(
        &self,
        program: &'a ProgramFact,
    ) -> impl Iterator<Item = (&'a Entry, &'a RecordedAttachment)> {
        self.ledger.get(&program.loaded.id).into_iter().flatten().copied().filter(
            |(_, recorded)| {
                recorded.tag == program.loaded.tag
                    && recorded.loaded_at_ns == program.loaded.loaded_at_ns
            },
        )
    }

    /// Tells whether the program's metadata names an owner, or the ledger records the program. A name alone proves
    /// nothing.
    pub(super) fn is_proved(&self, program: &'a ProgramFact) -> bool {
        program.owner.is_some() || self.records(program).next().is_some()
    }

    /// Returns the ledger entry of a throttle that waits for a new cgroup because its cgroup was removed. The entry
    /// must name the link or, without a link, the program. A running owner records that it waits. For a pinned
    /// throttle, the look has checked whether the cgroup still exists.
    pub(super) fn waits(
        &self,
        program: &'a ProgramFact,
        link: Option<LinkId>,
    ) -> Option<&'a Entry> {
        let is_named = |recorded: &RecordedAttachment| link.is_none() || recorded.link_id == link;
        let waits = |entry: &Entry, recorded: &RecordedAttachment| {
            let is_removed = recorded.former_cgroup.is_some()
                || self.look.removed_cgroups.contains(&entry.cgroup_id);
            let owner_waits = entry.waiting && self.lives(&entry.owner) != Some(false);
            owner_waits || entry.can_be_armed() && (entry.waiting || is_removed)
        };
        self.records(program)
            .find(|(entry, recorded)| is_named(recorded) && waits(entry, recorded))
            .map(|(entry, _)| entry)
    }

    /// Returns the pids of running owners that wait for a cgroup.
    pub(super) fn waiting_owners(&self) -> impl Iterator<Item = u32> {
        let entries = self.look.ledger.iter().filter(|entry| entry.waiting);
        entries.filter(|entry| self.lives(&entry.owner) == Some(true)).map(|entry| entry.owner.pid)
    }

    /// Tells whether the look would have shown every holder.
    pub(super) fn sees_every_process(&self) -> bool {
        self.host.pid_namespace == kernel::process::INITIAL_PID_NAMESPACE
            && !self.has_gap(Subject::Processes)
            && !self.has_gap(Subject::HiddenProcesses)
    }

    /// Tells whether the look shows every attachment in scope.
    pub(super) fn sees_every_cgroup(&self) -> bool {
        self.look.coverage.cgroups_visited > 0
            && self.look.coverage.cgroups_denied == 0
            && !self.has_gap(Subject::Cgroups)
    }

    /// Tells whether facts of that kind may be missing.
    pub(super) fn has_gap(&self, about: Subject) -> bool {
        self.look.coverage.gaps.iter().any(|gap| gap.about == about)
    }

    /// Tells whether the look shows an attachment on that cgroup, which proves that the cgroup exists.
    pub(super) fn is_seen(&self, cgroup: CgroupId) -> bool {
        self.cgroups.contains(&cgroup)
    }

    /// Tells whether the look queried the attach type. The kernel then knows the type.
    pub(super) fn was_queried(&self, attach_type: AttachType) -> bool {
        self.look.coverage.attach_types.contains(&attach_type)
    }
}
