//! Takes the steps of everybody else, on the machine and on the model of what is expected. Both must have the same
//! result.

use std::path::PathBuf;

use kernel::boundary::{Cgroups as _, Programs as _};
use kernel::list::{AttachFlags, MAX_PROGRAMS, Scope};
use kernel::{AttachType, ProgramId};
use nix::errno::Errno;
use sim::{Attach, Model, World};

use super::{Checked, Property, Trial, Violation, nth};
use crate::sequences::census::Surveyed;
use crate::sequences::expected::Part;
use crate::sequences::step::{How, Kind, Place, Way};
use crate::sequences::system::System;

/// Somebody else's program, on the machine and on the model.
pub(super) struct Foreign<W: Surveyed> {
    attach_type: AttachType,
    real: Attached<W>,
    model: Attached<Model>,
}

/// A program of ours that a packet passes.
#[derive(Debug)]
struct Passed {
    program: ProgramId,
    path: PathBuf,
    attach_type: AttachType,
}

struct Attached<W: Surveyed> {
    program: W::Program,
    cgroup: W::Cgroup,
    link: Option<W::Link>,
}

impl<W: Surveyed> Attached<W> {
    fn attach(
        world: &W,
        name: &str,
        cgroup: W::Cgroup,
        attach_type: AttachType,
        kind: Kind,
    ) -> kernel::Result<Self> {
        let program = world.load_pass(name, attach_type)?;
        let flags = match kind {
            Kind::None => AttachFlags::empty(),
            Kind::Override => AttachFlags::OVERRIDE,
            Kind::Multi => AttachFlags::MULTI,
            Kind::Link => {
                let link = Some(world.link_create(&program, &cgroup, attach_type)?);
                return Ok(Self { program, cgroup, link });
            }
        };
        let asked = Attach { flags, replace: None, expected_revision: None };
        world.attach_with(&program, &cgroup, attach_type, &asked)?;
        Ok(Self { program, cgroup, link: None })
    }

    fn detach(self, world: &W, attach_type: AttachType) -> Result<(), Errno> {
        let none = AttachFlags::empty();
        let detached = self.link.as_ref().map_or_else(
            || world.detach_with(Some(&self.program), &self.cgroup, attach_type, none, None),
            |link| world.link_detach(link),
        );
        detached.map_err(|error| error.errno())
    }
}

/// Checks that the machine and the model give the same result.
fn same<T>(what: &str, real: Result<T, Errno>, model: Result<(), Errno>) -> Checked<Option<T>> {
    match (real, model) {
        (Ok(done), Ok(())) => Ok(Some(done)),
        (Err(real), Err(model)) if real == model => Ok(None),
        (real, model) => {
            let real = real.err();
            Err(Violation::new(
                Property::GateIsRight,
                format!("{what}: the kernel says {real:?}, the model {:?}", model.err()),
            ))
        }
    }
}

impl<W: Surveyed, S: System> Trial<W, S> {
    pub(super) fn create_cgroup(&mut self, place: Place) -> Checked<bool> {
        let path = place.below(&self.top);
        let real = self.world.create_cgroup(&path);
        Ok(same("mkdir", real, self.expected.model.create_cgroup(&path))?.is_some())
    }

    pub(super) fn remove_cgroup(&mut self, place: Place) -> Checked<bool> {
        let path = place.below(&self.top);
        let real = self.world.remove_cgroup(&path);
        Ok(same("rmdir", real, self.expected.model.remove_cgroup(&path))?.is_some())
    }

