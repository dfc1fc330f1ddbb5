//! Tells whether a throttle's program belongs to this test run. The owner process decides. If the program names none,
//! its cgroup, pins and open files decide. Throttles of other people with the same names come and go on this host.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Child;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bpf::Owner;
use kernel::cgroup::{Cgroup, cgroup2_mount};
use kernel::error::Kind;
use kernel::holders::{holders, still_holding};
use kernel::list::{Query, Scope};
use kernel::pins::{Held, Sought, held_by};
use kernel::{AttachType, MapId, Program, ProgramId, ProgramInfo, Result, objects};
use nix::errno::Errno;
use testkit::cgroup::is_scratch;

/// What this process knows about its run.
#[derive(Debug)]
struct Run {
    started: Vec<Started>,
    /// Programs that existed before the run.
    before: Option<BTreeSet<ProgramId>>,
    /// Programs without an owner that were once found in somebody else's cgroup. They stay somebody else's for good.
    others: BTreeSet<ProgramId>,
}

/// A process that may own throttles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Started {
    pid: u32,
    /// The start time as owners record it, or `None` if it is unknown.
    start_time: Option<u64>,
    pid_namespace: u32,
}

impl Started {
    fn new(pid: u32) -> Result<Self> {
        let birth = kernel::process::birth(pid)?;
        let start_time = birth.and_then(|birth| birth.true_start_time());
        Ok(Self { pid, start_time, pid_namespace: kernel::process::pid_namespace()? })
    }

    /// Tells whether this process is the owner. The pid alone is ambiguous across time and namespaces.
    fn is(&self, owner: &Owner) -> bool {
        let is_then = match (self.start_time, owner.start_time) {
            (None, _) | (_, 0) => true,
            (Some(known), named) => known == named,
        };
        is_then && (self.pid, self.pid_namespace) == (owner.pid, owner.pid_namespace)
    }
}

static RUN: Mutex<Run> =
    Mutex::new(Run { started: Vec::new(), before: None, others: BTreeSet::new() });

fn run() -> MutexGuard<'static, Run> {
    RUN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes that this process started a child that may own throttles. Its throttles belong to the run from now on, even
/// after the child has ended.
///
/// # Errors
/// Fails if `/proc` cannot be read.
pub fn note(child: &Child) -> Result<()> {
    let started = Started::new(child.id())?;
    run().started.push(started);
    Ok(())
}

/// Notes which programs exist. Only programs without an owner that come later can belong to this run. Only the first
/// call counts.
///
/// # Errors
/// Returns errors of the kernel.
pub fn begin() -> Result<()> {
    let there = objects::program_ids()?;
    run().before.get_or_insert_with(|| there.into_iter().collect());
    Ok(())
}

/// The programs on this host with the names of throttles, by owner.
#[derive(Debug, Default)]
pub struct Throttles {
    /// Programs of this run.
    pub ours: Vec<ProgramId>,
    /// Programs that certainly belong to somebody else.
    pub others: BTreeSet<ProgramId>,
    /// Maps of other people's programs.
    pub others_maps: BTreeSet<MapId>,
}

impl Throttles {
    /// Asks the kernel for all programs.
    ///
    /// # Errors
    /// Returns errors of the kernel.
    pub fn find() -> Result<Self> {
        begin()?;
        let mut found = Self::default();
        let mut nameless = Vec::new();
        for id in objects::program_ids()? {
            match Program::open(id) {
                Ok(program) => found.judge(&program, &mut nameless),
                Err(error) if error.kind() == Kind::Vanished => {}
                Err(error) => return Err(error),
            }
        }
        if !nameless.is_empty() {
            found.judge_nameless(&nameless)?;
        }
        Ok(found)
    }

    fn add(&mut self, info: &ProgramInfo, is_ours: bool) {
        if is_ours {
            self.ours.push(info.id);
        } else {
            self.others.insert(info.id);
            self.others_maps.extend(&info.map_ids);
        }
    }

