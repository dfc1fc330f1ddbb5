//! A bystander: a process that attaches and detaches its own programs in cgroups that others use too. Now and then it
//! leaks a program for the cleaner to find.
//!
//! After each operation it asks the kernel whether all its programs are still attached. So it notices at once if
//! somebody else detaches one.

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, bail};
use kernel::cgroup::Cgroup;
use kernel::link::Link;
use kernel::list::{AttachFlags, Scope, attach, detach, query};
use kernel::{AttachType, Program, ProgramId};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::leak::plant_named;

const TYPES: [AttachType; 2] = [AttachType::INET_INGRESS, AttachType::INET_EGRESS];

/// The most foreign attachments that a bystander has.
const OWN: usize = 12;

/// Bystanders leak only into lists with at most this many programs. So the lists of three bystanders stay below 64.
const ENOUGH: usize = 16;

/// A pause that lets other processes run.
const PAUSE: Duration = Duration::from_millis(1);

/// The task of a bystander.
#[derive(Debug, Clone)]
pub struct Task {
    /// The seed of its random choices.
    pub seed: u64,
    /// The name of its programs.
    pub foreign: String,
    /// The name of leaked programs. Some programs that it holds have this name too.
    pub ours: String,
    /// Cgroups with MULTI lists, which others share.
    pub shared: Vec<PathBuf>,
    /// A cgroup with a list of one program, which no other bystander uses.
    pub single: Option<PathBuf>,
}

/// What a bystander has done, and which of its programs are attached.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The number of attachments and detachments.
    pub operations: u64,
    /// The number of leaks in shared lists.
    pub leaked: u64,
    /// The number of leaks in the list of one.
    pub leaked_alone: u64,
    /// How often it asked the kernel whether its programs are attached.
    pub checks: u64,
    /// The places of its attached programs.
    pub attached: Vec<(PathBuf, AttachType, ProgramId)>,
}

/// Prints `ready`, then runs operations until standard input has a line. Then it prints its account as one line of JSON
/// and waits for the end of standard input.
///
/// # Errors
/// Fails if one of its programs is gone or a call fails unexpectedly.
pub fn run(task: &Task) -> anyhow::Result<()> {
    let (asked, asks) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            if line.is_err() || asked.send(()).is_err() {
                return;
            }
        }
    });
    println!("ready");
    let mut bystander = Bystander::new(task);
    while matches!(asks.try_recv(), Err(std::sync::mpsc::TryRecvError::Empty)) {
        bystander.act()?;
        bystander.check()?;
        sleep(PAUSE);
    }
    println!("{}", serde_json::to_string(&bystander.account())?);
    std::io::stdout().flush()?;
    // Its programs stay attached until every bystander has been asked.
    let _ = asks.recv();
    Ok(())
}

/// Attaches a program and gets killed while the program is open.
///
/// # Errors
/// Fails if the program could not be attached.
pub fn die(name: &str, cgroup: &Path, attach_type: AttachType) -> anyhow::Result<()> {
    let _held = add(&(cgroup.to_owned(), attach_type), name, false, true)?;
    kill(Pid::this(), Signal::SIGKILL)?;
    bail!("it lives")
}

/// A cgroup and an attach type.
type Place = (PathBuf, AttachType);

enum Own {
    /// A legacy attachment, with its holder if it has one.
    Legacy(ProgramId, Option<Box<Program>>),
    /// An attachment through a link.
    Link(ProgramId, Link),
}

impl Own {
    fn id(&self) -> ProgramId {
        match self {
            Self::Legacy(id, _) | Self::Link(id, _) => *id,
        }
    }
}

struct Bystander<'a> {
    task: &'a Task,
    random: u64,
    foreign: Vec<(Place, Own)>,
    /// At most one program per place. A second one of the same process would count as a duplicate, so as a leak.
    ours: BTreeMap<Place, Own>,
    /// The program in the list of one.
    single: Option<ProgramId>,
    account: Account,
}

impl<'a> Bystander<'a> {
    fn new(task: &'a Task) -> Self {
        // Xorshift would stay at zero.
        let random = task.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let account = Account::default();
        Self { task, random, foreign: Vec::new(), ours: BTreeMap::new(), single: None, account }
    }

    fn below(&mut self, limit: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from(self.random >> 33).unwrap_or(0) % limit
    }

    fn place(&mut self) -> Place {
        let cgroup = self.below(self.task.shared.len());
        (self.task.shared[cgroup].clone(), TYPES[self.below(TYPES.len())])
    }

    fn act(&mut self) -> anyhow::Result<()> {
        self.account.operations += 1;
        match self.below(10) {
            0..=2 => self.add_foreign(),
            3..=5 => self.remove_foreign(),
            6 => self.add_or_remove_ours(),
            7..=8 => self.leak(),
            _ => self.use_single(),
        }
    }

    fn add_foreign(&mut self) -> anyhow::Result<()> {
        if self.foreign.len() >= OWN {
            return self.remove_foreign();
        }
        let place = self.place();
        let (is_link, is_held) = (self.below(2) == 0, self.below(2) == 0);
        let own = add(&place, &self.task.foreign, is_link, is_held)?;
        self.foreign.push((place, own));
        Ok(())
    }

    fn remove_foreign(&mut self) -> anyhow::Result<()> {
        if self.foreign.is_empty() {
            return self.add_foreign();
        }
        let at = self.below(self.foreign.len());
        let (place, own) = self.foreign.swap_remove(at);
        remove(&place, own)
    }

