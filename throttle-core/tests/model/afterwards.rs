//! Whichever call of an operation fails: afterwards the engine says what the kernel and the ledger have.

use std::path::{Path, PathBuf};

use bpf::boundary::Throttles as _;
use bpf::ledger::{Entry, RecordedLimits};
use bpf::limits::{Limits, Traffic};
use bpf::state::{Count, Counters, ThrottleState};
use kernel::boundary::{Cgroups as _, Pins as _, Programs as _};
use sim::ModelSocket;
use sim::World;
use throttle_core::mode::Wish;
use throttle_core::settle::remove_recorded;
use throttle_core::{Change, Direction, Health, Removed, Result, Spec, ThrottleId, ThrottleStatus};
use vmtests::sequences::step::{Fail, Fault, Mishap};

use crate::common::*;

/// How many packets go through the first throttle in each direction before the operation.
const SENT: u64 = 2;

/// What is tried, on an engine that has a throttle on one cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    AddTheFirst,
    AddAnother,
    Change,
    List,
    Remove,
    ShutDown,
    Wait,
    WaitForSockets,
}

use Operation::*;

const ALL: [Operation; 8] =
    [AddTheFirst, AddAnother, Change, List, Remove, ShutDown, Wait, WaitForSockets];

/// What there is when a call fails.
struct Trial {
    host: Host,
    process: Process,
    engine: ModelEngine,
    cgroup: PathBuf,
    another: PathBuf,
    first: ThrottleId,
    /// How throttles are attached, and whether downloads have a queue.
    how: (Wish, bool),
    operation: Operation,
    /// Keeps a removed cgroup's programs.
    socket: Option<ModelSocket>,
}

impl Trial {
    fn new(operation: Operation, how: (Wish, bool)) -> Self {
        let host = Host::boot();
        let (cgroup, another) = (host.cgroup("a"), host.cgroup("b"));
        let process = host.process();
        let mut engine = process.start();
        let first = engine.add(&wanted(&cgroup, how)).unwrap().id;
        let sender = host.kernel.spawn(&cgroup).unwrap();
        (0..SENT).for_each(|_| host.kernel.send(&sender).unwrap());
        drop(sender);
        let socket =
            (operation == WaitForSockets).then(|| host.kernel.open_socket(&cgroup).unwrap());
        match operation {
            AddTheFirst => drop(engine.remove(first).unwrap()),
            Wait | WaitForSockets => host.kernel.remove_cgroup(&cgroup).unwrap(),
            ShutDown => drop(engine.add(&wanted(&another, how)).unwrap()),
            AddAnother | Change | List | Remove => {}
        }
        Self { host, process, engine, cgroup, another, first, how, operation, socket }
    }

    /// Does it; tells what the throttles did that it has ended.
    fn act(&mut self) -> Result<Vec<(ThrottleId, Removed)>> {
        let engine = &mut self.engine;
        match self.operation {
            AddTheFirst | AddAnother => {
                engine.add(&wanted(&self.another, self.how)).map(|_| Vec::new())
            }
            Change => engine.change(self.first, &faster()).map(|()| Vec::new()),
            List => Ok(engine.list()).map(|_| Vec::new()),
            Remove => engine.remove(self.first).map(|removed| vec![(self.first, removed)]),
            ShutDown => engine.shut_down(),
            Wait | WaitForSockets => engine.wait_for_cgroup(self.first).map(|_| Vec::new()),
        }
    }

    /// Does it while a call fails. Whether it came to that.
    fn act_while_it_fails(&mut self, fault: Fault) -> (Result<Vec<(ThrottleId, Removed)>>, bool) {
        self.process.control.plan(Some(fault));
        let done = self.act();
        let struck = self.process.control.struck();
        self.process.control.plan(None);
        (done, struck)
    }

    /// The engine says what there is. `is_done`: the operation has not failed.
    fn assert_the_engine_is_right(&self, is_done: bool) {
        let listed = self.engine.list();
        for status in &listed {
            for direction in &status.directions {
                let at = direction.direction.attach_type();
                let counted = self.counted(status.id);
                assert_eq!(direction.counters.as_ref().unwrap(), &counted);
                let Some(state) = self.state(status, direction.direction) else {
                    let remain = matches!(direction.health, Health::SocketsRemain);
                    assert_eq!(remain, self.socket.is_some(), "{direction:?}");
                    continue;
                };
                let programs = self.engine.programs_of(status.id);
                let is_listed = |id| self.host.programs(&status.cgroup, at).contains(&id);
                let is_attached = programs.iter().any(|(its, id)| *its == at && is_listed(*id));
                let is_said = matches!(direction.health, Health::Attached);
                assert_eq!(is_said, is_attached, "{direction:?}");
                // Whoever removes lifts the limit first.
                let no_more = matches!(self.operation, Remove | ShutDown) && !state.is_armed();
                assert!(no_more || limits(&state) == of(&direction.limits), "{direction:?}");
            }
        }
        self.assert_nothing_else_is_there(&listed);
        self.assert_the_ledger_is_right(&listed, is_done);
    }

