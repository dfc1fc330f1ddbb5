//! The gate's side.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::rc::Rc;

use nix::sys::signal::Signal;
use throttle_core::files::{FileSystem, Files};

use super::{Answer, Asked, Question};
use crate::gate::in_model::recorded;
use crate::gate::step::{Fault, Step};
use crate::gate::system::{Claim, Handle, Outcome, Rates, Recorded, Request, System};

/// Owners that are processes.
#[derive(Debug)]
pub struct Agents {
    program: PathBuf,
    boot_id: String,
    owners: [Option<Agent>; 2],
    /// Started ahead: on an emulated processor that takes a tenth of a second.
    spare: Option<Agent>,
    struck: bool,
}

#[derive(Debug)]
struct Agent {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Agent {
    fn spawn(program: &Path) -> Self {
        let spawned = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = spawned.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let (Some(questions), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            unreachable!("both were asked for")
        };
        Self { child, questions, answers: BufReader::new(answers) }
    }

    /// Asks, and waits for the answer. `None`: it was killed.
    fn ask(&mut self, asked: &Asked) -> Option<Answer> {
        let mut line = serde_json::to_vec(asked).expect("a question can be written down");
        line.push(b'\n');
        // If it is dead, the answer will not come.
        let _ = self.questions.write_all(&line);
        let mut answer = String::new();
        let read = self.answers.read_line(&mut answer);
        if read.is_ok_and(|length| length > 0) {
            return Some(serde_json::from_str(&answer).expect("an answer is one"));
        }
        let status = self.child.wait().expect("the agent can be waited for");
        assert_eq!(status.signal(), Some(Signal::SIGKILL as i32), "the agent ended: {status}");
        None
    }
}

impl Agents {
    /// Owners that run this program, the binary `engine-agent`.
    ///
    /// # Panics
    /// When the kernel does not tell its boot.
    pub fn new(program: &Path) -> Self {
        let boot_id = bpf::boot_id().expect("this boot has an id");
        let program = program.to_owned();
        Self { program, boot_id, owners: [None, None], spare: None, struck: false }
    }

    fn new_agent(&mut self) -> Agent {
        let spare = self.spare.replace(Agent::spawn(&self.program));
        spare.unwrap_or_else(|| Agent::spawn(&self.program))
    }

    fn ask(&mut self, owner: usize, question: Question, fault: Option<Fault>) -> Outcome<Answer> {
        let Some(agent) = self.owners[owner].as_mut() else {
            return Outcome::Failed(format!("owner {owner} does not run"));
        };
        let answer = agent.ask(&Asked { question, fault });
        if answer.is_none() {
            self.owners[owner] = None;
        }
        self.outcome(answer)
    }

    fn outcome(&mut self, answer: Option<Answer>) -> Outcome<Answer> {
        self.struck = answer.as_ref().is_none_or(|answer| answer.struck);
        match answer {
            None => Outcome::Died,
            Some(Answer { failed: Some(why), .. }) => Outcome::Failed(why),
            Some(answer) => Outcome::Done(answer),
        }
    }
}

fn without_answer(outcome: Outcome<Answer>) -> Outcome<()> {
    match outcome {
        Outcome::Done(_) => Outcome::Done(()),
        Outcome::Failed(why) => Outcome::Failed(why),
        Outcome::Died => Outcome::Died,
    }
}

impl System for Agents {
    fn offers(&self, _step: &Step) -> bool {
        true
    }

    fn start(&mut self, owner: usize, fault: Option<Fault>) -> Outcome<()> {
        self.owners[owner] = Some(self.new_agent());
        let outcome = self.ask(owner, Question::Start, fault);
        if !matches!(outcome, Outcome::Done(_)) {
            self.owners[owner] = None;
        }
        without_answer(outcome)
    }

    fn add(&mut self, owner: usize, request: &Request, fault: Option<Fault>) -> Outcome<()> {
        without_answer(self.ask(owner, Question::Add(request.clone()), fault))
    }

    fn change(
        &mut self,
        owner: usize,
        handle: Handle,
        rates: &Rates,
        fault: Option<Fault>,
    ) -> Outcome<()> {
        without_answer(self.ask(owner, Question::Change(handle, rates.clone()), fault))
    }

    fn remove(&mut self, owner: usize, handle: Handle, fault: Option<Fault>) -> Outcome<()> {
        without_answer(self.ask(owner, Question::Remove(handle), fault))
    }

    fn claims(&mut self, owner: usize) -> Vec<Claim> {
        let struck = self.struck;
        let claims = match self.ask(owner, Question::Claims, None) {
            Outcome::Done(answer) => answer.claims,
            Outcome::Failed(_) | Outcome::Died => Vec::new(),
        };
        self.struck = struck;
        claims
    }

    fn shut_down(&mut self, owner: usize, fault: Option<Fault>) -> Outcome<usize> {
        match self.ask(owner, Question::ShutDown, fault) {
            Outcome::Done(answer) => {
                self.owners[owner] = None;
                Outcome::Done(answer.open_files)
            }
            Outcome::Failed(why) => Outcome::Failed(why),
            Outcome::Died => Outcome::Died,
        }
    }

    fn kill(&mut self, owner: usize) {
        self.owners[owner] = None;
    }

    fn remove_recorded(&mut self, name: &str, fault: Option<Fault>) -> Outcome<()> {
        let mut agent = self.new_agent();
        let question = Question::RemoveRecorded(name.to_owned());
        let answer = agent.ask(&Asked { question, fault });
        without_answer(self.outcome(answer))
    }

    fn recorded(&self) -> Vec<Recorded> {
        let files: Rc<dyn Files> = Rc::new(FileSystem);
        recorded(&files, Path::new(bpf::ledger::DEFAULT_DIR), &self.boot_id)
    }

    fn ledger(&self) -> Option<(Rc<dyn Files>, PathBuf)> {
        Some((Rc::new(FileSystem), bpf::ledger::DEFAULT_DIR.into()))
    }

    fn fault_struck(&self) -> bool {
        self.struck
    }
}
