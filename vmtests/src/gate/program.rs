//! The program `chadthrottle` as its users run it, on the running kernel: an owner is all of its `limit` processes.
//!
//! Faults come from outside, through strace: the nth of the system calls that matter (`bpf(2)`, and those on the
//! ledger's files) is not made and fails, or the process is killed as it makes it. One whose removal fails says so
//! and ends, which to the gate is as good as a death: what is left is recorded. A start settles what dead
//! owners left, as every `limit` does before anything else: here it is one that then finds no cgroup to limit.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::rc::Rc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use throttle_core::files::{FileSystem, Files};

use super::in_model::recorded;
use super::step::{Fault, How, Mishap, Step};
use super::system::{Claim, Handle, Outcome, Rates, Recorded, Request, System, Whom};

/// The system calls at which something can go wrong.
const CALLS: &str = "bpf,flock,rename,unlink,unlinkat,mkdir,rmdir";

/// Loading alone makes dozens of calls: the nth fault comes at the nth of every so many.
const STRIDE: u16 = 4;

/// The program's owners.
#[derive(Debug)]
pub struct TheProgram {
    program: PathBuf,
    boot_id: String,
    owners: [BTreeMap<Handle, Throttle>; 2],
    struck: bool,
    /// Where strace writes what it did.
    traces: TempDir,
}

#[derive(Debug)]
enum Throttle {
    Running(Limit),
    /// Its process has ended as it should.
    Pinned(String),
}

/// A `limit` that is armed.
#[derive(Debug)]
struct Limit {
    child: Child,
    _stdout: BufReader<ChildStdout>,
}

impl Drop for Limit {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Limit {
    /// Ends it as Ctrl-C does.
    fn end(&mut self) -> ExitStatus {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        // One that has ended by itself, because its cgroup is gone, is waited for all the same.
        let _ = kill(pid, Signal::SIGINT);
        self.child.wait().expect("the program can be waited for")
    }

    fn tracer(&self) -> Option<Pid> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"))?;
        let pid = tracer.trim().parse().ok().filter(|&pid| pid != 0)?;
        Some(Pid::from_raw(pid))
    }

    /// Waits until it is traced, or not any more.
    fn wait_for_tracer(&self, traced: bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.tracer().is_some() != traced && Instant::now() < deadline {
            sleep(Duration::from_millis(1));
        }
    }

    /// What was to go wrong while it was being made has not, and is not to any later.
    fn leave_alone(&self) {
        if let Some(tracer) = self.tracer() {
            // A milder signal it would hand on. It may end by itself.
            let _ = kill(tracer, Signal::SIGKILL);
            self.wait_for_tracer(false);
        }
    }

    /// It runs, or has ended because there was nothing left to limit.
    fn is_well(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(status) if status.is_none_or(|it| it.success()))
    }
}

fn said(status: ExitStatus, child: &mut Child) -> String {
    let mut text = String::new();
    if let Some(stderr) = &mut child.stderr {
        // What cannot be read is not needed to know that it failed.
        let _ = stderr.read_to_string(&mut text);
    }
    format!("{status}: {text}")
}

fn was_killed(status: ExitStatus) -> bool {
    status.signal() == Some(Signal::SIGKILL as i32)
}

impl TheProgram {
    /// Owners that run this program, the binary `chadthrottle`.
    ///
    /// # Panics
    /// When the kernel does not tell its boot, or no file can be written.
    pub fn new(program: &Path) -> Self {
        Self {
            program: program.to_owned(),
            boot_id: bpf::boot_id().expect("this boot has an id"),
            owners: [BTreeMap::new(), BTreeMap::new()],
            struck: false,
            traces: TempDir::new().expect("a temporary directory"),
        }
    }

    fn trace(&self) -> PathBuf {
        self.traces.path().join("trace")
    }

    /// The program with these words, below strace where something is to go wrong.
    fn command(&self, fault: Option<Fault>) -> Command {
        let Some(fault) = fault else { return Command::new(&self.program) };
        let mut command = self.strace(Fault { nth: fault.nth * STRIDE, ..fault });
        // With -D the program is our child, and strace only looks on.
        command.arg("-D").arg(&self.program);
        command
    }

