//! Lists every throttle on this host, from a snapshot of the auditor.

use std::path::PathBuf;

use auditor::facts::Note;
use auditor::facts::{Count, Look, Snapshot, WrittenPath};
use auditor::judge::{Finding, Judged, classify};
use auditor::report::report;
use bpf::follow::GUARDS;
use bpf::ledger::Entry;
use kernel::AttachType;
use schemars::JsonSchema;
use serde::{Serialize, Serializer};
use throttle_core::Direction;
use throttle_core::mode::{Mode, Tcp};

/// One direction of a throttle.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Throttle")]
pub(crate) struct Row {
    /// The name in the ledger, which `rm` takes; null where there is none.
    pub(crate) id: Option<String>,
    /// The cgroup, as a path below the cgroup2 mount.
    #[schemars(with = "WrittenPath")]
    #[serde(with = "bpf::serde_path")]
    pub(crate) cgroup: PathBuf,
    /// The path is of another cgroup namespace or of a mount that is not here (a container's, say), as far as is known:
    /// here it names no cgroup, or another one. Only of throttles that wait.
    pub(crate) cgroup_elsewhere: bool,
    /// Which way, seen from the cgroup's processes.
    #[schemars(with = "shapes::Direction")]
    #[serde(serialize_with = "as_text")]
    pub(crate) direction: Direction,
    /// The limit, in bytes per second.
    pub(crate) rate_bytes_per_second: u64,
    /// What may pass at once after a pause, in milliseconds at the rate.
    pub(crate) burst_ms: f64,
    /// Whose packets are limited: `all`, `internet` or `local`.
    pub(crate) traffic: String,
    /// How TCP is held to the limit.
    #[schemars(with = "shapes::Tcp")]
    #[serde(serialize_with = "as_text")]
    pub(crate) tcp: Tcp,
    /// What is above the limit waits in `fq`, at a device or in a queue of the throttle's own.
    pub(crate) departures: bool,
    /// At which devices, by their numbers (ifindex); none for a queue of the throttle's own.
    pub(crate) fq_devices: Vec<u32>,
    /// How it is attached.
    #[schemars(with = "shapes::Mode")]
    #[serde(serialize_with = "as_text")]
    pub(crate) attach: Mode,
    /// The process that made it, as it calls itself: it may be in another pid namespace. Null where nothing says so.
    pub(crate) owner_pid: Option<u32>,
    /// Whether that process runs; null where that cannot be told.
    pub(crate) owner_alive: Option<bool>,
    /// What the auditor says of it; null where it is detached.
    pub(crate) finding: Option<Finding>,
    /// Nothing limits in this direction, because somebody detached the program of a pinned throttle; its record is left.
    /// `rearm` arms it again, and `rm` ends it.
    pub(crate) detached: bool,
    /// What passed, of the traffic that is limited.
    pub(crate) passed: Count,
    /// Above the limit, and lost.
    pub(crate) dropped: Count,
    /// Attempts of TCP to send what it had to keep for later.
    pub(crate) held_back: Count,
}

/// The schema types of the words that [`as_text`] writes.
mod shapes {
    #![expect(dead_code, reason = "only the shapes are used")]

    use schemars::JsonSchema;

    #[derive(JsonSchema)]
    #[serde(rename_all = "snake_case")]
    pub(super) enum Direction {
        /// Received.
        Download,
        /// Sent.
        Upload,
    }

    #[derive(JsonSchema)]
    #[serde(rename_all = "snake_case")]
    pub(super) enum Tcp {
        /// Paced, and offered windows that fit.
        Shape,
        /// Packets above the limit are dropped.
        Police,
    }

    #[derive(JsonSchema)]
    #[serde(rename_all = "snake_case")]
    pub(super) enum Mode {
        /// Through a link: gone with its process.
        Link,
        /// Through a pinned link: stays until `chadthrottle rm`.
        Pinned,
        /// As before Linux 5.7: a crash leaves it until the next start.
        Legacy,
    }
}

fn as_text<S: Serializer>(value: &impl ToString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&value.to_string())
}

/// Every throttle of a host, as `chadthrottle list --format json` prints it.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Throttles {
    /// The version of this shape: 1. Fields may be added in it, never renamed or removed.
    pub(crate) schema_version: u32,
    /// One for each direction that is limited.
    #[serde(rename = "throttles")]
    pub(crate) rows: Vec<Row>,
    /// Attached programs that are named as ours but have no state of ours to read a limit from: those of
    /// other versions, of the historical throttle, and for TCP where no direction is limited.
    pub(crate) unreadable: usize,
    /// Leaks of any kind, those in `throttles` and network devices included.
    pub(crate) leaked: usize,
    /// Not everything could be seen.
    pub(crate) gaps: Vec<Note>,
}

