//! One run of the program.

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

/// How long a run may take to say something, and to end, when it ought to.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A process; dropping this kills it.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    stdout: Lines<ChildStdout>,
    strace: Option<Strace>,
    /// What goes wrong may be that it is killed.
    is_to_die: bool,
}

/// How a run ended.
#[derive(Debug)]
pub(super) enum End {
    /// With this status, and this on its standard error.
    Exit(i32, String),
    /// It was killed, as it was to be.
    Killed,
}

impl Process {
    /// Starts it; where something is to go wrong, under strace.
    pub(super) fn start(
        program: &Path,
        words: &[&str],
        fault: Option<Fault>,
        skip: Skip,
    ) -> Result<Self, String> {
        let mut command = if fault.is_some() {
            // It waits until its calls are seen.
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

    /// From here on its calls are counted.
    fn attach(&mut self, fault: Fault, skip: Skip) -> Result<(), String> {
        self.is_to_die = fault.mishap.is_death();
        self.strace = Some(Strace::attach(pid_of(&self.child), fault, skip)?);
        Ok(())
    }

    /// The next line that it prints; empty when there is none any more.
    pub(super) fn line(&mut self) -> Result<String, String> {
        self.stdout.next().map_err(|error| error.to_string())
    }

    /// Nothing goes wrong any more. Tells whether anything did.
    pub(super) fn at_peace(&mut self) -> Result<bool, String> {
        self.strace.take().map_or(Ok(false), Strace::let_go)
    }

    /// Whether it has ended by itself, and how.
    pub(super) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends it SIGINT, as Ctrl-C does.
    pub(super) fn interrupt(&mut self, fault: Option<Fault>) -> Result<(), String> {
        // One whose cgroup was removed ends by itself, on a slow machine before it is told to.
        if self.has_ended().is_some() {
            return Ok(());
        }
        if let Some(fault) = fault
            && let Err(why) = self.attach(fault, Skip::default())
        {
            // One that has just ended cannot be traced, and need not be.
            return if self.has_ended().is_some() { Ok(()) } else { Err(why) };
        }
        kill(pid_of(&self.child), Signal::SIGINT).map_err(|errno| errno.to_string())
    }

    /// Waits for its end. Tells how that was, and whether anything went wrong by intent.
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
        // Let go first: what is traced dies no less, but its tracer is told.
        self.strace = None;
        // One that is dead already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