    fn judge(&mut self, program: &Program, nameless: &mut Vec<ProgramInfo>) {
        let info = program.info();
        if !info.name.starts_with("chadthrottle") {
            return;
        }
        let run = run();
        // An unreadable owner counts as no owner.
        if let Ok(Some(owner)) = bpf::owner_of(program) {
            let is_ours = run.started.iter().any(|started| started.is(&owner));
            self.add(info, is_ours);
        } else if run.others.contains(&info.id)
            || run.before.as_ref().is_some_and(|before| before.contains(&info.id))
        {
            self.add(info, false);
        } else {
            nameless.push(info.clone());
        }
    }

    /// Judges programs without an owner. All of them are closed here by now, because another test run that looks at the
    /// same time would take this process for a holder.
    fn judge_nameless(&mut self, programs: &[ProgramInfo]) -> Result<()> {
        let ids: Vec<_> = programs.iter().map(|info| info.id).collect();
        let seen = Seen::look(&ids)?;
        for info in programs {
            let traces = seen.traces(info.id);
            if traces.elsewhere && !traces.in_our_cgroups {
                run().others.insert(info.id);
            }
            self.add(info, traces.is_ours(!info.map_ids.is_empty()));
        }
        Ok(())
    }
}

/// The evidence about a program that names no owner.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // Independent facts.
struct Traces {
    /// The program is attached to a cgroup of this run.
    in_our_cgroups: bool,
    /// The program is attached to another cgroup.
    elsewhere: bool,
    /// A process of this run holds the program or its link, or this run has pinned it.
    kept_by_us: bool,
    /// In two looks, a living process outside this run held the program or its link.
    held_by_others: bool,
}

impl Traces {
    /// Tells whether the program belongs to this run. A program with maps is a throttle without an owner, which is ours
    /// unless something speaks against it. Tests of any run plant programs without maps, so those need evidence.
    fn is_ours(self, has_maps: bool) -> bool {
        if self.in_our_cgroups || self.kept_by_us {
            return true;
        }
        has_maps && !self.elsewhere && !self.held_by_others
    }
}

/// Where programs were found.
#[derive(Debug, Default)]
struct Seen {
    in_our_cgroups: BTreeSet<ProgramId>,
    elsewhere: BTreeSet<ProgramId>,
    kept_by_us: BTreeSet<ProgramId>,
    held_by_others: BTreeSet<ProgramId>,
}

impl Seen {
    fn look(ids: &[ProgramId]) -> Result<Self> {
        let mut seen = Self::default();
        seen.look_through_cgroups(&cgroup2_mount()?, false, &mut Query::new(false))?;
        let links = objects::cgroup_links()?.links;
        let links: Vec<_> = links.iter().filter(|link| ids.contains(&link.program_id)).collect();
        let program_of = |held| match held {
            Held::Program(id) => Some(id).filter(|id| ids.contains(id)),
            Held::Link(id) => links.iter().find(|link| link.id == id).map(|link| link.program_id),
            Held::Map(_) => None,
        };
        if is_alone() {
            pinned_below(Path::new(kernel::pins::DEFAULT_BPFFS), &mut |held| {
                seen.kept_by_us.extend(program_of(held));
            })?;
        }
        let sought = Sought::ProgramsAndLinks;
        let mut open = holders(sought)?.holders;
        open.retain(|holder| holder.held.iter().any(|held| program_of(*held).is_some()));
        for holder in still_holding(open, sought)? {
            let by_whom = if is_process_ours(holder.pid)? {
                &mut seen.kept_by_us
            } else {
                &mut seen.held_by_others
            };
            by_whom.extend(holder.held.iter().filter_map(|held| program_of(*held)));
        }
        Ok(seen)
    }