/// Reads the throttles from a snapshot.
pub(crate) fn throttles(snapshot: &Snapshot) -> Throttles {
    let classified = classify(snapshot);
    let is_throttle = |judged: &&Judged<'_>| {
        judged.finding != Finding::Foreign
            && judged.program.is_none_or(|program| !program.loaded.name.starts_with(GUARDS))
    };
    let ours: Vec<_> = classified.attachments.iter().filter(is_throttle).collect();
    let (for_tcp, ours): (Vec<_>, Vec<_>) = ours.into_iter().partition(|judged| is_for_tcp(judged));
    let rows: Vec<_> = match snapshot.looks.last() {
        Some(look) => ours.iter().filter_map(|judged| row(judged, &for_tcp, look)).collect(),
        None => Vec::new(),
    };
    let alone = |it: &&&Judged<'_>| !ours.iter().any(|judged| goes_with(it, judged));
    Throttles {
        schema_version: 1,
        unreadable: ours.len() - rows.len() + for_tcp.iter().filter(alone).count(),
        rows,
        leaked: classified.leaks().count() + classified.leaked_devices().count(),
        gaps: report(snapshot, &classified, false).coverage.gaps,
    }
}

fn is_for_tcp(judged: &Judged<'_>) -> bool {
    judged.place.is_some_and(|place| place.attach_type == AttachType::SOCK_OPS)
}

/// Tells whether a program for TCP uses this program's state: both are on the same cgroup and from the same load.
fn goes_with(for_tcp: &Judged<'_>, judged: &Judged<'_>) -> bool {
    let cgroup = |it: &Judged<'_>| it.place.map(|place| place.cgroup_id);
    let (Some(a), Some(b)) = (for_tcp.program, judged.program) else { return false };
    cgroup(for_tcp) == cgroup(judged)
        && a.loaded.map_ids.iter().any(|map| b.loaded.map_ids.contains(map))
}

fn row(judged: &Judged<'_>, for_tcp: &[&Judged<'_>], look: &Look) -> Option<Row> {
    let place = judged.place?;
    let state = place.state.as_ref()?;
    let entry = entry_of(judged, place.attach_type, &look.ledger);
    let owner = judged.program.and_then(|program| program.owner.as_ref());
    let alive = |owner| look.owners.iter().find(|fact| &fact.owner == owner)?.alive;
    Some(Row {
        id: entry.map(|entry| entry.throttle.clone()),
        cgroup: place.cgroup.clone(),
        cgroup_elsewhere: false,
        direction: Direction::of(place.attach_type)?,
        rate_bytes_per_second: state.rate,
        burst_ms: state.burst_ns as f64 / 1e6,
        traffic: state.traffic.clone(),
        tcp: if for_tcp.iter().any(|it| goes_with(it, judged)) { Tcp::Shape } else { Tcp::Police },
        departures: state.departures,
        fq_devices: state.fq_devices.clone(),
        attach: match judged.link {
            None => Mode::Legacy,
            // The pins may be in a bpffs that is not mounted here.
            Some(_) if judged.pins.is_empty() && !entry.is_some_and(|it| it.persist) => Mode::Link,
            Some(_) => Mode::Pinned,
        },
        owner_pid: owner.map(|owner| owner.pid),
        owner_alive: owner.and_then(alive),
        finding: Some(judged.finding),
        detached: false,
        passed: state.passed,
        dropped: state.dropped,
        held_back: state.held_back,
    })
}

/// Returns the ledger's entry for an attachment.
fn entry_of<'a>(
    judged: &Judged<'_>,
    attach_type: AttachType,
    ledger: &'a [Entry],
) -> Option<&'a Entry> {
    let program = judged.program?;
    let place = judged.place?;
    ledger.iter().find(|entry| {
        entry.cgroup_id == place.cgroup_id
            && entry.attachments.iter().any(|recorded| {
                recorded.attach_type == attach_type
                    && recorded.program_id == program.loaded.id
                    && recorded.tag == program.loaded.tag
                    && recorded.loaded_at_ns == program.loaded.loaded_at_ns
            })
    })
}

#[cfg(test)]
#[path = "throttles_tests.rs"]
mod tests;