    /// What a throttle has counted, in each direction. `None` where that went with the cgroup.
    fn counted(&self, id: ThrottleId) -> Option<Counters> {
        let (cgroup, packets) =
            if id == self.first { (&self.cgroup, SENT) } else { (&self.another, 0) };
        let passed = Count { packets, bytes: 100 * packets };
        let is_there = self.host.kernel.open_cgroup(cgroup).is_ok() || self.socket.is_some();
        is_there.then(|| Counters { passed, ..Counters::default() })
    }

    /// What the kernel allows in a direction. `None` where the cgroup is gone.
    fn state(&self, status: &ThrottleStatus, direction: Direction) -> Option<ThrottleState> {
        let kernel = &self.host.kernel;
        let open = kernel.open_cgroup(&status.cgroup).ok()?;
        let programs = self.engine.programs_of(status.id);
        let (at, id) = programs.into_iter().find(|(at, _)| *at == direction.attach_type())?;
        let program = kernel.open_program(id).unwrap();
        kernel.state(&program, kernel.cgroup_id(&open), at).unwrap()
    }

    /// No program is attached, loaded or pinned that the engine does not list.
    fn assert_nothing_else_is_there(&self, listed: &[ThrottleStatus]) {
        for cgroup in [&self.cgroup, &self.another] {
            if self.host.kernel.open_cgroup(cgroup).is_err() {
                continue;
            }
            let its = listed.iter().filter(|status| status.cgroup == *cgroup);
            let known: Vec<_> = its.flat_map(|it| self.engine.programs_of(it.id)).collect();
            for at in PLACES {
                for id in self.host.programs(cgroup, at) {
                    assert!(known.contains(&(at, id)), "program {id} at {at}, known are {known:?}");
                }
            }
        }
        // All of its throttles share a load, but one with a queue has its own, with two programs more.
        let (_, has_queue) = self.how;
        let (loads, programs) = if has_queue {
            (listed.len(), PLACES.len() + 2)
        } else {
            (listed.len().min(1), PLACES.len())
        };
        assert_eq!(self.host.loaded(), programs * loads, "{listed:?}");
        let devices = self.host.kernel.queue_devices();
        assert_eq!(devices.len(), if has_queue { listed.len() } else { 0 });
    }

    /// Who is listed with a name has an entry, and nobody else; what is pinned is not attached without its pin.
    fn assert_the_ledger_is_right(&self, listed: &[ThrottleStatus], is_done: bool) {
        let entries = self.host.entries();
        let names: Vec<_> = entries.iter().map(|entry| entry.throttle.clone()).collect();
        let expected: Vec<_> = listed.iter().filter_map(|it| it.name.clone()).collect();
        assert_eq!(names, expected, "{listed:?}");
        let mut pins = self.host.kernel.census().pins;
        let folders = entries.iter().filter_map(|it| it.attachments[0].pin.as_ref()?.parent());
        pins.retain(|it| !folders.clone().any(|folder| folder == Path::new(it)));
        for entry in &entries {
            let status =
                listed.iter().find(|it| it.name.as_ref() == Some(&entry.throttle)).unwrap();
            for recorded in &entry.attachments {
                let at = recorded.attach_type;
                let mut directions = status.directions.iter();
                let said = directions.find(|it| it.direction.attach_type() == at);
                let said = said.map(|it| RecordedLimits::from(&it.limits));
                assert!(!is_done || said.is_none() || recorded.limits == said, "{recorded:?}");
                let pin = recorded.pin.as_ref().map(|pin| pin.display().to_string());
                pins.retain(|it| Some(it) != pin.as_ref());
            }
            assert_pinned(&self.host, entry);
        }
        assert!(pins.is_empty(), "nobody answers for {pins:?}");
    }

