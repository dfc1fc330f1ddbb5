//! Runs throttle systems in this process, on the model.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bpf::Owner;
use sim::Model;
use throttle_core::files::Files;

use super::engine::{EngineOwner, Setting, remove_by_name};
use super::faulty::Control;
use super::memory::MemoryFiles;
use super::records::Records;
use super::step::{Fault, Step};
use super::system::{Claim, Counted, Handle, Outcome, Rates, Recorded, Request, System};

/// The paths on the model.
pub const PINS: &str = "/sys/fs/bpf/chadthrottle";
const LEDGER: &str = "/run/chadthrottle";
const BOOT: &str = "the model's only boot";

/// A program that owners run.
pub trait Program {
    /// One of its processes.
    type Running: Running;

    /// Tells whether the program can take a step.
    fn offers(&self, step: &Step) -> bool;
    /// Starts the program.
    ///
    /// # Errors
    /// Returns the program's error.
    fn start(&self, at: &Process) -> Result<Self::Running, String>;
    /// Removes a recorded throttle by its name.
    ///
    /// # Errors
    /// Returns the program's error.
    fn remove_recorded(&self, at: &Process, name: &str) -> Result<(), String>;
    /// Tells whether the program has a ledger. `remove_recorded` and steps that damage the ledger need one.
    fn has_ledger(&self) -> bool;
    /// See [`System::shapes_tcp`].
    fn shapes_tcp(&self) -> bool;
    /// See [`System::reports_counters`].
    fn reports_counters(&self) -> bool;
    /// See [`System::refuses_to_displace`].
    fn refuses_to_displace(&self) -> bool {
        true
    }
}

/// A process of a [`Program`]. Its errors are the program's own.
#[allow(clippy::missing_errors_doc, missing_docs)]
pub trait Running {
    fn add(&mut self, request: &Request) -> Result<(), String>;
    fn change(&mut self, handle: Handle, rates: &Rates) -> Result<(), String>;
    fn remove(&mut self, handle: Handle) -> Result<Counted, String>;
    fn claims(&self) -> Vec<Claim>;
    fn shut_down(&mut self) -> Result<(), String>;
}

/// The environment of a process.
pub struct Process {
    /// The kernel, as this process sees it.
    pub kernel: Model,
    /// Counts the calls of the process and makes them fail.
    pub control: Rc<Control>,
    /// The files and the identity of the process.
    pub setting: Setting,
}

/// The panic payload of a killed process.
struct Killed;

/// A program under test, with its two owners.
pub struct InModel<P: Program> {
    program: P,
    kernel: Model,
    files: Rc<dyn Files>,
    records: Records,
    owners: [Option<(Process, P::Running)>; 2],
    struck: bool,
}

impl<P: Program> InModel<P> {
    /// Creates the system on this kernel.
    pub fn new(program: P, kernel: &Model) -> Self {
        let files: Rc<dyn Files> = Rc::new(MemoryFiles::default());
        let records = Records::new(Rc::clone(&files), Path::new(LEDGER), BOOT);
        let kernel = kernel.clone();
        Self { program, kernel, files, records, owners: [None, None], struck: false }
    }

    fn new_process(&self) -> Process {
        let kernel = self.kernel.new_process();
        let dying = kernel.clone();
        let control = Control::new(Box::new(move || {
            dying.kill();
            // Unlike a panic, this runs no hook.
            resume_unwind(Box::new(Killed));
        }));
        let owner = Owner {
            pid: kernel.process(),
            start_time: 1,
            pid_namespace: 1,
            boot_id: BOOT.to_owned(),
            version: "gate".to_owned(),
        };
        let setting = Setting {
            files: Rc::clone(&self.files),
            ledger: LEDGER.into(),
            pins: PINS.into(),
            owner,
        };
        Process { kernel, control, setting }
    }

    /// Lets an owner perform an operation.
    fn run<T>(
        &mut self,
        owner: usize,
        fault: Option<Fault>,
        act: impl FnOnce(&mut P::Running) -> Result<T, String>,
    ) -> Outcome<T> {
        let Some((process, running)) = self.owners[owner].as_mut() else {
            return Outcome::Failed(format!("owner {owner} does not run"));
        };
        let outcome = under(&process.control, fault, || act(running));
        self.struck = process.control.struck();
        if outcome.is_none() {
            self.kill(owner);
        }
        as_outcome(outcome)
    }

    fn end(&mut self, owner: usize) {
        if let Some((process, running)) = self.owners[owner].take() {
            drop(running);
            process.kernel.kill();
        }
    }
}

/// Runs an operation that has a planned fault. Returns `None` if the process was killed.
fn under<T>(
    control: &Control,
    fault: Option<Fault>,
    act: impl FnOnce() -> Result<T, String>,
) -> Option<Result<T, String>> {
    control.plan(fault);
    let done = catch_unwind(AssertUnwindSafe(act));
    match done {
        Ok(result) => Some(result),
        Err(payload) if is_death(&*payload) => {
            control.is_dead();
            None
        }
        Err(payload) => resume_unwind(payload),
    }
}

