//! What others do: each thing is done on the machine and on the model of what is expected, and must come out
//! the same.

use bpf::list::{AttachFlags, MAX_PROGRAMS, Scope};
use bpf::{AttachType, CgroupBpf};
use nix::errno::Errno;

use super::{Checked, Property, Trial, Violation, nth};
use crate::gate::step::{How, Kind, Place, Way};
use crate::gate::system::System;
use crate::lab::{Attach, Lab};
use crate::model::Model;

/// A program of somebody else's, on the machine and on the model.
pub(super) struct Neighbour<L: Lab> {
    attach_type: AttachType,
    real: Attached<L>,
    model: Attached<Model>,
}

struct Attached<L: Lab> {
    program: L::Program,
    cgroup: L::Cgroup,
    link: Option<L::Link>,
}

impl<L: Lab> Attached<L> {
    fn attach(
        lab: &L,
        name: &str,
        cgroup: L::Cgroup,
        attach_type: AttachType,
        kind: Kind,
    ) -> bpf::Result<Self> {
        let program = lab.load_pass(name, attach_type)?;
        let flags = match kind {
            Kind::None => AttachFlags::empty(),
            Kind::Override => AttachFlags::OVERRIDE,
            Kind::Multi => AttachFlags::MULTI,
            Kind::Link => {
                let link = Some(lab.link_create(&program, &cgroup, attach_type)?);
                return Ok(Self { program, cgroup, link });
            }
        };
        let asked = Attach { flags, replace: None, expected_revision: None };
        lab.attach_with(&program, &cgroup, attach_type, &asked)?;
        Ok(Self { program, cgroup, link: None })
    }

    fn detach(self, lab: &L, attach_type: AttachType) -> Result<(), Errno> {
        let none = AttachFlags::empty();
        let detached = self.link.as_ref().map_or_else(
            || lab.detach_with(Some(&self.program), &self.cgroup, attach_type, none, None),
            |link| lab.link_detach(link),
        );
        detached.map_err(|error| error.errno())
    }
}

/// The machine and the model must say the same.
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

impl<L: Lab, S: System> Trial<L, S> {
    pub(super) fn create_cgroup(&mut self, place: Place) -> Checked<bool> {
        let path = place.below(&self.top);
        let real = self.lab.create_cgroup(&path);
        Ok(same("mkdir", real, self.expected.model.create_cgroup(&path))?.is_some())
    }

    pub(super) fn remove_cgroup(&mut self, place: Place) -> Checked<bool> {
        let path = place.below(&self.top);
        let real = self.lab.remove_cgroup(&path);
        Ok(same("rmdir", real, self.expected.model.remove_cgroup(&path))?.is_some())
    }

    pub(super) fn spawn(&mut self, place: Place) -> Checked<bool> {
        let path = place.below(&self.top);
        match (self.lab.spawn(&path), self.expected.model.spawn(&path)) {
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
        let real = self.lab.move_to(real, &path);
        Ok(same("move", real, self.expected.model.move_to(model, &path))?.is_some())
    }

    pub(super) fn end_process(&mut self, which: u8) -> bool {
        let Some(at) = nth(&self.processes, which) else { return false };
        drop(self.processes.remove(at));
        true
    }

    pub(super) fn hold_socket(&mut self, place: Place) -> Checked<bool> {
        let path = place.below(&self.top);
        match (self.lab.open_socket(&path), self.expected.model.open_socket(&path)) {
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

    pub(super) fn send(&mut self, which: u8) -> Checked<bool> {
        let Some(at) = nth(&self.processes, which) else { return Ok(false) };
        let (real, model) = &self.processes[at];
        Ok(same("send", self.lab.send(real), self.expected.model.send(model))?.is_some())
    }

    pub(super) fn neighbour(&mut self, place: Place, way: Way, kind: Kind) -> Checked<bool> {
        let path = place.below(&self.top);
        let attach_type = way.attach_type();
        let real = self.lab.open_cgroup(&path);
        let (real, model) = match (real, self.expected.model.open_cgroup(&path)) {
            (Ok(real), Ok(model)) => (real, model),
            (real, model) => {
                let errno = |error: bpf::Error| error.errno();
                same("open", real.map(drop).map_err(errno), model.map(drop).map_err(errno))?;
                return Ok(false);
            }
        };
        let name = format!("neighbour_{}", self.neighbours.len());
        let real = Attached::attach(&self.lab, &name, real, attach_type, kind);
        let model = Attached::attach(&self.expected.model, &name, model, attach_type, kind);
        match (real, model) {
            (Ok(real), Ok(model)) => {
                let stand_in = self.expected.model.identity(&model.program).id;
                self.expected.real.insert(stand_in, self.lab.identity(&real.program).id);
                self.neighbours.push(Neighbour { attach_type, real, model });
                Ok(true)
            }
            (real, model) => {
                let errno = |error: bpf::Error| error.errno();
                let (real, model) = (real.map(drop), model.map(drop));
                same("others attach", real.map_err(errno), model.map_err(errno))?;
                Ok(false)
            }
        }
    }

    pub(super) fn neighbour_leaves(&mut self, which: u8) -> Checked<bool> {
        let Some(at) = nth(&self.neighbours, which) else { return Ok(false) };
        let gone = self.neighbours.remove(at);
        let real = gone.real.detach(&self.lab, gone.attach_type);
        let model = gone.model.detach(&self.expected.model, gone.attach_type);
        same("others detach", real, model)?;
        Ok(true)
    }

    pub(super) fn fill(&mut self, place: Place, way: Way) -> Checked<bool> {
        let path = place.below(&self.top);
        let there = self.expected.list(&path, way.attach_type(), Scope::Local).len();
        let mut taken = false;
        for _ in there..MAX_PROGRAMS {
            if !self.neighbour(place, way, Kind::Multi)? {
                break;
            }
            taken = true;
        }
        Ok(taken)
    }

    /// Somebody detaches a program of ours.
    pub(super) fn stranger(&mut self, which: u8) -> Checked<bool> {
        let candidates: Vec<_> = self
            .expected
            .throttles
            .iter()
            .filter(|throttle| throttle.how == How::Legacy)
            .flat_map(|throttle| &throttle.parts)
            .map(|part| (part.path.clone(), part.attach_type, part.stand_in(&self.expected.model)))
            .filter(|(path, attach_type, stand_in)| {
                self.expected.list(path, *attach_type, Scope::Local).contains(stand_in)
            })
            .collect();
        let Some(at) = nth(&candidates, which) else { return Ok(false) };
        let (path, attach_type, stand_in) = &candidates[at];
        let Some(&id) = self.expected.real.get(stand_in) else { return Ok(false) };
        let detached = self.lab.open_cgroup(path).and_then(|cgroup| {
            self.lab.detach(&self.lab.open_program(id)?, &cgroup, *attach_type, None)
        });
        if let Err(error) = detached {
            let what = format!("others cannot detach our program {id}: {error}");
            return Err(Violation::new(Property::GateIsRight, what));
        }
        self.expected.detach_stand_in(*stand_in);
        Ok(true)
    }
}
