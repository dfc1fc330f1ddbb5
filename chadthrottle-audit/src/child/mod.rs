//! Runs the command as a child process: passes signals on to it and identifies what it leaves running.

mod slate;

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use terminal::talk::warning;
use terminal::{Ignored, escape};

pub(crate) use self::slate::Slate;
use crate::documents::Ended;

/// The hidden subcommand that becomes the command.
pub(crate) const BECOME: &str = "gate-command";

/// The signals to pass on: all that somebody sends to a program on purpose. Job control is left out, and so are the
/// signals that the kernel sends because of a fault, a broken pipe or a limit. `SIGABRT` is left out too, because it
/// asks for a dump of the gate itself. (Real-time signals have no name here.)
const PASSED_ON: [Signal; 12] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGVTALRM,
    Signal::SIGPROF,
    Signal::SIGIO,
    Signal::SIGPWR,
    Signal::SIGWINCH,
];

fn taken() -> SigSet {
    PASSED_ON.into_iter().chain([Signal::SIGCHLD]).collect()
}

/// Receives this process's signals. Orphans of the command become children of this process.
pub(crate) struct Children {
    signals: SignalFd,
}

impl Children {
    /// Blocks the signals and becomes a subreaper. Call it before any thread starts, because a thread that does not
    /// block a signal would receive it.
    ///
    /// # Errors
    /// A call fails, or this process ignores `SIGCHLD`, so that it could not learn an exit status.
    pub(crate) fn watch() -> anyhow::Result<Self> {
        if Ignored::now()?.has(Signal::SIGCHLD) {
            bail!(
                "whoever started this program ignores SIGCHLD, so the kernel would not tell how the command ended: \
                 start it from a shell"
            );
        }
        taken().thread_block().context("cannot block signals")?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&taken(), flags).context("cannot take signals")?;
        set_child_subreaper(true).context("cannot become the parent of what is orphaned")?;
        Ok(Self { signals })
    }

    /// Runs a command with this process's standard streams, passes signals on to it, and waits for its end. Returns how
    /// it ended, and the reason if the command could not be run.
    ///
    /// # Errors
    /// The process for the command cannot be started.
    pub(crate) fn run(&self, argv: &[OsString]) -> anyhow::Result<(Ended, Option<String>)> {
        let slate = Slate::blank();
        // A child inherits the blocked signals. So this starts the program again, and that process unblocks them before
        // it becomes the command.
        let child = Command::new("/proc/self/exe")
            .arg0("chadthrottle-audit")
            .arg(BECOME)
            .arg(format!("--why-not={}", slate.fd()))
            .arg("--")
            .args(argv)
            .spawn()
            .context("cannot start a process for the command")?;
        let pid = Pid::from_raw(i32::try_from(child.id()).context("a pid is a number")?);
        loop {
            for signal in self.pending()? {
                if signal.is_sent && PASSED_ON.contains(&signal.signal) {
                    match kill(pid, signal.signal) {
                        // `ESRCH` means that the command has just ended.
                        Ok(()) | Err(Errno::ESRCH) => {}
                        Err(errno) => {
                            warning(format_args!(
                                "cannot pass {} on to process {pid}: {errno}",
                                signal.signal
                            ));
                        }
                    }
                }
            }
            if let Some(ended) = reap(Some(pid))? {
                return Ok((ended, slate.read()));
            }
            self.wait(PollTimeout::NONE)?;
        }
    }

    /// Waits for `time`, or until a signal asks this process to end. Returns that signal.
    ///
    /// # Errors
    /// A call fails.
    pub(crate) fn pause(&self, time: Duration) -> anyhow::Result<Option<Signal>> {
        let deadline = Instant::now() + time;
        loop {
            let ends = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];
            let mut signals = self.pending()?.into_iter().map(|it| it.signal);
            if let Some(signal) = signals.find(|signal| ends.contains(signal)) {
                return Ok(Some(signal));
            }
            reap(None)?;
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.wait(
                PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX),
            )?;
        }
    }

    /// Tells whether every process of the command has ended. Its orphans are children of this process.
    ///
    /// # Errors
    /// The call fails.
    pub(crate) fn are_over() -> anyhow::Result<bool> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        match waitid(Id::All, flags) {
            Ok(_) | Err(Errno::EINTR) => Ok(false),
            Err(Errno::ECHILD) => Ok(true),
            Err(errno) => {
                Err(errno).context("cannot learn whether the command's children have ended")
            }
        }
    }

    fn wait(&self, timeout: PollTimeout) -> anyhow::Result<()> {
        match poll(&mut [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno).context("cannot wait for signals"),
        }
    }

    fn pending(&self) -> anyhow::Result<Vec<Received>> {
        let mut received = Vec::new();
        while let Some(info) = self.signals.read_signal().context("cannot read signals")? {
            let number = i32::try_from(info.ssi_signo).context("a signal is a number")?;
            let signal = Signal::try_from(number).context("a signal that was not asked for")?;
            received.push(Received { signal, is_sent: is_sent(info.ssi_code) });
        }
        Ok(received)
    }
}

