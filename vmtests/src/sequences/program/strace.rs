//! Injects faults and death at the nth system call of an unmodified process.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::process::PATIENCE;
use super::skip::Skip;
use crate::sequences::lines::Lines;
use crate::sequences::step::{Fail, Fault, Mishap};

/// strace, attached to a process.
#[derive(Debug)]
pub(super) struct Strace {
    child: Child,
    // The pipe stays open, because strace continues to write to it.
    stderr: Lines<ChildStderr>,
    report: PathBuf,
}

impl Strace {
    /// Attaches to a process. The process continues only when strace sees its calls.
    pub(super) fn attach(pid: Pid, fault: Fault, skip: Skip) -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        // The test has its own `/run`.
        let report = Path::new("/run").join(format!("strace-{count}"));
        let (calls, when) = call(fault, skip);
        let what = match fault.mishap {
            Mishap::DieBefore | Mishap::DieAfter => "signal=KILL".to_owned(),
            Mishap::Fail(errno) => format!("error={:?}", believable(calls, errno)),
        };
        let mut child = Command::new("strace")
            .arg("-o")
            .arg(&report)
            .args(["-p", &pid.to_string(), "-e", "signal=none"])
            .args(["-e", &format!("trace={calls}")])
            .args(["-e", &format!("inject={calls}:{what}:when={when}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("strace: {error}; install the package strace"))?;
        let Some(stderr) = child.stderr.take() else { return Err("strace: no pipe".to_owned()) };
        let mut strace = Self { child, stderr: Lines::new(stderr, PATIENCE), report };
        let said = strace.stderr.next().map_err(|error| format!("strace: {error}"))?;
        // At that point strace has stopped the process, so it sees every further call.
        if said.contains("attached") { Ok(strace) } else { Err(format!("strace says: {said}")) }
    }

    /// Detaches from the process, which may still run. Tells whether a call was made to fail.
    pub(super) fn let_go(self) -> Result<bool, String> {
        // The kill fails only if strace has ended already.
        let _ = kill(pid_of(&self.child), Signal::SIGTERM);
        self.end()
    }

    /// Waits for the end of strace, which ends with the process. Tells whether a call was made to fail.
    pub(super) fn end(mut self) -> Result<bool, String> {
        self.child.wait().map_err(|error| format!("strace: {error}"))?;
        let report =
            fs::read_to_string(&self.report).map_err(|error| format!("strace: {error}"))?;
        Ok(report.contains("(INJECTED)"))
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        // strace may have ended, and its file may be gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.report);
    }
}

pub(super) fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX))
}

/// Returns the system calls for a fault, and the number of the call among them. strace counts each kind separately, so
/// the number of a fault selects a kind and a position in that kind.
///
/// Most are `bpf` calls, like most calls of the engine. To die after a call means to die before the next one of its
/// kind.
fn call(fault: Fault, skip: Skip) -> (&'static str, u16) {
    let nth = fault.nth.saturating_sub(1);
    let (round, at) = (nth / 8, nth % 8);
    let more = u16::from(fault.mishap == Mishap::DieAfter);
    let (calls, before) = match at {
        5 => ("?rename,?renameat,?renameat2", 0),
        6 => ("openat", skip.open),
        7 => (["?unlink,?unlinkat", "?mkdir,?mkdirat", "?rmdir"][usize::from(round % 3)], 0),
        _ => return ("bpf", skip.bpf + round * 5 + at + 1 + more),
    };
    (calls, before + round + 1 + more)
}

/// Replaces an errno that the kernel would not return. `ENOENT` tells a process that the file is gone already, but
/// these files exist.
fn believable(calls: &str, errno: Fail) -> Fail {
    let removes = calls.contains("unlink") || calls.contains("rmdir");
    if removes && errno == Fail::ENOENT { Fail::EBUSY } else { errno }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_there_is_never_said_to_be_gone() {
        let none = Skip::default();
        for nth in 1..=24 {
            let (calls, _) = call(Fault { nth, mishap: Mishap::DieBefore }, none);
            let expected = if nth == 8 || nth == 24 { Fail::EBUSY } else { Fail::ENOENT };
            assert_eq!(believable(calls, Fail::ENOENT), expected, "{nth}: {calls}");
            assert_eq!(believable(calls, Fail::EPERM), Fail::EPERM);
        }
    }

    #[test]
    fn each_number_stands_for_another_call() {
        let skip = Skip { bpf: 4, open: 8 };
        let fault = |nth| Fault { nth, mishap: Mishap::DieBefore };
        let calls: std::collections::BTreeSet<_> =
            (1..=24).map(|nth| call(fault(nth), skip)).collect();
        assert_eq!(calls.len(), 24);
        assert!(calls.contains(&("bpf", 5)) && calls.contains(&("bpf", 19)));
        assert!(calls.contains(&("openat", 9)));
        let after = Fault { nth: 1, mishap: Mishap::DieAfter };
        assert_eq!(call(after, skip), call(fault(2), skip));
    }
}
