//! One look, by what is asked of it.

use std::collections::{BTreeSet, HashMap, HashSet};

use bpf::ledger::{Entry, RecordedAttachment};
use bpf::{AttachType, CgroupId, LinkId, Owner, ProgramId};

use super::correlate::correlate;
use super::ours::Ours;
use crate::snapshot::{
    AttachmentFact, DeviceLinkFact, Gap, HolderFact, Host, LinkFact, Look, Object, PinFact,
    ProgramFact, Scope, Subject,
};

/// A look with its indices.
pub(super) struct Facts<'a> {
    pub(super) host: &'a Host,
    pub(super) scope: &'a Scope,
    pub(super) look: &'a Look,
    pub(super) ours: Ours,
    /// Gaps that come to light here, beside those of the look.
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
    pub(super) fn new(look: &'a Look, host: &'a Host, scope: &'a Scope) -> Self {
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
        // What another boot wrote means nothing now: its ids are somebody else's by this time.
        for entry in look.ledger.iter().filter(|entry| entry.owner.boot_id == host.boot_id) {
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
            programs: look.programs.iter().map(|program| (program.id, program)).collect(),
            links: look.links.iter().map(|link| (link.id, link)).collect(),
            pins,
            holders,
            alive: look.owners.iter().map(|fact| (&fact.owner, fact.alive)).collect(),
            ledger,
            cgroups: look.attachments.iter().map(|attachment| attachment.cgroup_id).collect(),
        }
    }

    /// The attachments with their links.
    pub(super) fn attachments(&self) -> impl Iterator<Item = (&'a AttachmentFact, Option<LinkId>)> {
        self.look.attachments.iter().zip(self.link_of.iter().copied())
    }

    pub(super) fn program(&self, id: ProgramId) -> Option<&'a ProgramFact> {
        self.programs.get(&id).copied()
    }

    pub(super) fn link(&self, id: LinkId) -> Option<&'a LinkFact> {
        self.links.get(&id).copied()
    }

    /// The tcx links of a program.
    pub(super) fn device_links(&self, program: ProgramId) -> Vec<&'a DeviceLinkFact> {
        self.look.device_links.iter().filter(|link| link.program_id == program).collect()
    }

    /// The link, or the tcx links, and the program: whoever has one of them keeps the program.
    fn objects(&self, program: ProgramId, link: Option<LinkId>) -> impl Iterator<Item = Object> {
        let on_devices = self.device_links(program).into_iter().map(|link| Object::Link(link.id));
        link.map(Object::Link).into_iter().chain(on_devices).chain([Object::Program(program)])
    }

    /// Pins of the link and of the program.
    pub(super) fn pins(&self, program: ProgramId, link: Option<LinkId>) -> Vec<&'a PinFact> {
        self.objects(program, link)
            .filter_map(|object| self.pins.get(&object))
            .flatten()
            .copied()
            .collect()
    }

    /// Processes that hold the link or the program, by pid.
    pub(super) fn holders(&self, program: ProgramId, link: Option<LinkId>) -> Vec<&'a HolderFact> {
        let mut seen = BTreeSet::new();
        let mut holders: Vec<&HolderFact> = self
            .objects(program, link)
            .filter_map(|object| self.holders.get(&object))
            .flatten()
            .copied()
            .filter(|holder| seen.insert(holder.pid))
            .collect();
        holders.sort_by_key(|holder| holder.pid);
        holders
    }

    /// A pin or a process that keeps the link, or, without one, the program or a tcx link of it, was seen.
    pub(super) fn is_kept(&self, program: ProgramId, link: Option<LinkId>) -> bool {
        let is_seen =
            |object| self.pins.contains_key(&object) || self.holders.contains_key(&object);
        match link {
            Some(link) => is_seen(Object::Link(link)),
            None => self.objects(program, None).any(is_seen),
        }
    }

    /// Whether the owner lives; None where that cannot be told.
    pub(super) fn lives(&self, owner: &Owner) -> Option<bool> {
        if owner.boot_id != self.host.boot_id {
            return Some(false);
        }
        self.alive.get(owner).copied().flatten()
    }

    /// What the ledger of this boot says about the program, and about no other that had its id before.
    pub(super) fn records(
        &self,
        program: &'a ProgramFact,
    ) -> impl Iterator<Item = (&'a Entry, &'a RecordedAttachment)> {
        self.ledger.get(&program.id).into_iter().flatten().copied().filter(|(_, recorded)| {
            recorded.tag == program.tag && recorded.loaded_at_ns == program.loaded_at_ns
        })
    }

    /// The program's metadata names an owner, or the ledger has it. A name alone proves nothing.
    pub(super) fn is_proved(&self, program: &'a ProgramFact) -> bool {
        program.owner.is_some() || self.records(program).next().is_some()
    }

    /// The entry of a throttle whose cgroup was removed, and that waits for another one, by its link or, without one, by
    /// its program. An owner that waits says so itself; of a pinned one the cgroup was looked for.
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

    /// The owners that live and wait for a cgroup.
    pub(super) fn waiting_owners(&self) -> impl Iterator<Item = u32> {
        let entries = self.look.ledger.iter().filter(|entry| entry.waiting);
        entries.filter(|entry| self.lives(&entry.owner) == Some(true)).map(|entry| entry.owner.pid)
    }

    /// A process that holds something would have been seen.
    pub(super) fn sees_every_process(&self) -> bool {
        self.host.pid_namespace == bpf::INITIAL_PID_NAMESPACE
            && !self.has_gap(Subject::Processes)
            && !self.has_gap(Subject::HiddenProcesses)
    }

    /// Whatever is attached in scope was seen.
    pub(super) fn sees_every_cgroup(&self) -> bool {
        self.look.coverage.cgroups_visited > 0
            && self.look.coverage.cgroups_denied == 0
            && !self.has_gap(Subject::Cgroups)
    }

    /// Something of that kind could not be seen.
    pub(super) fn has_gap(&self, about: Subject) -> bool {
        self.look.coverage.gaps.iter().any(|gap| gap.about == about)
    }

    /// Something is attached to the cgroup, so it exists.
    pub(super) fn is_seen(&self, cgroup: CgroupId) -> bool {
        self.cgroups.contains(&cgroup)
    }

    /// The attach type was queried, and the kernel knows it.
    pub(super) fn was_queried(&self, attach_type: AttachType) -> bool {
        self.look.coverage.attach_types.contains(&attach_type)
    }
}