/// A received signal.
struct Received {
    signal: Signal,
    /// Whether a process sent the signal. The kernel sends a terminal's signals to the whole process group, so the
    /// command has them already.
    is_sent: bool,
}

/// Tells whether `si_code` says that a process sent the signal. Codes of processes are never above 0.
fn is_sent(code: i32) -> bool {
    code <= 0
}

/// Reaps every child that has ended. Returns how the wanted one ended, if it has.
fn reap(wanted: Option<Pid>) -> anyhow::Result<Option<Ended>> {
    let mut found = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) if Some(pid) == wanted => {
                found = Some(Ended::Exited(status));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if Some(pid) == wanted => {
                found = Some(Ended::Killed(signal as i32));
            }
            Ok(WaitStatus::StillAlive) => return Ok(found),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(Errno::ECHILD) if found.is_some() || wanted.is_none() => return Ok(found),
            Err(errno) => return Err(errno).context("cannot learn how the command ended"),
        }
    }
}

/// Becomes the command. Returns only on failure, with the exit status that shells use and the reason.
pub(crate) fn become_command(command: &[OsString]) -> (u8, String) {
    const NOT_FOUND: u8 = 127;
    const NOT_EXECUTABLE: u8 = 126;
    let Some((program, args)) = command.split_first() else {
        return (NOT_FOUND, "there is no command to run".to_owned());
    };
    let named = escape(&program.to_string_lossy());
    if let Err(errno) = taken().thread_unblock() {
        let why = format!("{} (sigprocmask: {errno:?})", errno.desc());
        return (NOT_EXECUTABLE, format!("cannot run '{named}': {why}"));
    }
    let error = Command::new(program).args(args).exec();
    let is_missing = error.kind() == std::io::ErrorKind::NotFound;
    let status = if is_missing { NOT_FOUND } else { NOT_EXECUTABLE };
    (status, format!("cannot run '{named}': {}", why_not(Path::new(program), &error)))
}

/// Says why a program could not be executed, with the call and its errno at the end.
fn why_not(program: &Path, error: &std::io::Error) -> String {
    let Some(errno) = error.raw_os_error().map(Errno::from_raw) else { return error.to_string() };
    let why = match errno {
        Errno::ENOENT if is_there(program) => "its interpreter is not there",
        Errno::ENOENT => "there is no such command",
        Errno::EACCES => "it may not be executed (its mode, its folder's, or a mount with noexec)",
        errno => errno.desc(),
    };
    format!("{why} (execve: {errno:?})")
}

