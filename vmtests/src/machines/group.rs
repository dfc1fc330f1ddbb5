//! Runs a process group and ends it as a whole.
//!
//! virtme-ng starts a shell, which starts QEMU. virtiofsd runs beside QEMU and loses its parent. All stay in one
//! process group, so the group is what gets killed and checked.

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

/// The longest wait for killed processes to disappear.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running process group. Dropping it ends the group.
#[derive(Debug)]
pub struct Group {
    leader: Child,
    /// Leads the group and kills it if this process dies. SIGKILL runs no destructor.
    watcher: Child,
    over: bool,
}

impl Group {
    /// Starts the command in a group of its own.
    ///
    /// # Errors
    /// Fails if the command or the shell that watches it cannot be started.
    pub fn start(command: &mut Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        // The watcher starts first, so the group is never without one.
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

    /// Returns the leader's standard output once, if it was piped.
    pub fn stdout(&mut self) -> Option<ChildStdout> {
        self.leader.stdout.take()
    }

    /// Returns the leader's standard error once, if it was piped.
    pub fn stderr(&mut self) -> Option<ChildStderr> {
        self.leader.stderr.take()
    }

    /// Tells whether the leader has ended. The kernel keeps its pid until [`Group::end`], so no other group can take
    /// the number.
    ///
    /// # Errors
    /// Fails if the kernel cannot tell.
    pub fn has_ended(&self) -> Result<bool> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        let status = waitid(Id::Pid(pid(&self.leader)), flags).context("cannot wait")?;
        Ok(status != WaitStatus::StillAlive)
    }

    /// Ends what is left of the group and returns the leader's exit status.
    ///
    /// # Errors
    /// Fails if a process of the group stays.
    pub fn end(mut self) -> Result<ExitStatus> {
        self.sweep()?;
        self.leader.wait().context("cannot wait")
    }

    fn sweep(&mut self) -> Result<()> {
        self.over = true;
        // The kernel keeps the watcher's pid until the call of `wait`.
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

/// Returns the processes of a group that have not ended, as "PID NAME".
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

/// Parses a `/proc/PID/stat` file (proc(5)). Returns the process as "PID NAME", its state, and its group.
fn stat_fields(stat: &str) -> Option<(String, &str, i32)> {
    let (pid, rest) = stat.split_once(" (")?;
    // The name may contain spaces and brackets.
    let (name, rest) = rest.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?;
    let group = fields.nth(1)?.parse().ok()?;
    Some((format!("{pid} {name}"), state, group))
}

/// Checks that nothing is left of an ended group. For tests.
///
/// # Errors
/// Fails with the names of the processes that are left.
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

    /// Starts a leader and a child that has lost its parent, like virtiofsd.
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
        // The kernel closes the pipe in this way when the process is killed.
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