    pub(super) fn spawn(&mut self, place: Place) -> Checked<bool> {
        let path = place.below(&self.top);
        match (self.world.spawn(&path), self.expected.model.spawn(&path)) {
            (Ok(real), Ok(model)) => self.processes.push((real, model)),
            (real, model) => {
                same("a process begins", real.map(drop), model.map(drop))?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(super) fn move_process(&mut self, which: u8, place: Place) -> Checked<bool> {
        let Some(at) = nth(&self.processes, which) else { return Ok(false) };
        let path = place.below(&self.top);
        let (real, model) = &self.processes[at];
        let real = self.world.move_to(real, &path);
        Ok(same("move", real, self.expected.model.move_to(model, &path))?.is_some())
    }

    pub(super) fn end_process(&mut self, which: u8) -> bool {
        let Some(at) = nth(&self.processes, which) else { return false };
        drop(self.processes.remove(at));
        true
    }

    pub(super) fn hold_socket(&mut self, place: Place) -> Checked<bool> {
        let path = place.below(&self.top);
        match (self.world.open_socket(&path), self.expected.model.open_socket(&path)) {
            (Ok(real), Ok(model)) => self.sockets.push((real, model)),
            (real, model) => {
                same("socket", real.map(drop), model.map(drop))?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(super) fn close_socket(&mut self, which: u8) -> bool {
        let Some(at) = nth(&self.sockets, which) else { return false };
        drop(self.sockets.remove(at));
        true
    }

    /// Lets a process send itself a packet. Every throttle on its way must count it once in each direction.
    pub(super) fn send(&mut self, which: u8) -> Checked<bool> {
        let Some(at) = nth(&self.processes, which) else { return Ok(false) };
        let passed = self.passed_by(at);
        let before = self.seen(&passed)?;
        let (real, model) = &self.processes[at];
        let sent = same("send", self.world.send(real), self.expected.model.send(model))?.is_some();
        let expected: Vec<_> = before.iter().map(|count| count + u64::from(sent)).collect();
        self.settle_to(|trial| {
            let now = trial.seen(&passed)?;
            if now == expected {
                return Ok(());
            }
            let what = format!(
                "a packet went by {passed:?}, which had seen {before:?} packets and now {now:?}"
            );
            Err(Violation::new(Property::CountersGrow, what))
        })?;
        Ok(sent)
    }

    /// Returns our programs on the way of a packet from this process's socket, for each direction.
    fn passed_by(&self, process: usize) -> Vec<Passed> {
        let (_, model) = &self.processes[process];
        // Nobody can query a removed cgroup any more.
        let Some(cgroup) = self.expected.model.socket_cgroup(model) else { return Vec::new() };
        let parts = self.expected.throttles.iter().flat_map(|throttle| &throttle.parts);
        let goes_through = |part: &&Part| {
            if !part.limits() {
                return false;
            }
            let list = self.expected.list(&cgroup, part.attach_type, Scope::Effective);
            list.contains(&part.stand_in()) && self.is_attached(part)
        };
        let passed = parts.filter(goes_through).filter_map(|part| {
            let program = *self.expected.real.get(&part.stand_in())?;
            Some(Passed { program, path: part.path.clone(), attach_type: part.attach_type })
        });
        passed.collect()
    }

    /// Returns how many packets each program has counted. None drops any, because the trial never sends enough to
    /// exceed a limit.
    fn seen(&self, passed: &[Passed]) -> Checked<Vec<u64>> {
        let count = |it: &Passed| -> kernel::Result<u64> {
            let cgroup = self.world.cgroup_id(&self.world.open_cgroup(&it.path)?);
            let program = self.world.open_program(it.program)?;
            let counters =
                self.world.counters(&program, cgroup, it.attach_type)?.unwrap_or_default();
            Ok(counters.exempt.packets + counters.passed.packets)
        };
        let counts = passed.iter().map(count).collect::<kernel::Result<_>>();
        counts.map_err(|error| {
            Violation::new(Property::CountersGrow, format!("counters cannot be read: {error}"))
        })
    }

    pub(super) fn others_attach(&mut self, place: Place, way: Way, kind: Kind) -> Checked<bool> {
        let path = place.below(&self.top);
        let attach_type = way.attach_type();
        let real = self.world.open_cgroup(&path);
        let (real, model) = match (real, self.expected.model.open_cgroup(&path)) {
            (Ok(real), Ok(model)) => (real, model),
            (real, model) => {
                let errno = |error: kernel::Error| error.errno();
                same("open", real.map(drop).map_err(errno), model.map(drop).map_err(errno))?;
                return Ok(false);
            }
        };
        let name = format!("foreign_{}", self.foreign.len());
        let real = Attached::attach(&self.world, &name, real, attach_type, kind);
        let model = Attached::attach(&self.expected.model, &name, model, attach_type, kind);
        match (real, model) {
            (Ok(real), Ok(model)) => {
                let stand_in = self.expected.model.identity(&model.program).id;
                self.expected.real.insert(stand_in, self.world.identity(&real.program).id);
                self.foreign.push(Foreign { attach_type, real, model });
                Ok(true)
            }
            (real, model) => {
                let errno = |error: kernel::Error| error.errno();
                let (real, model) = (real.map(drop), model.map(drop));
                same("others attach", real.map_err(errno), model.map_err(errno))?;
                Ok(false)
            }
        }
    }

    pub(super) fn others_detach(&mut self, which: u8) -> Checked<bool> {
        let Some(at) = nth(&self.foreign, which) else { return Ok(false) };
        let gone = self.foreign.remove(at);
        let real = gone.real.detach(&self.world, gone.attach_type);
        let model = gone.model.detach(&self.expected.model, gone.attach_type);
        same("others detach", real, model)?;
        Ok(true)
    }

    pub(super) fn fill(&mut self, place: Place, way: Way) -> Checked<bool> {
        let path = place.below(&self.top);
        let there = self.expected.list(&path, way.attach_type(), Scope::Local).len();
        let mut taken = false;
        for _ in there..MAX_PROGRAMS {
            if !self.others_attach(place, way, Kind::Multi)? {
                break;
            }
            taken = true;
        }
        Ok(taken)
    }

    /// Detaches a program of ours, as somebody else would.
    pub(super) fn stranger(&mut self, which: u8) -> Checked<bool> {
        let candidates: Vec<_> = self
            .expected
            .throttles
            .iter()
            .filter(|throttle| throttle.how == How::Legacy)
            .flat_map(|throttle| &throttle.parts)
            .map(|part| (part.path.clone(), part.attach_type, part.stand_in()))
            .filter(|(path, attach_type, stand_in)| {
                self.expected.list(path, *attach_type, Scope::Local).contains(stand_in)
            })
            .collect();
        let Some(at) = nth(&candidates, which) else { return Ok(false) };
        let (path, attach_type, stand_in) = &candidates[at];
        let Some(&id) = self.expected.real.get(stand_in) else { return Ok(false) };
        let detached = self.world.open_cgroup(path).and_then(|cgroup| {
            self.world.detach(&self.world.open_program(id)?, &cgroup, *attach_type, None)
        });
        if let Err(error) = detached {
            let what = format!("others cannot detach our program {id}: {error}");
            return Err(Violation::new(Property::GateIsRight, what));
        }
        self.expected.detach_stand_in(*stand_in);
        Ok(true)
    }
}
