//! Runs the program once.

use std::io::Read;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use super::skip::Skip;
use super::strace::{Strace, pid_of};
use crate::sequences::agent::is_killed;
use crate::sequences::lines::Lines;
use crate::sequences::owners;
use crate::sequences::step::Fault;

/// The longest wait for a line or for the end of a run, if one is due.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A running program. Dropping it kills the process.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    stdout: Lines<ChildStdout>,
    strace: Option<Strace>,
    /// Whether the planned fault kills the process.
    is_to_die: bool,
}

/// How a run ended.
#[derive(Debug)]
pub(super) enum End {
    /// The exit status, and the text on standard error.
    Exit(i32, String),
    /// The planned fault killed the process.
    Killed,
}

impl Process {
    /// Starts the program. With a fault it runs under strace.
    pub(super) fn start(
        program: &Path,
        words: &[&str],
        fault: Option<Fault>,
        skip: Skip,
    ) -> Result<Self, String> {
        let mut command = if fault.is_some() {
            // The shell stops itself until strace is attached.
            let mut shell = Command::new("sh");
            shell.args(["-c", r#"kill -STOP $$; exec "$0" "$@""#]).arg(program);
            shell
        } else {
            Command::new(program)
        };
        command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let failed = |what: &dyn std::fmt::Display| format!("{}: {what}", program.display());
        let mut child = command.spawn().map_err(|error| failed(&error))?;
        owners::note(&child).map_err(|error| failed(&error))?;
        let Some(stdout) = child.stdout.take() else { return Err(failed(&"no pipe")) };
        let stdout = Lines::new(stdout, PATIENCE);
        let mut process = Self { child, stdout, strace: None, is_to_die: false };
        if let Some(fault) = fault {
            let pid = pid_of(&process.child);
            let stopped = waitpid(pid, Some(WaitPidFlag::WUNTRACED));
            if !matches!(stopped, Ok(WaitStatus::Stopped(..))) {
                return Err(failed(&format!("it does not wait: {stopped:?}")));
            }
            process.attach(fault, skip)?;
            kill(pid, Signal::SIGCONT).map_err(|errno| failed(&errno))?;
        }
        Ok(process)
    }

    /// Attaches strace, which counts the calls from here on.
    fn attach(&mut self, fault: Fault, skip: Skip) -> Result<(), String> {
        self.is_to_die = fault.mishap.is_death();
        self.strace = Some(Strace::attach(pid_of(&self.child), fault, skip)?);
        Ok(())
    }

    /// Returns the next line of output, or an empty text at the end.
    pub(super) fn line(&mut self) -> Result<String, String> {
        self.stdout.next().map_err(|error| error.to_string())
    }

    /// Detaches strace, so no fault strikes any more. Tells whether one has struck.
    pub(super) fn at_peace(&mut self) -> Result<bool, String> {
        self.strace.take().map_or(Ok(false), Strace::let_go)
    }

    /// Returns the exit status if the program has ended by itself.
    pub(super) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends SIGINT to the program, as Ctrl-C does.
    pub(super) fn interrupt(&mut self, fault: Option<Fault>) -> Result<(), String> {
        // A limit on a removed cgroup ends by itself, on a slow machine even before the signal.
        if self.has_ended().is_some() {
            return Ok(());
        }
        if let Some(fault) = fault
            && let Err(why) = self.attach(fault, Skip::default())
        {
            // strace cannot attach to a process that has just ended, and need not.
            return if self.has_ended().is_some() { Ok(()) } else { Err(why) };
        }
        kill(pid_of(&self.child), Signal::SIGINT).map_err(|errno| errno.to_string())
    }

    /// Waits for the end. Tells how the program ended, and whether the planned fault struck.
    pub(super) fn end(mut self) -> Result<(End, bool), String> {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if Instant::now() < deadline => sleep(Duration::from_millis(1)),
                Ok(None) => return Err(format!("it has not ended within {PATIENCE:?}")),
                Err(error) => return Err(error.to_string()),
            }
        };
        let struck = self.strace.take().map_or(Ok(false), Strace::end)?;
        let mut stderr = String::new();
        if let Some(mut from) = self.child.stderr.take() {
            from.read_to_string(&mut stderr).map_err(|error| error.to_string())?;
        }
        match status.code() {
            Some(code) => Ok((End::Exit(code, stderr), struck)),
            None if is_killed(status) && self.is_to_die => Ok((End::Killed, true)),
            None => Err(format!("it ended by itself: {status}: {stderr}")),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Detach strace first. The process dies in any case, but strace gets to know.
        self.strace = None;
        // The process may be dead already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
