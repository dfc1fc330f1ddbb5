//! Tells which processes ran before the command and which ones the command started.

use std::collections::{HashMap, HashSet};

use anyhow::Context;
use kernel::loads::{Asked, Loader};
use kernel::pins::{Sought, pins_of};
use kernel::{ProgramId, process::Birth};

use super::makers::{Holder, Origin};
use crate::facts::{Look, PinFact, Process};

/// The number of attempts to read a process whose parent ends meanwhile. Another process then becomes its parent.
const ATTEMPTS: usize = 3;

/// Processes that hold something, with their ancestors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Processes {
    /// The gate's own pid. The gate is a subreaper, so the command's orphans are its children by now.
    pub gate: u32,
    /// The gate's start time, in clock ticks since boot. (The command starts a moment later. A process that somebody
    /// starts in between counts as started meanwhile.)
    pub started: u64,
    /// The time right before the start of the command, in nanoseconds since boot; none if unknown.
    pub began_ns: Option<u64>,
    /// The time when every process of the command had ended, in nanoseconds since boot; none before that.
    pub over_ns: Option<u64>,
    /// The gate's ancestors, by pid. They ran before the gate, even if only for less than a tick.
    pub ancestors: HashMap<u32, Birth>,
    /// The processes, by pid.
    pub table: HashMap<u32, Birth>,
    /// Who loaded which program since the gate started, as the kernel reports it; empty if unknown.
    pub loaders: HashMap<ProgramId, Loader>,
    /// What the command and its descendants asked the kernel to make; none if unknown.
    pub asked: Option<HashSet<Asked>>,
    /// Pins in other mount namespaces of processes that the command left running. They only serve as an explanation.
    pub pins_elsewhere: Vec<PinFact>,
}

impl Processes {
    /// Reads about this process, which is the gate.
    ///
    /// # Errors
    /// `/proc` cannot be read, or belongs to another pid namespace.
    pub fn from_here() -> anyhow::Result<Self> {
        let gate = std::process::id();
        let started = kernel::process::start_time(gate)?.with_context(|| {
            format!("there is no process {gate} in /proc: it is of another pid namespace")
        })?;
        let mut ancestors = HashMap::new();
        if let Ok(Some(own)) = kernel::process::birth(gate) {
            read_line(own.parent, gate, &mut ancestors);
        }
        Ok(Self { gate, started, ancestors, ..Self::default() })
    }

    /// Reads about current holders and owners, and their ancestors. A process that has ended, or that cannot be read,
    /// is missing from the table, so its origin is unknown.
    pub fn read(&mut self, look: &Look) {
        self.table.clear();
        let owners = look.owners.iter().filter(|it| it.alive == Some(true));
        let pids =
            look.holders.iter().map(|it| it.process.pid).chain(owners.map(|it| it.owner.pid));
        for pid in pids.collect::<Vec<_>>() {
            for _ in 0..ATTEMPTS {
                read_line(pid, self.gate, &mut self.table);
                if self.origin(pid) != Origin::Unknown {
                    break;
                }
                self.forget_line(pid);
            }
        }
    }

    /// Looks for pins in other mount namespaces of processes that the command left running.
    pub fn look_elsewhere(&mut self) {
        self.pins_elsewhere.clear();
        let namespace = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/mnt")).ok();
        let mut seen = vec![namespace("thread-self")];
        let Ok(listing) = std::fs::read_dir("/proc") else { return };
        let names = listing.flatten().filter_map(|it| it.file_name().into_string().ok());
        for pid in names.filter_map(|name| name.parse::<u32>().ok()) {
            read_line(pid, self.gate, &mut self.table);
            let there = namespace(&pid.to_string());
            if self.origin(pid) != Origin::Command || there.is_none() || seen.contains(&there) {
                continue;
            }
            seen.push(there);
            let pins = pins_of(pid, Sought::MapsToo).pins.into_iter();
            let fact = |pin: kernel::pins::Pin| PinFact { path: pin.path, object: pin.held.into() };
            self.pins_elsewhere.extend(pins.map(fact));
        }
    }

    /// Returns the processes that the command left running, by pid.
    pub fn still_running(&mut self) -> Vec<Holder> {
        let Ok(listing) = std::fs::read_dir("/proc") else { return Vec::new() };
        let names = listing.flatten().filter_map(|it| it.file_name().into_string().ok());
        let mut pids: Vec<u32> = names.filter_map(|name| name.parse().ok()).collect();
        pids.sort_unstable();
        let mut running = Vec::new();
        for pid in pids {
            read_line(pid, self.gate, &mut self.table);
            if self.origin(pid) == Origin::Command {
                // A process that has ended meanwhile has no name.
                let comm = std::fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
                let comm = String::from_utf8_lossy(comm.trim_ascii_end()).into_owned();
                let process = Process { pid, comm };
                let is_there = !process.comm.is_empty();
                running.extend(is_there.then_some(Holder { process, origin: Origin::Command }));
            }
        }
        running
    }

    fn forget_line(&mut self, mut pid: u32) {
        while let Some(birth) = self.table.remove(&pid) {
            pid = birth.parent;
        }
    }

    /// Returns where a process comes from.
    pub fn origin(&self, pid: u32) -> Origin {
        let Some(process) = self.table.get(&pid) else { return Origin::Unknown };
        if self.is_earlier(pid, process) {
            return Origin::Earlier;
        }
        let mut ancestor = process.parent;
        // A longer chain than the table means that the kernel reused a pid during the read.
        for _ in 0..=self.table.len() {
            match self.table.get(&ancestor) {
                _ if ancestor == self.gate => return Origin::Command,
                // The ancestor is outside of this pid namespace.
                _ if ancestor == 0 => return Origin::Meanwhile,
                Some(process) if self.is_earlier(ancestor, process) => return Origin::Meanwhile,
                Some(process) => ancestor = process.parent,
                // The parent has ended since, and may have been a process of the command.
                None => return Origin::Unknown,
            }
        }
        Origin::Unknown
    }

    /// Tells whether the process with that pid and start time is running and does not descend from the command.
    pub(super) fn is_another(&self, pid: u32, start_time: u64) -> bool {
        self.table.get(&pid).is_some_and(|it| it.start_time == start_time)
            && self.origin(pid).is_not_the_commands()
    }

    /// Tells whether the command or a descendant loaded the program; `None` if unknown.
    pub(super) fn has_command_loaded(&self, program: ProgramId) -> Option<bool> {
        self.loaders.get(&program)?.is_descendant
    }

    fn is_earlier(&self, pid: u32, process: &Birth) -> bool {
        // (The ancestor's own parent may have changed.)
        let is_ancestor =
            self.ancestors.get(&pid).is_some_and(|it| it.start_time == process.start_time);
        is_ancestor || process.start_time < self.started
    }
}

/// Reads about a process and its ancestors, up to the gate.
fn read_line(mut pid: u32, gate: u32, table: &mut HashMap<u32, Birth>) {
    while pid != 0 && pid != gate && !table.contains_key(&pid) {
        let Ok(Some(birth)) = kernel::process::birth(pid) else { break };
        table.insert(pid, birth);
        pid = birth.parent;
    }
}
