//! What is read of loaded programs, each of them once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bpf::error::Kind;
use bpf::program::Program;
use bpf::{AttachType, CgroupId, ProgramId, objects};

use super::gap;
use super::host::Clock;
use crate::classify::Ours;
use crate::snapshot::{Count, DEVICE_PROGRAM, Gap, ProgramFact, Subject, ThrottleFact};

/// The programs of one look.
pub(super) struct Programs<'a> {
    ours: &'a Ours,
    clock: &'a Clock,
    facts: BTreeMap<ProgramId, ProgramFact>,
    /// Those that exist, but could not be read; each has a gap.
    unreadable: BTreeSet<ProgramId>,
    gaps: Vec<Gap>,
    /// Time spent here.
    pub(super) time: Duration,
}

/// Whether a program was there to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    /// It was read, or there is a gap that says why not.
    Here,
    /// It went away since its id was read.
    Gone,
}

impl<'a> Programs<'a> {
    pub(super) fn new(ours: &'a Ours, clock: &'a Clock) -> Self {
        Self {
            ours,
            clock,
            facts: BTreeMap::new(),
            unreadable: BTreeSet::new(),
            gaps: Vec::new(),
            time: Duration::ZERO,
        }
    }

    /// Reads a program that is attached, and for one of ours its throttle's state at that place.
    pub(super) fn attached(
        &mut self,
        id: ProgramId,
        cgroup: CgroupId,
        attach_type: AttachType,
    ) -> (Presence, Option<ThrottleFact>) {
        let start = Instant::now();
        let read = self.read_attached(id, cgroup, attach_type);
        self.time += start.elapsed();
        read
    }

    fn read_attached(
        &mut self,
        id: ProgramId,
        cgroup: CgroupId,
        attach_type: AttachType,
    ) -> (Presence, Option<ThrottleFact>) {
        let may_have_state =
            |fact: &ProgramFact| self.ours.has(&fact.name) && !fact.map_ids.is_empty();
        if self.unreadable.contains(&id)
            || self.facts.get(&id).is_some_and(|it| !may_have_state(it))
        {
            return (Presence::Here, None);
        }
        let program = match objects::program(id) {
            Ok(Some(program)) => program,
            Ok(None) => return (Presence::Gone, None),
            Err(error) => {
                self.unreadable.insert(id);
                self.miss(gap(Subject::Programs, format!("program {id}"), &error));
                return (Presence::Here, None);
            }
        };
        self.keep(&program);
        if !self.ours.has(&program.info().name) {
            return (Presence::Here, None);
        }
        let state = throttle(&program, cgroup, attach_type).unwrap_or_else(|error| {
            let what = format!("the state of program {id} on cgroup {cgroup} ({attach_type})");
            self.miss(gap(Subject::Programs, what, &error));
            None
        });
        (Presence::Here, state)
    }

    /// Reads every loaded program that can be attached to a cgroup, attached or not, and those of our queues.
    pub(super) fn loaded(&mut self) {
        let start = Instant::now();
        let kinds: BTreeSet<&str> = AttachType::all().map(AttachType::program_type).collect();
        match objects::program_ids() {
            Ok(ids) => ids.into_iter().for_each(|id| self.read_loaded(id, &kinds)),
            Err(error) => {
                self.miss(gap(Subject::Programs, "programs attached nowhere", &error));
            }
        }
        self.time += start.elapsed();
    }

    fn read_loaded(&mut self, id: ProgramId, kinds: &BTreeSet<&str>) {
        if self.facts.contains_key(&id) || self.unreadable.contains(&id) {
            return;
        }
        match objects::program(id) {
            Ok(Some(program)) if kinds.contains(program.info().kind.as_str()) => {
                self.keep(&program);
            }
            Ok(Some(program))
                if program.info().kind == DEVICE_PROGRAM && self.ours.has(&program.info().name) =>
            {
                self.keep(&program);
            }
            Ok(_) => {}
            Err(error) => self.miss(gap(Subject::Programs, format!("program {id}"), &error)),
        }
    }

    /// It is not loaded any more, as far as loaded programs could be read.
    pub(super) fn is_gone(&self, id: ProgramId) -> bool {
        !self.facts.contains_key(&id) && self.gaps.is_empty()
    }

    /// Any of ours was read.
    pub(super) fn has_ours(&self) -> bool {
        self.facts.values().any(|fact| self.ours.has(&fact.name))
    }

    /// Takes note of what cannot be read: once, however often it is tried.
    pub(super) fn miss(&mut self, gap: Gap) {
        if !self.gaps.contains(&gap) {
            self.gaps.push(gap);
        }
    }

    /// By id.
    pub(super) fn into_facts(self) -> (Vec<ProgramFact>, Vec<Gap>) {
        (self.facts.into_values().collect(), self.gaps)
    }

    fn keep(&mut self, program: &Program) {
        let info = program.info();
        if self.facts.contains_key(&info.id) {
            return;
        }
        let what = || format!("program {} ({})", info.id, info.name);
        // Whose a program of somebody else is, is none of our business.
        let owner = if self.ours.has(&info.name) { program.owner() } else { Ok(None) };
        if info.kind == DEVICE_PROGRAM && owner == Ok(None) {
            return;
        }
        let owner = owner.unwrap_or_else(|error| {
            self.miss(gap(Subject::Programs, what(), &error));
            None
        });
        let memlock_bytes = program.memlock_bytes().unwrap_or_else(|error| {
            self.miss(gap(Subject::Programs, what(), &error));
            0
        });
        let fact = ProgramFact {
            id: info.id,
            name: info.name.clone(),
            full_name: full_name(program),
            tag: info.tag.clone(),
            kind: info.kind.clone(),
            loaded_at_ns: info.loaded_at_ns,
            loaded_at: self.clock.wall_time(info.loaded_at_ns),
            uid: info.uid,
            map_ids: info.map_ids.clone(),
            memlock_bytes,
            owner,
        };
        self.facts.insert(info.id, fact);
    }
}

/// Its whole name, where the kernel's is cut. Without it the kernel's name does.
pub(super) fn full_name(program: &Program) -> Option<String> {
    program.full_name().unwrap_or_else(|error| {
        let info = program.info();
        tracing::debug!(
            "the whole name of program {} ({}) cannot be read: {error}",
            info.id,
            info.name
        );
        None
    })
}

fn throttle(
    program: &Program,
    cgroup: CgroupId,
    attach_type: AttachType,
) -> bpf::Result<Option<ThrottleFact>> {
    let Some(state) = or_gone(program.state(cgroup, attach_type))? else { return Ok(None) };
    let counters = or_gone(program.counters(cgroup, attach_type))?.unwrap_or_default();
    let count = |count: bpf::state::Count| Count { packets: count.packets, bytes: count.bytes };
    Ok(Some(ThrottleFact {
        armed: state.is_armed(),
        rate: state.rate(),
        burst_ns: state.burst_ns(),
        departures: state.departures().wait(),
        fq_devices: state.departures().devices().unwrap_or_default().numbers().collect(),
        traffic: state.traffic().map_or_else(|| "unknown".to_owned(), |it| it.to_string()),
        passed: count(counters.passed),
        dropped: count(counters.dropped),
        held_back: count(counters.held_back),
    }))
}

/// A map or its entry that goes away while it is read has nothing to tell, and that is no failure.
fn or_gone<T>(read: bpf::Result<Option<T>>) -> bpf::Result<Option<T>> {
    match read {
        Err(error) if error.kind() == Kind::Vanished => Ok(None),
        read => read,
    }
}
