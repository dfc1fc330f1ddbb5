//! A process group that ends as a whole.
//!
//! virtme-ng starts a shell, which starts QEMU. Beside QEMU runs virtiofsd, which loses its parent. All stay in one process
//! group. So the group is what gets killed and checked.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

/// How long ended processes may take to go.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running process group; dropping this ends it.
#[derive(Debug)]
pub struct Group {
    leader: Child,
    /// Ends the group, which is its own, if this process dies without a word: SIGKILL runs no destructor.
    watcher: Child,
    over: bool,
}

impl Group {
    /// Starts the command in a group of its own.
    ///
    /// # Errors
    /// When it, or the shell that watches over it, cannot be started.
    pub fn start(command: &mut Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        // First, so that there is no moment in which nobody watches.
        let mut watcher = Command::new("sh")
            .args(["-c", "read -r word; kill -s KILL -- -$$"])
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start sh")?;
        match command.process_group(pid(&watcher).as_raw()).spawn() {
            Ok(leader) => Ok(Self { leader, watcher, over: false }),
            Err(error) => {
                let _ = watcher.kill();
                let _ = watcher.wait();
                Err(error).with_context(|| format!("cannot start {name}"))
            }
        }
    }

    /// The leader's standard output, once, if it was piped.
    pub fn stdout(&mut self) -> Option<ChildStdout> {
        self.leader.stdout.take()
    }

    /// The leader's standard error, once, if it was piped.
    pub fn stderr(&mut self) -> Option<ChildStderr> {
        self.leader.stderr.take()
    }

    /// Whether the leader has ended. Its number stays taken until [`Group::end`], so that the group's
    /// cannot become another's.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn has_ended(&self) -> Result<bool> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        let status = waitid(Id::Pid(pid(&self.leader)), flags).context("cannot wait")?;
        Ok(status != WaitStatus::StillAlive)
    }

    /// Ends whatever of the group is left, and returns how the leader ended.
    ///
    /// # Errors
    /// When something of it stays.
    pub fn end(mut self) -> Result<ExitStatus> {
        self.sweep()?;
        self.leader.wait().context("cannot wait")
    }

    fn sweep(&mut self) -> Result<()> {
        self.over = true;
        // Its number stays taken until the watcher is waited for.
        let group = pid(&self.watcher);
        let deadline = Instant::now() + PATIENCE;
        let swept = loop {
            match killpg(group, Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH | Errno::EPERM) => {}
                Err(errno) => break Err(errno).context("cannot end the virtual machine"),
            }
            let left = living(group)?;
            if left.is_empty() {
                break Ok(());
            }
            if Instant::now() > deadline {
                break Err(anyhow::anyhow!("still there after SIGKILL: {}", left.join(", ")));
            }
            sleep(Duration::from_millis(20));
        };
        let _ = self.watcher.wait();
        swept
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.over {
            if let Err(error) = self.sweep() {
                eprintln!("{error:#}");
            }
            let _ = self.leader.wait();
        }
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}

/// The processes of a group that have not ended, as "PID NAME".
fn living(group: Pid) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("/proc")? {
        let Ok(stat) = fs::read_to_string(entry.context("/proc")?.path().join("stat")) else {
            continue;
        };
        if let Some((process, state, its_group)) = stat_fields(&stat)
            && its_group == group.as_raw()
            && !matches!(state, "Z" | "X")
        {
            found.push(process);
        }
    }
    Ok(found)
}

/// Of a `/proc/PID/stat` (proc(5)): the process as "PID NAME", its state, its group.
fn stat_fields(stat: &str) -> Option<(String, &str, i32)> {
    let (pid, rest) = stat.split_once(" (")?;
    // The name may hold spaces and brackets.
    let (name, rest) = rest.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?;
    let group = fields.nth(1)?.parse().ok()?;
    Some((format!("{pid} {name}"), state, group))
}

/// Fails while anything of a group that has ended is there; for tests.
///
/// # Errors
/// With the names of the processes.
pub fn assert_gone(group: i32) -> Result<()> {
    let left = living(Pid::from_raw(group))?;
    if !left.is_empty() {
        bail!("left behind: {}", left.join(", "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A leader with a child whose parent is gone, as virtiofsd is.
    fn family() -> Group {
        let script = "(sleep 1000 & sleep 1000 &) ; sleep 1000";
        let group =
            Group::start(Command::new("sh").args(["-c", script]).stdin(Stdio::null())).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while living(pid(&group.watcher)).unwrap().len() < 5 {
            assert!(Instant::now() < deadline);
            sleep(Duration::from_millis(10));
        }
        group
    }

    #[test]
    fn ending_or_dropping_a_group_ends_all_of_it() {
        let group = family();
        let number = pid(&group.watcher).as_raw();
        assert!(!group.has_ended().unwrap());
        assert!(assert_gone(number).is_err());
        assert!(!group.end().unwrap().success());
        assert_gone(number).unwrap();

        let group = family();
        let number = pid(&group.watcher).as_raw();
        drop(group);
        assert_gone(number).unwrap();
    }

    #[test]
    fn what_the_leader_leaves_behind_is_ended_too() {
        let script = "(sleep 1000 &) ; exit 7";
        let group =
            Group::start(Command::new("sh").args(["-c", script]).stdin(Stdio::null())).unwrap();
        let number = pid(&group.watcher).as_raw();
        while !group.has_ended().unwrap() {
            sleep(Duration::from_millis(10));
        }
        assert_eq!(group.end().unwrap().code(), Some(7));
        assert_gone(number).unwrap();
    }

    #[test]
    fn a_group_ends_when_this_process_dies_without_a_word() {
        let mut group = family();
        let number = pid(&group.watcher).as_raw();
        // What the kernel does for a process that is killed: the pipe is closed.
        drop(group.watcher.stdin.take());
        let deadline = Instant::now() + PATIENCE;
        while assert_gone(number).is_err() {
            assert!(Instant::now() < deadline);
            sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_stat_line_is_read_whatever_the_name_is() {
        let stat = "12 (a) b (c) S 1 34 34 0 -1";
        assert_eq!(stat_fields(stat), Some(("12 a) b (c".into(), "S", 34)));
        assert_eq!(stat_fields("12 (a"), None);
    }
}
