//! Controls a running agent.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::protocol::{Answer, Asked};
use crate::sequences::lines::Lines;
use crate::sequences::owners;

/// The longest wait for an answer. A busy emulated processor needs this long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running agent. Dropping it kills the process.
#[derive(Debug)]
pub(super) struct Agent {
    child: Child,
    to: ChildStdin,
    from: Lines<ChildStdout>,
    /// The number of open files right after the agent started its engine.
    pub(super) open_files: usize,
}

impl Agent {
    pub(super) fn spawn(program: &Path) -> Result<Self, String> {
        let failed = |what: &dyn std::fmt::Display| format!("{}: {what}", program.display());
        let mut child = Command::new(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| failed(&error))?;
        owners::note(&child).map_err(|error| failed(&error))?;
        let (to, from) = (child.stdin.take(), child.stdout.take());
        let (Some(to), Some(from)) = (to, from) else { return Err(failed(&"no pipes")) };
        Ok(Self { child, to, from: Lines::new(from, PATIENCE), open_files: 0 })
    }

    /// Sends a request and returns the answer, or `None` if the agent was killed half way.
    pub(super) fn ask(&mut self, asked: &Asked) -> Result<Option<Answer>, String> {
        let mut line = serde_json::to_string(asked).map_err(|error| error.to_string())?;
        line.push('\n');
        // An error here means that the agent has ended. The missing answer below says so too.
        let sent = self.to.write_all(line.as_bytes());
        let answer = self.from.next();
        let answer = answer.map_err(|error| format!("the agent: {error}; it was asked {line}"))?;
        if !answer.is_empty() {
            return serde_json::from_str(&answer)
                .map(Some)
                .map_err(|error| format!("the agent's answer: {error}: {answer}"));
        }
        let status = self.child.wait().map_err(|error| error.to_string())?;
        let was_to_die = asked.fault.is_some_and(|fault| fault.mishap.is_death());
        if was_to_die && sent.is_ok() && is_killed(status) {
            return Ok(None);
        }
        Err(format!("the agent ended by itself: {status}; it was asked {line}"))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // The agent may be dead already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Tells whether SIGKILL ended a process.
pub(in crate::sequences) fn is_killed(status: ExitStatus) -> bool {
    status.signal() == Some(Signal::SIGKILL as i32)
}