    /// Notes the programs on a cgroup and those below it. `is_ours` means that the cgroup is below a cgroup of this
    /// run.
    fn look_through_cgroups(
        &mut self,
        path: &Path,
        is_ours: bool,
        query: &mut Query,
    ) -> Result<()> {
        let is_ours = is_ours || is_scratch(path);
        let cgroup = match Cgroup::open(path) {
            Err(error) if error.kind() == Kind::Vanished => return Ok(()),
            // Other people's cgroups may be too deep for a path. This run's cgroups are not.
            Err(error) if error.errno() == Errno::ENAMETOOLONG && !is_ours => return Ok(()),
            opened => opened?,
        };
        let found = if is_ours { &mut self.in_our_cgroups } else { &mut self.elsewhere };
        for attach_type in [AttachType::INET_INGRESS, AttachType::INET_EGRESS, AttachType::SOCK_OPS]
        {
            // Somebody removed the cgroup meanwhile.
            let Ok(list) = query.ask(cgroup.as_fd(), attach_type, Scope::Local) else { break };
            found.extend(list.programs.iter().map(|program| program.id));
        }
        // Somebody removed the cgroup meanwhile.
        let Ok(below) = fs::read_dir(path) else { return Ok(()) };
        for entry in below.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.look_through_cgroups(&entry.path(), is_ours, query)?;
            }
        }
        Ok(())
    }

    fn traces(&self, id: ProgramId) -> Traces {
        Traces {
            in_our_cgroups: self.in_our_cgroups.contains(&id),
            elsewhere: self.elsewhere.contains(&id),
            kept_by_us: self.kept_by_us.contains(&id),
            held_by_others: self.held_by_others.contains(&id),
        }
    }
}

/// Calls `tell` for everything that the pins below a folder hold. It skips pins that disappear meanwhile.
fn pinned_below(folder: &Path, tell: &mut impl FnMut(Held)) -> Result<()> {
    let Ok(listing) = fs::read_dir(folder) else { return Ok(()) };
    for entry in listing.flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => pinned_below(&path, tell)?,
            Ok(_) => held_by(&path)?.into_iter().for_each(&mut *tell),
            Err(_) => {}
        }
    }
    Ok(())
}

/// Returns the mount namespace of a process, or `None` if the process has ended.
fn mount_namespace(process: &str) -> Option<u64> {
    fs::metadata(format!("/proc/{process}/ns/mnt")).ok().map(|namespace| namespace.ino())
}

/// Tells whether this process and its children have their own mount namespace (see [`testkit::isolation::isolate`]).
fn is_alone() -> bool {
    let parent = mount_namespace(&nix::unistd::getppid().to_string());
    mount_namespace("self").is_some_and(|own| Some(own) != parent)
}

