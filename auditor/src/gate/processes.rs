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
    /// When the gate was started. (The command was a moment later: what was started in that moment counts as started
    /// meanwhile.)
    pub started: u64,
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
        Ok(Self { gate, started, table: HashMap::new() })
    }

    /// Reads about those that hold something now. What has ended meanwhile, or cannot be read, is not in it, and its
    /// origin unknown.
    pub(crate) fn read(&mut self, look: &Look) {
        self.table.clear();
        for holder in &look.holders {
            let mut pid = holder.pid;
            while pid != 0 && pid != self.gate && !self.table.contains_key(&pid) {
                let Ok(Some(birth)) = bpf::birth(pid) else { break };
                self.table.insert(pid, birth);
                pid = birth.parent;
            }
        }
    }

    /// Where a process comes from.
    pub fn origin(&self, pid: u32) -> Origin {
        let Some(process) = self.table.get(&pid) else { return Origin::Unknown };
        if process.start_time < self.started {
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