fn is_there(program: &Path) -> bool {
    if program.as_os_str().as_encoded_bytes().contains(&b'/') {
        return program.exists();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).exists())
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;
    use std::process::{Child, Stdio};

    use nix::sys::signal::raise;

    use super::*;

    #[test]
    fn a_signal_is_a_processes_by_whichever_call_it_was_sent() {
        // sigaction(2), from SI_USER down: kill, sigqueue, timer_settime, mq_notify, AIO, F_SETSIG, tgkill.
        let of_processes = [0, -1, -2, -3, -4, -5, -6];
        assert_eq!(of_processes.map(is_sent), [true; 7]);
        assert_eq!(nix::libc::SI_USER, of_processes[0]);
        // SI_KERNEL; CLD_EXITED to CLD_CONTINUED, and others of a signal's own.
        assert_eq!([0x80, 1, 2, 3, 4, 5, 6].map(is_sent), [false; 7]);
    }

    #[test]
    fn what_is_sent_to_a_thread_arrives_as_sent_and_once() {
        let children = Children::watch().unwrap();
        for signal in PASSED_ON {
            // By tgkill(2).
            raise(signal).unwrap();
            let received = children.pending().unwrap();
            let received: Vec<_> = received.iter().map(|it| (it.signal, it.is_sent)).collect();
            assert_eq!(received, [(signal, true)]);
        }
        assert!(children.pending().unwrap().is_empty());
    }

    /// Starts a child that ends that way once its input is closed.
    fn ends_with(how: &str) -> (Child, Pid) {
        let mut command = Command::new("sh");
        let child = command.arg("-c").arg(format!("read _; {how}")).stdin(Stdio::piped());
        let child = child.spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        (child, pid)
    }

    fn end((mut child, pid): (Child, Pid)) {
        drop(child.stdin.take());
        // The child has ended, and nobody has waited for it yet.
        waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
    }

    #[test]
    fn the_command_has_ended_when_it_has_and_not_when_another_child_has() {
        for (how, ended) in [("exit 5", Ended::Exited(5)), ("kill -9 $$", Ended::Killed(9))] {
            let command = ends_with(how);
            let pid = command.1;
            for other in ["exit 3", "kill -15 $$"] {
                end(ends_with(other));
                assert_eq!(reap(Some(pid)).unwrap(), None, "{other}");
            }
            let late = ends_with("exit 4");
            end(command);
            end(ends_with("exit 3"));
            assert_eq!(reap(Some(pid)).unwrap(), Some(ended));
            end(late);
            assert_eq!(reap(None).unwrap(), None);
        }
    }

    #[test]
    fn every_signal_is_passed_on_but_for_those_that_are_about_the_gate_itself() {
        let own = [
            // No process can receive these.
            Signal::SIGKILL,
            Signal::SIGSTOP,
            // Job control, and the end of a child.
            Signal::SIGTSTP,
            Signal::SIGTTIN,
            Signal::SIGTTOU,
            Signal::SIGCONT,
            Signal::SIGCHLD,
            // The gate's own faults.
            Signal::SIGSEGV,
            Signal::SIGBUS,
            Signal::SIGFPE,
            Signal::SIGILL,
            Signal::SIGTRAP,
            Signal::SIGSYS,
            Signal::SIGSTKFLT,
            Signal::SIGPIPE,
            Signal::SIGXCPU,
            Signal::SIGXFSZ,
            Signal::SIGURG,
            // A request for a dump of the gate.
            Signal::SIGABRT,
        ];
        for signal in Signal::iterator() {
            assert_ne!(PASSED_ON.contains(&signal), own.contains(&signal), "{signal}");
        }
    }

    #[test]
    fn what_cannot_be_run_has_the_status_that_shells_have_for_it() {
        let status = |program: &str| become_command(&[program.into()]).0;
        assert_eq!((status("/no/such/command"), status("/dev/null")), (127, 126));
        let why = |program: &str| become_command(&[program.into()]).1;
        let expected =
            "cannot run '/no/such/\\x1bcommand': there is no such command (execve: ENOENT)";
        assert_eq!(why("/no/such/\x1bcommand"), expected);
        assert!(why("/dev/null").ends_with("a mount with noexec) (execve: EACCES)"));
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("script");
        std::fs::write(&script, "#!/no/such/shell\n").unwrap();
        std::fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
        let told = why(script.to_str().unwrap());
        assert!(told.ends_with("its interpreter is not there (execve: ENOENT)"), "{told}");
    }
}
