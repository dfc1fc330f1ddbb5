//! Reads loaded programs, each of them once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bpf::ThrottleProgram;
use kernel::error::Kind;
use kernel::{AttachType, CgroupId, Program, ProgramId, objects};

use super::gap;
use super::host::Clock;
use crate::facts::{Count, DEVICE_PROGRAM, Gap, LoadedProgram, ProgramFact, Subject, ThrottleFact};
use crate::judge::Ours;

/// The programs of one look.
pub(super) struct Programs<'a> {
    ours: &'a Ours,
    clock: &'a Clock,
    facts: BTreeMap<ProgramId, ProgramFact>,
    /// Programs that exist but could not be read. Each has a gap.
    unreadable: BTreeSet<ProgramId>,
    gaps: Vec<Gap>,
    /// The time spent on reading programs.
    pub(super) time: Duration,
}

/// Tells whether a program still existed when it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    /// The program was read, or a gap says why not.
    Here,
    /// The program disappeared after its id was read.
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

    /// Reads an attached program and, if it is ours, its throttle state at that place.
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
        let may_have_state = |fact: &ProgramFact| {
            self.ours.has(&fact.loaded.name) && !fact.loaded.map_ids.is_empty()
        };
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
        let state = throttle(program, cgroup, attach_type).unwrap_or_else(|error| {
            let what = format!("the state of program {id} on cgroup {cgroup} ({attach_type})");
            self.miss(gap(Subject::Programs, what, &error));
            None
        });
        (Presence::Here, state)
    }

    /// Reads every loaded program that can attach to a cgroup, attached or not, and the programs of our queues.
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

    /// Tells whether the program is no longer loaded. Returns false if some programs could not be read.
    pub(super) fn is_gone(&self, id: ProgramId) -> bool {
        !self.facts.contains_key(&id) && self.gaps.is_empty()
    }

    /// Tells whether any program read so far is ours.
    pub(super) fn has_ours(&self) -> bool {
        self.facts.values().any(|fact| self.ours.has(&fact.loaded.name))
    }

    /// Records something that cannot be read. Repeated attempts add only one gap.
    pub(super) fn miss(&mut self, gap: Gap) {
        if !self.gaps.contains(&gap) {
            self.gaps.push(gap);
        }
    }

    /// Returns the programs by id, and the gaps.
    pub(super) fn into_facts(self) -> (Vec<ProgramFact>, Vec<Gap>) {
        (self.facts.into_values().collect(), self.gaps)
    }

    fn keep(&mut self, program: &Program) {
        let info = program.info();
        if self.facts.contains_key(&info.id) {
            return;
        }
        let what = || format!("program {} ({})", info.id, info.name);
        // The auditor does not need owners of other tools' programs.
        let owner = if self.ours.has(&info.name) { bpf::owner_of(program) } else { Ok(None) };
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
        let loaded_at = self.clock.wall_time(info.loaded_at_ns);
        let loaded = LoadedProgram::new(info, full_name(program), loaded_at);
        let fact = ProgramFact { loaded, memlock_bytes, owner };
        self.facts.insert(info.id, fact);
    }
}

/// Returns the program's full name if the kernel's is cut. Without a full name the kernel's has to do.
pub(super) fn full_name(program: &Program) -> Option<String> {
    program.full_name().unwrap_or_else(|error| {
        let info = program.info();
        tracing::debug!(
            "the whole name of program {} ({}) cannot be read: {}",
            info.id,
            info.name,
            bpf::advice::explained(&error)
        );
        None
    })
}

fn throttle(
    program: Program,
    cgroup: CgroupId,
    attach_type: AttachType,
) -> kernel::Result<Option<ThrottleFact>> {
    let program = ThrottleProgram::from(program);
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

/// Treats a map or an entry that disappears during the read as absent, not as a failure.
fn or_gone<T>(read: kernel::Result<Option<T>>) -> kernel::Result<Option<T>> {
    match read {
        Err(error) if error.kind() == Kind::Vanished => Ok(None),
        read => read,
    }
}