/// Tells whether this process started the other one, directly or indirectly. A process in this run's own mount
/// namespace counts as well.
fn is_process_ours(pid: u32) -> Result<bool> {
    let own = std::process::id();
    if is_alone() && mount_namespace(&pid.to_string()) == mount_namespace("self") {
        return Ok(true);
    }
    let mut at = pid;
    while at != own {
        match kernel::process::birth(at)? {
            Some(birth) if birth.parent != 0 => at = birth.parent,
            _ => return Ok(false),
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::process::{Command, Stdio};

    use kernel::list::{AttachFlags, attach};
    use testkit::cgroup::ScratchCgroup;
    use testkit::isolation::isolate;
    use testkit::leak;
    use testkit::process::Mortal;

    use super::*;

    #[test]
    fn a_process_is_known_by_all_that_an_owner_says_of_it() {
        let owner = Owner::this_process("test").unwrap();
        let own = Started::new(std::process::id()).unwrap();
        assert!(own.is(&owner));
        assert!(!own.is(&Owner { pid: owner.pid + 1, ..owner.clone() }));
        assert!(!own.is(&Owner { start_time: owner.start_time + 1, ..owner.clone() }));
        assert!(!own.is(&Owner { pid_namespace: owner.pid_namespace + 1, ..owner.clone() }));
        // The owner could not tell when it started.
        assert!(own.is(&Owner { start_time: 0, ..owner }));
    }

    #[test]
    fn without_an_owner_a_throttle_is_ours_unless_something_shows_another_maker() {
        let no_trace = Traces::default();
        assert!(no_trace.is_ours(true) && !no_trace.is_ours(false));
        for others in
            [Traces { elsewhere: true, ..no_trace }, Traces { held_by_others: true, ..no_trace }]
        {
            assert!(!others.is_ours(true) && !others.is_ours(false), "{others:?}");
            // A holder of ours may be the maker. Nobody else's throttle gets into our cgroups.
            for both in
                [Traces { in_our_cgroups: true, ..others }, Traces { kept_by_us: true, ..others }]
            {
                assert!(both.is_ours(true) && both.is_ours(false), "{both:?}");
            }
        }
    }

    fn nameless() -> (OwnedFd, ProgramId) {
        let program = leak::load_nameless().unwrap();
        assert_eq!(bpf::owner_of(&program), Ok(None));
        (program.as_fd().try_clone_to_owned().unwrap(), program.info().id)
    }

    /// Returns whether the program counts as ours, and checks that it counts as exactly one.
    fn is_ours(id: ProgramId) -> bool {
        let found = Throttles::find().unwrap();
        let (ours, others) = (found.ours.contains(&id), found.others.contains(&id));
        assert!(ours != others, "{id}: ours {ours}, others {others}");
        ours
    }

    /// Starts a process that holds a file as its standard input, and nothing else of ours.
    fn holder(command: &mut Command, program: OwnedFd) -> Mortal {
        Mortal::from(command.stdin(Stdio::from(program)).spawn().unwrap())
    }

    #[test]
    fn root_a_leaked_throttle_without_an_owner_is_ours() {
        isolate();
        begin().unwrap();
        // Only a child of this process holds the program.
        let (program, id) = nameless();
        let _child = holder(Command::new("sleep").arg("1000"), program);
        assert!(is_ours(id));
        let stand_in = Program::load_pass("chadthrottle_x", AttachType::INET_INGRESS).unwrap();
        let id = stand_in.info().id;
        assert!(!is_ours(id), "tests plant such, and nobody but this process has it open");
        let copy = stand_in.as_fd().try_clone_to_owned().unwrap();
        let _other_child = holder(Command::new("sleep").arg("1000"), copy);
        assert!(is_ours(id));
        // A planted program is ours if its cgroup is ours.
        let cgroup = ScratchCgroup::new("owners");
        let planted = leak::plant(&cgroup.child("a"), AttachType::INET_INGRESS).unwrap();
        assert!(is_ours(planted));
    }

    #[test]
    fn root_what_a_stranger_holds_or_has_attached_is_not_ours() {
        begin().unwrap();
        // The process belongs to another test run, because no process of this run started it.
        let (program, id) = nameless();
        let mut shell = Command::new("sh");
        shell
            .args(["-c", "exec 3<&0; setsid sleep 1000 <&3 >&- 2>&- & echo $!"])
            .stdin(Stdio::from(program));
        let output = shell.output().unwrap();
        let pid: i32 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
        let _stranger = Killed(pid);
        assert!(!is_ours(id));
        // This process did not make the cgroup.
        let name = format!("chadtest-{}-elsewhere", std::process::id());
        let elsewhere = cgroup2_mount().unwrap().join(name);
        fs::create_dir(&elsewhere).unwrap();
        let (program, id) = nameless();
        let (cgroup, flags) = (Cgroup::open(&elsewhere).unwrap(), AttachFlags::MULTI);
        let attached = attach(program.as_fd(), &cgroup, AttachType::INET_INGRESS, flags, None);
        drop(program);
        let judged = attached.map(|()| is_ours(id));
        fs::remove_dir(&elsewhere).unwrap();
        assert_eq!(judged, Ok(false));
    }

    struct Killed(i32);

    impl Drop for Killed {
        fn drop(&mut self) {
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(self.0),
                nix::sys::signal::Signal::SIGKILL,
            );
        }
    }
}
