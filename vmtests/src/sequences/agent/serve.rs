//! Serves requests in the agent's process.

use std::io::{self, BufRead, Write};
use std::rc::Rc;

use anyhow::{Context, Result};
use bpf::{LinuxBpf, Owner};
use nix::sys::signal::{Signal, raise};
use throttle_core::files::FileSystem;
use throttle_core::target::{Target, ThisHost};

use super::protocol::{Answer, Asked, Said, What};
use crate::sequences::engine::{EngineOwner, Setting, remove_by_name};
use crate::sequences::faulty::Control;

/// Serves requests on standard input until it ends.
///
/// # Errors
/// Fails if a line is no request or the answer cannot be sent, which is a bug of the harness.
pub fn serve() -> Result<()> {
    let mut agent = Agent::new()?;
    for line in io::stdin().lock().lines() {
        let line = line?;
        let asked = serde_json::from_str(&line).with_context(|| format!("no request: {line}"))?;
        let answer = agent.answer(asked)?;
        let mut out = io::stdout().lock();
        serde_json::to_writer(&mut out, &answer)?;
        out.write_all(b"\n")?;
        out.flush()?;
    }
    Ok(())
}

struct Agent {
    kernel: LinuxBpf,
    control: Rc<Control>,
    setting: Setting,
    owner: Option<EngineOwner<LinuxBpf>>,
}

impl Agent {
    fn new() -> Result<Self> {
        let setting = Setting {
            files: Rc::new(FileSystem),
            ledger: bpf::ledger::DEFAULT_DIR.into(),
            pins: std::path::Path::new(kernel::pins::DEFAULT_BPFFS).join("chadthrottle"),
            owner: Owner::this_process("gate")?,
        };
        // A process that sends itself SIGKILL does not return from the call.
        let control = Control::new(Box::new(|| {
            let _ = raise(Signal::SIGKILL);
        }));
        Ok(Self { kernel: LinuxBpf::new()?, control, setting, owner: None })
    }

    fn answer(&mut self, asked: Asked) -> Result<Answer> {
        self.control.plan(asked.fault);
        let result = self.act(asked.what);
        let struck = self.control.struck();
        // The planned fault must not strike a later operation.
        self.control.plan(None);
        let said = result.unwrap_or_else(Said::Failed);
        Ok(Answer { said, struck, open_files: open_files()? })
    }

    fn act(&mut self, what: What) -> Result<Said, String> {
        match what {
            What::Start => {
                let resolve = |pid| {
                    let resolved = Target::Process(pid).resolve(&ThisHost);
                    resolved.map(|it| it.cgroup).map_err(|error| error.to_string())
                };
                let resolve = Box::new(resolve);
                let started =
                    EngineOwner::start(self.kernel, &self.control, &self.setting, resolve)?;
                self.owner = Some(started);
            }
            What::Add(request) => self.owner()?.add(&request)?,
            What::Change { handle, rates } => self.owner()?.change(handle, &rates)?,
            What::Remove(handle) => return Ok(Said::Removed(self.owner()?.remove(handle)?)),
            What::Claims => return Ok(Said::Claims(self.owner()?.claims())),
            What::ShutDown => {
                self.owner()?.shut_down()?;
                self.owner = None;
            }
            What::RemoveRecorded(name) => {
                remove_by_name(self.kernel, &self.control, &self.setting, &name)?;
            }
        }
        Ok(Said::Done)
    }

    fn owner(&mut self) -> Result<&mut EngineOwner<LinuxBpf>, String> {
        self.owner.as_mut().ok_or_else(|| "the engine was not started".to_owned())
    }
}

/// Counts the open files. The count includes the descriptor that lists them.
fn open_files() -> Result<usize> {
    Ok(std::fs::read_dir("/proc/self/fd")?.count())
}