    fn strace(&self, fault: Fault) -> Command {
        let (what, at) = match fault.mishap {
            Mishap::DieBefore => ("signal=KILL".to_owned(), fault.nth),
            // Right after a call is right before the next one.
            Mishap::DieAfter => ("signal=KILL".to_owned(), fault.nth + 1),
            Mishap::Fail(errno) => (format!("error={errno:?}"), fault.nth),
        };
        let mut command = Command::new("strace");
        command.args(["-qq", "-e", &format!("trace={CALLS}")]);
        command.args(["-e", &format!("inject={CALLS}:{what}:when={at}"), "-o"]).arg(self.trace());
        command
    }

    fn spawn(&self, command: &mut Command) -> Child {
        let _ = std::fs::remove_file(self.trace());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let name = command.get_program().to_owned();
        command.spawn().unwrap_or_else(|error| panic!("{}: {error}", name.display()))
    }

    /// Notes whether something went wrong: strace says so.
    fn note(&mut self, died: bool) {
        self.struck = died || self.traced("(INJECTED)");
    }

    /// Whether strace has written that.
    fn traced(&self, what: &str) -> bool {
        let trace = std::fs::read(self.trace()).unwrap_or_default();
        String::from_utf8_lossy(&trace).contains(what)
    }

    /// Runs a command to its end.
    fn run(&mut self, words: &[&str], fault: Option<Fault>) -> (ExitStatus, String) {
        let mut child = self.spawn(self.command(fault).args(words));
        // It says little: no pipe fills up.
        let status = child.wait().expect("the program can be waited for");
        self.note(was_killed(status));
        (status, said(status, &mut child))
    }

    fn remove_one(&mut self, owner: usize, handle: Handle, fault: Option<Fault>) -> Outcome<()> {
        match self.owners[owner].remove(&handle) {
            None => Outcome::Failed(format!("there is no throttle {handle}")),
            Some(Throttle::Running(limit)) => self.end(limit, fault),
            Some(Throttle::Pinned(name)) => {
                if !self.recorded().iter().any(|record| record.name == name) {
                    // Somebody has removed it by its name.
                    return Outcome::Done(());
                }
                // `rm` is a process of its own: that the owner lives does not help it.
                match self.remove_recorded(&name, fault) {
                    Outcome::Failed(_) if self.struck => Outcome::Died,
                    outcome => outcome,
                }
            }
        }
    }

    fn end(&mut self, mut limit: Limit, fault: Option<Fault>) -> Outcome<()> {
        let _ = std::fs::remove_file(self.trace());
        let tracer = fault.map(|fault| {
            let pid = limit.child.id().to_string();
            let mut strace = self.strace(fault);
            let spawned = strace.args(["-p", &pid]).stdin(Stdio::null()).spawn();
            let tracer = spawned.unwrap_or_else(|error| panic!("strace: {error}"));
            limit.wait_for_tracer(true);
            tracer
        });
        let status = limit.end();
        if let Some(mut tracer) = tracer {
            // It ends with what it traces.
            tracer.wait().expect("strace can be waited for");
        }
        self.note(was_killed(status));
        match status {
            _ if status.success() => Outcome::Done(()),
            _ if self.struck => Outcome::Died,
            _ => Outcome::Failed(said(status, &mut limit.child)),
        }
    }
}

impl System for TheProgram {
    fn offers(&self, step: &Step) -> bool {
        // The command line cannot change a throttle, and a pinned one whose record was overwritten is the
        // auditor's business: its user would not know its name.
        !matches!(step, Step::Change { .. } | Step::Damage(super::step::Damage::Torn(_)))
    }

    fn settles_with_each_add(&self) -> bool {
        true
    }

    fn start(&mut self, owner: usize, fault: Option<Fault>) -> Outcome<()> {
        self.owners[owner].clear();
        let words = ["limit", "--cgroup", "/chadtest-there-is-no-such", "--upload", "1M"];
        let (status, why) = self.run(&words, fault);
        match status.code() {
            _ if was_killed(status) => Outcome::Died,
            // That there is no such cgroup comes out only after everything was settled.
            Some(2) if why.contains("there is no such cgroup") => Outcome::Done(()),
            _ => Outcome::Failed(why),
        }
    }