fn is_death(payload: &(dyn Any + Send)) -> bool {
    payload.is::<Killed>()
}

fn as_outcome<T>(result: Option<Result<T, String>>) -> Outcome<T> {
    match result {
        Some(Ok(done)) => Outcome::Done(done),
        Some(Err(why)) => Outcome::Failed(why),
        None => Outcome::Died,
    }
}

impl<P: Program> System for InModel<P> {
    fn offers(&self, step: &Step) -> bool {
        self.program.offers(step)
    }

    fn shapes_tcp(&self) -> bool {
        self.program.shapes_tcp()
    }

    fn reports_counters(&self) -> bool {
        self.program.reports_counters()
    }

    fn refuses_to_displace(&self) -> bool {
        self.program.refuses_to_displace()
    }

    fn start(&mut self, owner: usize, fault: Option<Fault>) -> Outcome<()> {
        let process = self.new_process();
        let started = under(&process.control, fault, || self.program.start(&process));
        self.struck = process.control.struck();
        process.control.plan(None);
        match started {
            Some(Ok(running)) => {
                self.owners[owner] = Some((process, running));
                Outcome::Done(())
            }
            Some(Err(why)) => {
                process.kernel.kill();
                Outcome::Failed(why)
            }
            None => Outcome::Died,
        }
    }

    fn add(&mut self, owner: usize, request: &Request, fault: Option<Fault>) -> Outcome<()> {
        self.run(owner, fault, |running| running.add(request))
    }

    fn change(
        &mut self,
        owner: usize,
        handle: Handle,
        rates: &Rates,
        fault: Option<Fault>,
    ) -> Outcome<()> {
        self.run(owner, fault, |running| running.change(handle, rates))
    }

    fn remove(&mut self, owner: usize, handle: Handle, fault: Option<Fault>) -> Outcome<Counted> {
        self.run(owner, fault, |running| running.remove(handle))
    }

    fn claims(&mut self, owner: usize) -> Vec<Claim> {
        let Some((process, running)) = &self.owners[owner] else { return Vec::new() };
        process.control.plan(None);
        running.claims()
    }

    fn shut_down(&mut self, owner: usize, fault: Option<Fault>) -> Outcome<usize> {
        let outcome = self.run(owner, fault, Running::shut_down);
        match outcome {
            Outcome::Done(()) => {
                let open = self.owners[owner].as_ref().map_or(0, |(it, _)| it.kernel.open_files());
                self.end(owner);
                Outcome::Done(open)
            }
            Outcome::Failed(why) => Outcome::Failed(why),
            Outcome::Died => Outcome::Died,
        }
    }

    fn kill(&mut self, owner: usize) {
        if let Some((process, running)) = self.owners[owner].take() {
            process.kernel.kill();
            process.control.is_dead();
            drop(running);
        }
    }

    fn remove_recorded(&mut self, name: &str, fault: Option<Fault>) -> Outcome<()> {
        let process = self.new_process();
        let removed =
            under(&process.control, fault, || self.program.remove_recorded(&process, name));
        self.struck = process.control.struck();
        process.kernel.kill();
        as_outcome(removed)
    }

    fn recorded(&self) -> Vec<Recorded> {
        if self.program.has_ledger() { self.records.recorded() } else { Vec::new() }
    }

    fn ledger(&self) -> Option<(Rc<dyn Files>, PathBuf)> {
        self.program.has_ledger().then(|| self.records.place())
    }

    fn fault_struck(&self) -> bool {
        self.struck
    }
}

/// The engine.
#[derive(Debug, Clone, Copy)]
pub struct TheEngine;

impl Program for TheEngine {
    type Running = EngineOwner<Model>;

    fn offers(&self, _step: &Step) -> bool {
        true
    }

    fn start(&self, at: &Process) -> Result<Self::Running, String> {
        let kernel = at.kernel.clone();
        let resolve = move |pid| kernel.cgroup_of(pid).ok_or_else(|| format!("no process {pid}"));
        EngineOwner::start(at.kernel.clone(), &at.control, &at.setting, Box::new(resolve))
    }

    fn remove_recorded(&self, at: &Process, name: &str) -> Result<(), String> {
        remove_by_name(at.kernel.clone(), &at.control, &at.setting, name)
    }

    fn has_ledger(&self) -> bool {
        true
    }

    fn shapes_tcp(&self) -> bool {
        true
    }

    fn reports_counters(&self) -> bool {
        true
    }
}

impl Running for EngineOwner<Model> {
    fn add(&mut self, request: &Request) -> Result<(), String> {
        EngineOwner::add(self, request)
    }

    fn change(&mut self, handle: Handle, rates: &Rates) -> Result<(), String> {
        EngineOwner::change(self, handle, rates)
    }

    fn remove(&mut self, handle: Handle) -> Result<Counted, String> {
        EngineOwner::remove(self, handle)
    }

    fn claims(&self) -> Vec<Claim> {
        EngineOwner::claims(self)
    }

    fn shut_down(&mut self) -> Result<(), String> {
        EngineOwner::shut_down(self)
    }
}
