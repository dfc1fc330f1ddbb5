//! Processes, seen from the command: which were there before it, and which it has started.

use std::collections::HashMap;

use anyhow::Context;
use bpf::Birth;

use super::makers::Origin;
use crate::snapshot::Look;

/// Processes that hold something, with their ancestors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Processes {
    /// The gate's own pid. What the command has left is its child by now, as it is a subreaper.
    pub gate: u32,
    /// When the gate was started, in clock ticks since boot. (The command was a moment later: what was started in that
    /// moment counts as started meanwhile.)
    pub started: u64,
    /// Who started the gate, and who started that, by pid: they were there before it, if only for less than a tick.
    pub ancestors: HashMap<u32, Birth>,
    /// By pid.
    pub table: HashMap<u32, Birth>,
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
        Ok(Self { gate, started, ancestors, table: HashMap::new() })
    }

    /// Reads about those that hold something now. What has ended meanwhile, or cannot be read, is not in it, and its
    /// origin unknown.
    pub(crate) fn read(&mut self, look: &Look) {
        self.table.clear();
        for holder in &look.holders {
            read_line(holder.pid, self.gate, &mut self.table);
        }
    }

    /// Where a process comes from.
    pub fn origin(&self, pid: u32) -> Origin {
        let Some(process) = self.table.get(&pid) else { return Origin::Unknown };
        // (Its parent may be another by now.)
        let is_ancestor =
            self.ancestors.get(&pid).is_some_and(|it| it.start_time == process.start_time);
        if is_ancestor || process.start_time < self.started {
            return Origin::Earlier;
        }
        let mut ancestor = process.parent;
        // No chain is longer than the table, unless a pid was given anew while it was read.
        for _ in 0..self.table.len() {
            if ancestor == self.gate {
                return Origin::Command;
            }
            let Some(process) = self.table.get(&ancestor) else { break };
            ancestor = process.parent;
        }
        if ancestor == self.gate { Origin::Command } else { Origin::Meanwhile }
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
