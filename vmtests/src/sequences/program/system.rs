//! Runs the program as a system.

use std::path::PathBuf;
use std::rc::Rc;

use kernel::AttachType;
use testkit::binaries;
use throttle_core::files::Files;

use super::process::{End, Process};
use super::skip::{Skip, Skips};
use crate::sequences::records::Records;
use crate::sequences::step::{Fault, How, Kind, Step};
use crate::sequences::system::{
    Claim, Counted, Handle, Outcome, Rates, Recorded, Request, System, Whom,
};

/// No cgroup has this path. `limit` on it settles, as each start does, and then has nothing to limit.
pub(super) const NOWHERE: &str = "/chadtest-nowhere";
/// The message of that run.
const NO_SUCH_CGROUP: &str = "no such cgroup: ";
/// The message of `limit` when it ends by itself.
const NOTHING_LEFT_TO_LIMIT: &str = "the cgroup was removed";
/// The message if somebody else has detached a program that limits. The program ends with status 1 then.
const DETACHED: &str = "somebody else has detached a program of this throttle";
const NOT_ALWAYS: &str = "error: the limit did not hold all the time";

/// Two owners, each with a process for each of its throttles. Dropping it kills and reaps all processes.
///
/// If one process of an owner is killed at a call, the others are killed with it. Pinned throttles belong to nobody
/// from the start, because their processes end when they are armed.
#[derive(Debug)]
pub struct ProgramSystem {
    program: PathBuf,
    owners: [Vec<(Handle, Process)>; 2],
    records: Records,
    skips: Skips,
    struck: bool,
    lost: Vec<Handle>,
}

impl ProgramSystem {
    /// Creates the system. Nothing runs yet.
    ///
    /// # Errors
    /// Fails if the program was not built or strace is missing.
    pub fn new() -> Result<Self, String> {
        let program = binaries::find("chadthrottle")?;
        let records = Records::of_this_host()?;
        let skips = Skips::of(&program)?;
        let owners = [Vec::new(), Vec::new()];
        Ok(Self { program, owners, records, skips, struck: false, lost: Vec::new() })
    }

    fn run(&mut self, words: &[&str], fault: Option<Fault>, skip: Skip) -> Result<End, String> {
        self.end(Process::start(&self.program, words, fault, skip)?)
    }

    fn end(&mut self, process: Process) -> Result<End, String> {
        self.struck = false;
        let (end, struck) = process.end()?;
        self.struck = struck;
        Ok(end)
    }

    fn try_add(
        &mut self,
        owner: usize,
        request: &Request,
        fault: Option<Fault>,
    ) -> Result<Outcome<()>, String> {
        let words = words(request);
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let mut process = Process::start(&self.program, &words, fault, self.skips.adding)?;
        let is_armed = process.line()?.starts_with("limiting ");
        if !is_armed || request.how == How::Pinned {
            let end = self.end(process)?;
            if let (End::Exit(0, _), false) = (&end, is_armed) {
                return Err("it ended well, and never said that it was armed".to_owned());
            }
            return Ok(outcome(end));
        }
        self.struck = process.at_peace()?;
        if process.has_ended().is_some() {
            return Ok(outcome(self.end(process)?));
        }
        self.owners[owner].push((request.handle, process));
        Ok(Outcome::Done(()))
    }

    fn try_remove(
        &mut self,
        handle: Handle,
        mut process: Process,
        fault: Option<Fault>,
    ) -> Result<Outcome<()>, String> {
        let by_itself = process.has_ended().is_some();
        process.interrupt(fault)?;
        match self.end(process)? {
            End::Exit(0, stderr) if by_itself && !stderr.contains(NOTHING_LEFT_TO_LIMIT) => {
                Err(format!("it had ended by itself: {stderr}"))
            }
            // The program removes the throttle and says that it was not in force all the time.
            End::Exit(1, stderr)
                if stderr.contains(DETACHED) && stderr.trim_end().ends_with(NOT_ALWAYS) =>
            {
                self.lost.push(handle);
                Ok(Outcome::Done(()))
            }
            end => Ok(outcome(end)),
        }
    }

    /// Completes an operation. If a process was killed at a call, it kills the owner's other processes too.
    fn settled(&mut self, owner: usize, outcome: Result<Outcome<()>, String>) -> Outcome<()> {
        let outcome = outcome.unwrap_or_else(|why| {
            // The fault did not strike, so this is a failure without a reason.
            self.struck = false;
            Outcome::Failed(why)
        });
        if outcome == Outcome::Died {
            self.kill(owner);
        }
        outcome
    }
}

fn outcome(end: End) -> Outcome<()> {
    match end {
        End::Exit(0, _) => Outcome::Done(()),
        End::Exit(code, stderr) => Outcome::Failed(format!("exit status {code}: {stderr}")),
        End::Killed => Outcome::Died,
    }
}

