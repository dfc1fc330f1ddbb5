//! Runs the engine as a system of processes.

use std::path::PathBuf;
use std::rc::Rc;

use testkit::binaries;
use throttle_core::files::Files;

use super::child::Agent;
use super::protocol::{Answer, Asked, Said, What};
use crate::sequences::records::Records;
use crate::sequences::step::{Fault, Step};
use crate::sequences::system::{Claim, Counted, Handle, Outcome, Rates, Recorded, Request, System};

/// Two owners, each an agent. Dropping it kills and reaps all agents.
///
/// A process that has shut down and has no more open files than a new one serves again as a new one. This saves an
/// exec, which takes a tenth of a second on an emulated processor.
#[derive(Debug)]
pub struct AgentSystem {
    program: PathBuf,
    owners: [Option<Agent>; 2],
    /// An agent that was started in advance or is left over.
    spare: Option<Agent>,
    records: Records,
    struck: bool,
}

impl AgentSystem {
    /// Creates the system. No agent runs yet.
    ///
    /// # Errors
    /// Fails if the agent was not built.
    pub fn new() -> Result<Self, String> {
        let program = binaries::find("engine-agent")?;
        let records = Records::of_this_host()?;
        let spare = Some(Agent::spawn(&program)?);
        Ok(Self { program, owners: [None, None], spare, records, struck: false })
    }

    fn take_spare(&mut self) -> Result<Agent, String> {
        self.spare.take().map_or_else(|| Agent::spawn(&self.program), Ok)
    }

    /// Lets an owner perform an operation.
    fn run(&mut self, owner: usize, what: What, fault: Option<Fault>) -> Outcome<Answer> {
        let Some(mut agent) = self.owners[owner].take() else {
            return Outcome::Failed(format!("owner {owner} does not run"));
        };
        let outcome = self.ask(&mut agent, what, fault);
        if outcome.is_alive() {
            self.owners[owner] = Some(agent);
        }
        outcome.into()
    }

    fn ask(&mut self, agent: &mut Agent, what: What, fault: Option<Fault>) -> Asking {
        self.struck = false;
        match agent.ask(&Asked { what, fault }) {
            Ok(Some(answer)) => {
                self.struck = answer.struck;
                match answer.said {
                    Said::Failed(why) => Asking::Failed(why),
                    Said::Done | Said::Claims(_) | Said::Removed(_) => Asking::Done(answer),
                }
            }
            Ok(None) => {
                self.struck = true;
                Asking::Died
            }
            Err(why) => Asking::Broken(why),
        }
    }
}

/// The outcome of a request to an agent.
enum Asking {
    Done(Answer),
    Failed(String),
    Died,
    /// The agent ended in a way that it never should.
    Broken(String),
}

impl Asking {
    fn is_alive(&self) -> bool {
        matches!(self, Self::Done(_) | Self::Failed(_))
    }
}

impl From<Asking> for Outcome<Answer> {
    fn from(asking: Asking) -> Self {
        match asking {
            Asking::Done(answer) => Self::Done(answer),
            // Nobody knows that the fault struck, so this counts as a failure without a reason.
            Asking::Failed(why) | Asking::Broken(why) => Self::Failed(why),
            Asking::Died => Self::Died,
        }
    }
}

fn without<T>(outcome: Outcome<T>) -> Outcome<()> {
    outcome.map(drop)
}

impl System for AgentSystem {
    fn shapes_tcp(&self) -> bool {
        true
    }

    fn offers(&self, _step: &Step) -> bool {
        true
    }

    fn start(&mut self, owner: usize, fault: Option<Fault>) -> Outcome<()> {
        let mut agent = match self.take_spare() {
            Ok(agent) => agent,
            Err(why) => return Outcome::Failed(why),
        };
        let outcome = self.ask(&mut agent, What::Start, fault);
        match &outcome {
            Asking::Done(answer) => {
                agent.open_files = answer.open_files;
                self.owners[owner] = Some(agent);
            }
            Asking::Failed(_) => self.spare = Some(agent),
            Asking::Died | Asking::Broken(_) => {}
        }
        if self.spare.is_none() {
            // The spare agent starts while others work. If that fails, the next start tries again and reports it.
            self.spare = Agent::spawn(&self.program).ok();
        }
        without(outcome.into())
    }

    fn add(&mut self, owner: usize, request: &Request, fault: Option<Fault>) -> Outcome<()> {
        without(self.run(owner, What::Add(request.clone()), fault))
    }

    fn change(
        &mut self,
        owner: usize,
        handle: Handle,
        rates: &Rates,
        fault: Option<Fault>,
    ) -> Outcome<()> {
        without(self.run(owner, What::Change { handle, rates: rates.clone() }, fault))
    }

    fn remove(&mut self, owner: usize, handle: Handle, fault: Option<Fault>) -> Outcome<Counted> {
        self.run(owner, What::Remove(handle), fault).map(|answer| match answer.said {
            Said::Removed(counted) => counted,
            // An agent that does not answer reports no counters. If there are some, the check finds the difference.
            _ => Counted::new(),
        })
    }

    fn claims(&mut self, owner: usize) -> Vec<Claim> {
        let struck = self.struck;
        let outcome = self.run(owner, What::Claims, None);
        self.struck = struck;
        match outcome {
            Outcome::Done(Answer { said: Said::Claims(claims), .. }) => claims,
            // An agent that does not answer claims nothing. If there is something, the check finds the difference.
            _ => Vec::new(),
        }
    }

    fn shut_down(&mut self, owner: usize, fault: Option<Fault>) -> Outcome<usize> {
        match self.run(owner, What::ShutDown, fault) {
            Outcome::Done(answer) => {
                let agent = self.owners[owner].take();
                let at_start = agent.as_ref().map_or(0, |agent| agent.open_files);
                let open = answer.open_files.saturating_sub(at_start);
                if open == 0 && self.spare.is_none() {
                    self.spare = agent;
                }
                Outcome::Done(open)
            }
            Outcome::Failed(why) => Outcome::Failed(why),
            Outcome::Died => Outcome::Died,
        }
    }

    fn kill(&mut self, owner: usize) {
        // Dropping the agent kills it and waits for its death.
        self.owners[owner] = None;
    }

    fn remove_recorded(&mut self, name: &str, fault: Option<Fault>) -> Outcome<()> {
        let mut agent = match self.take_spare() {
            Ok(agent) => agent,
            Err(why) => return Outcome::Failed(why),
        };
        let outcome = self.ask(&mut agent, What::RemoveRecorded(name.to_owned()), fault);
        if outcome.is_alive() {
            self.spare = Some(agent);
        }
        without(outcome.into())
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
}
