//! A command, and other processes that run beside it.

use std::collections::HashMap;

use auditor::compare::Kind;
use auditor::facts::Snapshot;
use auditor::gate::{Aftermath, Left, Processes, judge};
use kernel::process::Birth;

use super::*;

pub(crate) const GATE: u32 = 100;
/// A process that ran before the gate.
pub(crate) const SYSTEMD: u32 = 1;
/// A child of the gate. Every orphan of the command is one by now.
pub(crate) const DAEMON: u32 = 201;
/// A child of the daemon.
pub(crate) const WORKER: u32 = 202;
/// A process that somebody else started meanwhile.
pub(crate) const STRANGER: u32 = 300;

pub(crate) fn processes() -> Processes {
    let born = |pid, parent, start_time| (pid, Birth { parent, start_time });
    let table = HashMap::from([
        born(SYSTEMD, 0, 3),
        born(DAEMON, GATE, 9_100),
        born(WORKER, DAEMON, 9_200),
        born(STRANGER, SYSTEMD, 9_150),
    ]);
    Processes { gate: GATE, started: 9_000, table, ..Processes::default() }
}

pub(crate) fn all() -> Vec<String> {
    vec!["*".to_owned()]
}

pub(crate) fn judged(before: &Snapshot, after: &Snapshot) -> Aftermath {
    judge(before, after, &all(), &processes()).unwrap()
}

/// Returns the judgement of the second of two equal looks.
pub(crate) fn settled(before: &Snapshot, after: &Snapshot) -> Aftermath {
    let first = judged(before, after).confirmed_by(None);
    judged(before, after).confirmed_by(Some(&first))
}

/// Returns a host with a new program 41 that these processes hold.
pub(crate) fn loaded(holders: &[u32]) -> Snapshot {
    let mut after = everything();
    after.load(41, "leaky", &[]);
    for pid in holders {
        after.hold(*pid, &[program(41)]);
    }
    after
}

pub(crate) fn kinds<'a>(left: impl IntoIterator<Item = &'a Left>) -> Vec<Kind> {
    left.into_iter().map(|left| left.item.kind()).collect()
}