fn words(request: &Request) -> Vec<String> {
    let mut words = vec!["limit".to_owned()];
    match &request.whom {
        Whom::Cgroup(path) => words.extend(["--cgroup".to_owned(), path.display().to_string()]),
        Whom::Process(pid) => words.extend(["--pid".to_owned(), pid.to_string()]),
    }
    for (&attach_type, rate) in &request.rates {
        let ingress = attach_type == AttachType::INET_INGRESS;
        words.push(if ingress { "--download" } else { "--upload" }.to_owned());
        words.push(rate.to_string());
    }
    let how = match request.how {
        How::Link => "link",
        How::Pinned => "pinned",
        How::Legacy => "legacy",
    };
    words.extend(["--attach".to_owned(), how.to_owned()]);
    // `auto` would be unsuitable. If a call fails while programs are loaded, it makes a limit of fewer programs.
    words.extend(["--tcp".to_owned(), "shape".to_owned()]);
    words
}

impl System for ProgramSystem {
    fn offers(&self, step: &Step) -> bool {
        // A limit yields to a program that it would switch off, at its next look. What the trial expects would depend
        // on that time. `chadthrottle/tests/root_neighbours.rs` tests it.
        let yields = |kind: &Kind| matches!(kind, Kind::None | Kind::Override);
        match step {
            Step::Change { .. } => false,
            Step::OthersAttach { kind, .. } => !yields(kind),
            _ => true,
        }
    }

    fn is_a_process_for_each_throttle(&self) -> bool {
        true
    }

    fn shapes_tcp(&self) -> bool {
        true
    }

    /// Returns false. `limit` prints counters at the end, as text. Until then the trial reads them itself.
    fn reports_counters(&self) -> bool {
        false
    }

    fn start(&mut self, owner: usize, fault: Option<Fault>) -> Outcome<()> {
        let words = ["limit", "--cgroup", NOWHERE, "--upload", "1M"];
        let ended = self.run(&words, fault, self.skips.settling).map(|end| match end {
            End::Exit(_, stderr) if stderr.contains(NO_SUCH_CGROUP) => Outcome::Done(()),
            End::Exit(code, stderr) => Outcome::Failed(format!("exit status {code}: {stderr}")),
            End::Killed => Outcome::Died,
        });
        self.settled(owner, ended)
    }

    fn add(&mut self, owner: usize, request: &Request, fault: Option<Fault>) -> Outcome<()> {
        let added = self.try_add(owner, request, fault);
        self.settled(owner, added)
    }

    fn change(&mut self, _: usize, _: Handle, _: &Rates, _: Option<Fault>) -> Outcome<()> {
        Outcome::Failed("the program changes nothing".to_owned())
    }

    fn remove(&mut self, owner: usize, handle: Handle, fault: Option<Fault>) -> Outcome<Counted> {
        let Some(at) = self.owners[owner].iter().position(|(known, _)| *known == handle) else {
            self.struck = false;
            return Outcome::Failed(format!("there is no throttle {handle}"));
        };
        let (_, process) = self.owners[owner].remove(at);
        let removed = self.try_remove(handle, process, fault);
        self.settled(owner, removed).map(|()| Counted::new())
    }

    /// Lists the throttles whose processes run, or have ended regularly because nothing was left to limit.
    fn claims(&mut self, owner: usize) -> Vec<Claim> {
        let is_well = |process: &mut Process| process.has_ended().is_none_or(|it| it.success());
        let mut claims = Vec::new();
        for (handle, process) in &mut self.owners[owner] {
            if is_well(process) {
                claims.push(Claim {
                    handle: *handle,
                    rates: Rates::new(),
                    counters: Counted::new(),
                });
            }
        }
        claims
    }

    fn shut_down(&mut self, owner: usize, fault: Option<Fault>) -> Outcome<usize> {
        let (mut struck, mut failures) = (false, Vec::new());
        let handles: Vec<_> = self.owners[owner].iter().map(|(handle, _)| *handle).collect();
        for (at, handle) in handles.into_iter().enumerate() {
            // The fault strikes only the first process.
            let outcome = self.remove(owner, handle, fault.filter(|_| at == 0));
            struck |= self.struck;
            match outcome {
                Outcome::Done(_) => {}
                Outcome::Failed(why) => failures.push(why),
                Outcome::Died => return Outcome::Died,
            }
        }
        self.struck = struck;
        if failures.is_empty() { Outcome::Done(0) } else { Outcome::Failed(failures.join("; ")) }
    }

    fn kill(&mut self, owner: usize) {
        // Dropping the processes kills them and waits for their death.
        self.owners[owner].clear();
    }

    fn remove_recorded(&mut self, name: &str, fault: Option<Fault>) -> Outcome<()> {
        let removed = self.run(&["rm", name], fault, self.skips.settling).map(outcome);
        removed.unwrap_or_else(|why| {
            self.struck = false;
            Outcome::Failed(why)
        })
    }

    fn recorded(&self) -> Vec<Recorded> {
        self.records.recorded()
    }

    fn ledger(&self) -> Option<(Rc<dyn Files>, PathBuf)> {
        Some(self.records.place())
    }

    fn fault_struck(&self) -> bool {
        self.struck
    }

    fn take_lost(&mut self) -> Vec<Handle> {
        std::mem::take(&mut self.lost)
    }
}
