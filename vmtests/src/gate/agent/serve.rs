//! The process's side.

use std::io::{self, BufRead, Write};
use std::path::PathBuf;
use std::rc::Rc;

use bpf::{LinuxBpf, Owner};
use nix::sys::signal::{Signal, raise};
use throttle_core::files::FileSystem;
use throttle_core::target::Target;

use super::{Answer, Asked, Question};
use crate::gate::engine::{EngineOwner, Setting, remove_by_name};
use crate::gate::faulty::Control;
use crate::gate::in_model::PINS;

/// Answers until nobody asks any more.
///
/// # Errors
/// When the process cannot find out about itself and the kernel, or nobody listens.
pub fn serve(questions: impl BufRead, mut answers: impl Write) -> anyhow::Result<()> {
    let mut agent = Agent::new()?;
    for line in questions.lines() {
        let asked: Asked = serde_json::from_str(&line?)?;
        serde_json::to_writer(&mut answers, &agent.answer(&asked))?;
        answers.write_all(b"\n")?;
        answers.flush()?;
    }
    Ok(())
}

struct Agent {
    kernel: LinuxBpf,
    setting: Setting,
    control: Rc<Control>,
    engine: Option<EngineOwner<LinuxBpf>>,
    files_at_start: usize,
}

impl Agent {
    fn new() -> anyhow::Result<Self> {
        let setting = Setting {
            files: Rc::new(FileSystem),
            ledger: bpf::ledger::DEFAULT_DIR.into(),
            pins: PINS.into(),
            owner: Owner::this_process("gate")?,
        };
        let control = Control::new(Box::new(|| {
            // Nothing comes after it.
            let _ = raise(Signal::SIGKILL);
        }));
        let files_at_start = open_files()?;
        let kernel = LinuxBpf::new()?;
        Ok(Self { kernel, setting, control, engine: None, files_at_start })
    }

    fn answer(&mut self, asked: &Asked) -> Answer {
        self.control.plan(asked.fault);
        let mut answer = Answer::default();
        let done = match &asked.question {
            Question::Start => self.start(),
            Question::RemoveRecorded(name) => {
                remove_by_name(self.kernel, &self.control, &self.setting, name)
            }
            other => self.with_engine(other, &mut answer),
        };
        answer.failed = done.err();
        answer.struck = self.control.struck();
        self.control.plan(None);
        if let Ok(open) = open_files() {
            answer.open_files = open.saturating_sub(self.files_at_start);
        }
        answer
    }

    fn start(&mut self) -> Result<(), String> {
        let resolve = |pid| -> Result<PathBuf, String> {
            let resolved = Target::Process(pid).resolve().map_err(|error| error.to_string())?;
            Ok(resolved.cgroup)
        };
        let started =
            EngineOwner::start(self.kernel, &self.control, &self.setting, Box::new(resolve))?;
        self.engine = Some(started);
        Ok(())
    }

    fn with_engine(&mut self, question: &Question, answer: &mut Answer) -> Result<(), String> {
        let engine = self.engine.as_mut().ok_or("the engine was not started")?;
        match question {
            Question::Add(request) => engine.add(request),
            Question::Change(handle, rates) => engine.change(*handle, rates),
            Question::Remove(handle) => engine.remove(*handle),
            Question::ShutDown => engine.shut_down(),
            Question::Claims | Question::Start | Question::RemoveRecorded(_) => {
                answer.claims = engine.claims();
                Ok(())
            }
        }
    }
}

fn open_files() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/fd")?.count())
}