    /// Everything is told that was counted, but for what the one call that failed was to read.
    fn assert_told(&self, removed: &[(ThrottleId, Removed)], may_lack_one: bool) {
        let mut lacking = 0;
        for (id, removed) in removed {
            let directions: Vec<_> = removed.directions.keys().copied().collect();
            assert_eq!(directions, [Direction::Download, Direction::Upload]);
            for detached in removed.directions.values() {
                match &detached.counters {
                    Ok(told) => assert_eq!(*told, self.counted(*id)),
                    Err(_) => lacking += 1,
                }
            }
        }
        assert!(lacking <= usize::from(may_lack_one), "{removed:?}");
    }
}

/// What is recorded with a pin and attached has that pin.
#[track_caller]
fn assert_pinned(host: &Host, entry: &Entry) {
    if host.kernel.open_cgroup(&entry.cgroup_path).is_err() {
        return;
    }
    for recorded in &entry.attachments {
        let attached = host.programs(&entry.cgroup_path, recorded.attach_type);
        let is_pinned = recorded.pin.as_ref().is_none_or(|pin| host.kernel.pin_exists(pin));
        assert!(is_pinned || !attached.contains(&recorded.program_id), "{recorded:?}");
    }
}

fn wanted(cgroup: &Path, (attach, queue): (Wish, bool)) -> Spec {
    Spec { queue, ..spec(cgroup, attach) }
}

fn faster() -> Change {
    Change {
        download: Some(rate(3_000_000)),
        upload: Some(rate(4_000_000)),
        traffic: Some(Traffic::Internet),
        ..Change::default()
    }
}

fn limits(state: &ThrottleState) -> (u64, u64, Option<Traffic>) {
    (state.rate(), state.burst_ns(), state.traffic())
}

fn of(limits: &Limits) -> (u64, u64, Option<Traffic>) {
    let state = ThrottleState::armed(limits, 0);
    (state.rate(), state.burst_ns(), state.traffic())
}

#[test]
fn whichever_call_fails_the_engine_says_what_there_is_and_can_go_on() {
    let ways = EVERY_MODE.map(|wish| (wish, false)).into_iter().chain([(Wish::Link, true)]);
    for (operation, how) in ways.flat_map(|how| ALL.map(|operation| (operation, how))) {
        for nth in 1.. {
            println!("{operation:?} of {how:?}, call {nth}");
            let mut trial = Trial::new(operation, how);
            let fault = Fault { nth, mishap: Mishap::Fail(Fail::EPERM) };
            let (done, struck) = trial.act_while_it_fails(fault);
            trial.assert_the_engine_is_right(done.is_ok());
            if operation == ShutDown {
                let left = trial.engine.list().len();
                assert_eq!(left, usize::from(done.is_err()), "one call is of one throttle");
            }
            // What it goes on without may be what somebody counted.
            let may_lack_one = struck && done.is_ok();
            let mut removed = done.unwrap_or_else(|_| {
                let again = trial.act().unwrap();
                trial.assert_the_engine_is_right(true);
                again
            });
            if removed.is_empty() && operation != AddTheFirst {
                removed.push((trial.first, trial.engine.remove(trial.first).unwrap()));
            }
            let ended =
                if operation == ShutDown { 2 } else { usize::from(operation != AddTheFirst) };
            assert_eq!(removed.len(), ended, "{removed:?}");
            trial.assert_told(&removed, may_lack_one);
            trial.engine.shut_down().unwrap();
            // Without a link only this ends what it keeps.
            trial.socket = None;
            assert!(trial.host.is_clean());
            if !struck {
                assert!(nth > 1, "nothing failed");
                break;
            }
        }
    }
}

/// While its owner has the links open, they do not go with their pins.
#[test]
fn whichever_call_of_a_removal_by_name_fails_what_is_attached_keeps_its_pin_and_its_record() {
    for nth in 1.. {
        let host = Host::boot();
        let cgroup = host.cgroup("a");
        let mut engine = host.process().start();
        engine.add(&spec(&cgroup, Wish::Pinned)).unwrap();
        let process = host.process();
        process.control.plan(Some(Fault { nth, mishap: Mishap::Fail(Fail::EPERM) }));
        let ledger = &process.config.ledger;
        let removed = remove_recorded(&process.faulty(), ledger, "1", BOOT);
        let struck = process.control.struck();
        process.control.plan(None);
        let entries = host.entries();
        assert_eq!(entries.len(), usize::from(removed.is_err()), "call {nth}: {removed:?}");
        for entry in &entries {
            assert_pinned(&host, entry);
        }
        // What is half removed is its owner's, who lives.
        engine.shut_down().unwrap();
        assert_eq!(host.attached(&cgroup), 0, "call {nth}");
        assert!(host.is_clean(), "call {nth}");
        if !struck {
            assert!(nth > 20, "only {nth} calls");
            break;
        }
    }
}