    fn add(&mut self, owner: usize, request: &Request, fault: Option<Fault>) -> Outcome<()> {
        let mut command = self.command(fault);
        command.arg("limit");
        match &request.whom {
            Whom::Cgroup(path) => command.arg("--cgroup").arg(path),
            Whom::Process(pid) => command.arg("--pid").arg(pid.to_string()),
        };
        for (&attach_type, rate) in &request.rates {
            let upload = attach_type == bpf::AttachType::INET_EGRESS;
            command.arg(if upload { "--upload" } else { "--download" }).arg(rate.to_string());
        }
        command.arg("--attach").arg(match request.how {
            How::Link => "link",
            How::Pinned => "pinned",
            How::Legacy => "legacy",
        });
        let mut child = self.spawn(&mut command);
        let Some(stdout) = child.stdout.take() else { unreachable!("it was asked for") };
        let mut stdout = BufReader::new(stdout);
        let mut armed = String::new();
        let is_armed = stdout.read_line(&mut armed).is_ok() && armed.starts_with("armed: ");
        if is_armed && request.how != How::Pinned {
            let limit = Limit { child, _stdout: stdout };
            limit.leave_alone();
            if self.traced("SIGKILL") {
                // It was killed after it had said that it is armed; the last of it may still be on its way out.
                drop(limit);
                self.struck = true;
                self.kill(owner);
                return Outcome::Died;
            }
            self.note(false);
            self.owners[owner].insert(request.handle, Throttle::Running(limit));
            return Outcome::Done(());
        }
        let status = child.wait().expect("the program can be waited for");
        self.note(was_killed(status));
        if was_killed(status) {
            self.kill(owner);
            return Outcome::Died;
        }
        let name = armed.split("rm ").nth(1).and_then(|rest| rest.split('\'').next());
        match name.filter(|_| status.success()) {
            Some(name) => {
                let pinned = Throttle::Pinned(name.to_owned());
                self.owners[owner].insert(request.handle, pinned);
                Outcome::Done(())
            }
            None => Outcome::Failed(said(status, &mut child)),
        }
    }

    fn change(
        &mut self,
        _owner: usize,
        _handle: Handle,
        _rates: &Rates,
        _fault: Option<Fault>,
    ) -> Outcome<()> {
        Outcome::Failed("the command line cannot change a throttle".to_owned())
    }

    fn remove(&mut self, owner: usize, handle: Handle, fault: Option<Fault>) -> Outcome<()> {
        self.struck = false;
        let outcome = self.remove_one(owner, handle, fault);
        if outcome == Outcome::Died {
            self.kill(owner);
        }
        outcome
    }

    fn claims(&mut self, owner: usize) -> Vec<Claim> {
        let well = |(handle, throttle): (&Handle, &mut Throttle)| {
            let is_well = match throttle {
                Throttle::Running(limit) => limit.is_well(),
                Throttle::Pinned(_) => true,
            };
            is_well.then(|| Claim { handle: *handle, counters: BTreeMap::new() })
        };
        self.owners[owner].iter_mut().filter_map(well).collect()
    }

    /// What goes wrong, goes wrong with its first throttle.
    fn shut_down(&mut self, owner: usize, mut fault: Option<Fault>) -> Outcome<usize> {
        self.struck = false;
        for handle in self.owners[owner].keys().copied().collect::<Vec<_>>() {
            match self.remove(owner, handle, fault.take()) {
                Outcome::Done(()) => {}
                Outcome::Failed(why) => return Outcome::Failed(why),
                Outcome::Died => return Outcome::Died,
            }
        }
        Outcome::Done(0)
    }

    fn kill(&mut self, owner: usize) {
        self.owners[owner].clear();
    }

    fn remove_recorded(&mut self, name: &str, fault: Option<Fault>) -> Outcome<()> {
        let (status, why) = self.run(&["rm", name], fault);
        match status.code() {
            _ if was_killed(status) => Outcome::Died,
            Some(0) => Outcome::Done(()),
            _ => Outcome::Failed(why),
        }
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