    fn add_or_remove_ours(&mut self) -> anyhow::Result<()> {
        let place = self.place();
        if let Some(own) = self.ours.remove(&place) {
            return remove(&place, own);
        }
        // Without a holder the program would be a leak.
        let own = add(&place, &self.task.ours, self.below(2) == 0, true)?;
        self.ours.insert(place, own);
        Ok(())
    }

    fn leak(&mut self) -> anyhow::Result<()> {
        let place = self.place();
        if list(&place)?.len() > ENOUGH {
            return Ok(());
        }
        if self.below(16) == 0 {
            return self.leak_by_dying(&place);
        }
        plant_named(&self.task.ours, &place.0, place.1, AttachFlags::MULTI)?;
        self.account.leaked += 1;
        Ok(())
    }

    /// Starts a process that leaks a program and gets killed.
    fn leak_by_dying(&mut self, (cgroup, attach_type): &Place) -> anyhow::Result<()> {
        let mut child = Command::new(std::env::current_exe()?);
        child.args(["--dies-as", &self.task.ours, "--attach-type", attach_type.name()]).arg(cgroup);
        let status = child.status()?;
        if status.signal() != Some(Signal::SIGKILL as i32) {
            bail!("who was to be killed with a program attached ended by itself: {status}");
        }
        self.account.leaked += 1;
        Ok(())
    }

    /// Leaks into the list of one, or replaces the leak with a program of its own. A cleaner that does not look again
    /// before it detaches would hit that program. The leaked program stays loaded, because it is leaked elsewhere too.
    fn use_single(&mut self) -> anyhow::Result<()> {
        let Some(cgroup) = &self.task.single else { return self.leak() };
        let (single, flags) = (open(cgroup)?, AttachFlags::OVERRIDE);
        let is_leak = self.single.is_some();
        if !is_leak && self.below(4) != 0 {
            // This gives the cleaner time to look at the leak.
            return Ok(());
        }
        let name = if is_leak { &self.task.ours } else { &self.task.foreign };
        let program = Program::load_pass(name, TYPES[0])?;
        let elsewhere = (self.place().0, TYPES[0]);
        // The other lists are full up to `ENOUGH` most of the time.
        let is_room = list(&elsewhere)?.len() <= ENOUGH + 8;
        if is_leak && is_room {
            attach(program.as_fd(), &open(&elsewhere.0)?, TYPES[0], AttachFlags::MULTI, None)?;
            self.account.leaked += 1;
        }
        attach(program.as_fd(), &single, TYPES[0], flags, None)?;
        self.account.leaked_alone += u64::from(is_leak);
        self.single = (!is_leak).then_some(program.info().id);
        Ok(())
    }

    /// Asks the kernel whether all of its programs are attached.
    fn check(&mut self) -> anyhow::Result<()> {
        self.account.checks += 1;
        let mut lists: BTreeMap<Place, Vec<ProgramId>> = BTreeMap::new();
        for (cgroup, attach_type, id) in self.account().attached {
            let place = (cgroup, attach_type);
            if !lists.contains_key(&place) {
                lists.insert(place.clone(), list(&place)?);
            }
            if lists[&place].iter().filter(|&&it| it == id).count() != 1 {
                let (cgroup, attach_type) = &place;
                bail!(
                    "LOST: program {id} is gone from {} ({attach_type}), where there are {:?}",
                    cgroup.display(),
                    lists[&place]
                );
            }
        }
        Ok(())
    }

    fn account(&self) -> Account {
        let foreign = self.foreign.iter().map(|(place, own)| (place, own.id()));
        let ours = self.ours.iter().map(|(place, own)| (place, own.id()));
        let single = self.single.zip(self.task.single.clone());
        let single = single.map(|(id, cgroup)| (cgroup, TYPES[0], id));
        let mut attached: Vec<_> = foreign
            .chain(ours)
            .map(|((cgroup, attach_type), id)| (cgroup.clone(), *attach_type, id))
            .chain(single)
            .collect();
        attached.sort();
        Account { attached, ..self.account.clone() }
    }
}

fn open(cgroup: &Path) -> anyhow::Result<Cgroup> {
    Cgroup::open(cgroup).with_context(|| format!("the cgroup {}", cgroup.display()))
}

fn add(place: &Place, name: &str, is_link: bool, is_held: bool) -> anyhow::Result<Own> {
    let (cgroup, attach_type) = (open(&place.0)?, place.1);
    let program = Program::load_pass(name, attach_type)?;
    let id = program.info().id;
    if is_link {
        return Ok(Own::Link(id, Link::create(program.as_fd(), &cgroup, attach_type)?));
    }
    attach(program.as_fd(), &cgroup, attach_type, AttachFlags::MULTI, None)?;
    Ok(Own::Legacy(id, is_held.then(|| Box::new(program))))
}

fn remove(place: &Place, own: Own) -> anyhow::Result<()> {
    match own {
        Own::Link(_, link) => drop(link),
        Own::Legacy(id, held) => {
            let program = held.map_or_else(|| Program::open(id), |held| Ok(*held))?;
            detach(program.as_fd(), &open(&place.0)?, place.1, None)?;
        }
    }
    Ok(())
}

/// Returns the programs at a place.
///
/// # Errors
/// Returns errors of the kernel.
pub fn list(place: &(PathBuf, AttachType)) -> anyhow::Result<Vec<ProgramId>> {
    let list = query(&open(&place.0)?, place.1, Scope::Local, false)?;
    Ok(list.programs.into_iter().map(|program| program.id).collect())
}
