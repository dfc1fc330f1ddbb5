//! Processes, seen from the command: which were there before it, and which it has started.

use std::collections::{HashMap, HashSet};

use anyhow::Context;
use bpf::loads::{Asked, Loader};
use bpf::pins::{Sought, pins_of};
use bpf::{Birth, ProgramId};

use super::makers::{Holder, Origin};
use crate::collect::object;
use crate::snapshot::{Look, PinFact};

/// How often a process is read whose parent ends meanwhile: then another one has taken it in.
const ATTEMPTS: usize = 3;

/// Processes that hold something, with their ancestors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Processes {
    /// The gate's own pid. What the command has left is its child by now, as it is a subreaper.
    pub gate: u32,
    /// When the gate was started, in clock ticks since boot. (The command was a moment later: what was started in that
    /// moment counts as started meanwhile.)
    pub started: u64,
    /// When the command was about to be started, in nanoseconds since boot; none where that cannot be told.
    pub began_ns: Option<u64>,
    /// When nothing that the command had started was running any more, in nanoseconds since boot; none before that.
    pub over_ns: Option<u64>,
    /// Who started the gate, and who started that, by pid: they were there before it, if only for less than a tick.
    pub ancestors: HashMap<u32, Birth>,
    /// By pid.
    pub table: HashMap<u32, Birth>,
    /// Who has loaded what since the gate was started, as the kernel has written it down. Empty where that is not known.
    pub loaders: HashMap<ProgramId, Loader>,
    /// What the command, or what it started, has asked the kernel to make; none where that is not known.
    pub asked: Option<HashSet<Asked>>,
    /// Pins in mount namespaces of what the command has left running, out of sight from here. They only explain.
    pub pins_elsewhere: Vec<PinFact>,
}

impl Processes {
    /// This process is the gate.
    ///
    /// # Errors
    /// When `/proc` cannot be read, or is another pid namespace's.
    pub(crate) fn from_here() -> anyhow::Result<Self> {
        let gate = std::process::id();
        let started = bpf::start_time(gate)?.with_context(|| {
            format!("there is no process {gate} in /proc: it is of another pid namespace")
        })?;
        let mut ancestors = HashMap::new();
        if let Ok(Some(own)) = bpf::birth(gate) {
            read_line(own.parent, gate, &mut ancestors);
        }
        Ok(Self { gate, started, ancestors, ..Self::default() })
    }

    /// Reads about those that hold something now, and about owners. What has ended meanwhile, or cannot be read, is not in
    /// it, and its origin unknown.
    pub(crate) fn read(&mut self, look: &Look) {
        self.table.clear();
        let owners = look.owners.iter().filter(|it| it.alive == Some(true));
        let pids = look.holders.iter().map(|it| it.pid).chain(owners.map(|it| it.owner.pid));
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

    /// Looks for pins of what is left running, where that is in other mount namespaces.
    pub(crate) fn look_elsewhere(&mut self) {
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
            let fact = |pin: bpf::pins::Pin| PinFact { path: pin.path, object: object(pin.held) };
            self.pins_elsewhere.extend(pins.map(fact));
        }
    }

    /// What the command has left running, by pid.
    pub(crate) fn still_running(&mut self) -> Vec<Holder> {
        let Ok(listing) = std::fs::read_dir("/proc") else { return Vec::new() };
        let names = listing.flatten().filter_map(|it| it.file_name().into_string().ok());
        let mut pids: Vec<u32> = names.filter_map(|name| name.parse().ok()).collect();
        pids.sort_unstable();
        let mut running = Vec::new();
        for pid in pids {
            read_line(pid, self.gate, &mut self.table);
            if self.origin(pid) == Origin::Command {
                // One that has ended meanwhile has no name.
                let comm = std::fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
                let comm = String::from_utf8_lossy(comm.trim_ascii_end()).into_owned();
                running.extend((!comm.is_empty()).then_some(Holder {
                    pid,
                    comm,
                    origin: Origin::Command,
                }));
            }
        }
        running
    }

    fn forget_line(&mut self, mut pid: u32) {
        while let Some(birth) = self.table.remove(&pid) {
            pid = birth.parent;
        }
    }

    /// Where a process comes from.
    pub fn origin(&self, pid: u32) -> Origin {
        let Some(process) = self.table.get(&pid) else { return Origin::Unknown };
        if self.is_earlier(pid, process) {
            return Origin::Earlier;
        }
        let mut ancestor = process.parent;
        // No chain is longer than the table, unless a pid was given anew while it was read.
        for _ in 0..=self.table.len() {
            match self.table.get(&ancestor) {
                _ if ancestor == self.gate => return Origin::Command,
                // From outside of this pid namespace.
                _ if ancestor == 0 => return Origin::Meanwhile,
                Some(process) if self.is_earlier(ancestor, process) => return Origin::Meanwhile,
                Some(process) => ancestor = process.parent,
                // Its parent has ended since, and may have been the command's.
                None => return Origin::Unknown,
            }
        }
        Origin::Unknown
    }

    /// The process with that pid and start time lives, and does not descend from the command.
    pub(super) fn is_another(&self, pid: u32, start_time: u64) -> bool {
        self.table.get(&pid).is_some_and(|it| it.start_time == start_time)
            && self.origin(pid).is_not_the_commands()
    }

    /// Whether the command has loaded it, or something that the command started; none where that cannot be told.
    pub(super) fn has_command_loaded(&self, program: ProgramId) -> Option<bool> {
        self.loaders.get(&program)?.is_descendant
    }

    fn is_earlier(&self, pid: u32, process: &Birth) -> bool {
        // (Its parent may be another by now.)
        let is_ancestor =
            self.ancestors.get(&pid).is_some_and(|it| it.start_time == process.start_time);
        is_ancestor || process.start_time < self.started
    }
}

/// Reads about a process and its ancestors, up to the gate.
fn read_line(mut pid: u32, gate: u32, table: &mut HashMap<u32, Birth>) {
    while pid != 0 && pid != gate && !table.contains_key(&pid) {
        let Ok(Some(birth)) = bpf::birth(pid) else { break };
        table.insert(pid, birth);
        pid = birth.parent;
    }
}
