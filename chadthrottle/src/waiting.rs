//! Throttles whose cgroup was removed and that wait for another one at its path, as the ledger has them.

use std::path::{Path, PathBuf};

use auditor::classify::Finding;
use auditor::snapshot::{Count, Look, Snapshot};
use bpf::ledger::{Entry, RecordedAttachment};
use bpf::{AttachType, Owner};
use throttle_core::Direction;
use throttle_core::mode::{Mode, Tcp};

use crate::throttles::Row;

/// Every direction of every throttle that waits. `mount`: where cgroup2 is, so that paths are shown below it.
pub(crate) fn rows(snapshot: &Snapshot, mount: Option<&Path>) -> Vec<Row> {
    let Some(look) = snapshot.looks.last() else { return Vec::new() };
    let of_this_boot =
        look.ledger.iter().filter(|entry| entry.owner.boot_id == snapshot.host.boot_id);
    of_this_boot
        .filter(|entry| waits(entry, look))
        .flat_map(|entry| of_entry(entry, look, mount))
        .collect()
}

fn waits(entry: &Entry, look: &Look) -> bool {
    let owner_waits = entry.waiting && is_alive(&entry.owner, look) != Some(false);
    let is_removed = look.removed_cgroups.contains(&entry.cgroup_id);
    owner_waits || entry.can_be_armed() && (entry.waiting || is_removed)
}

fn is_alive(owner: &Owner, look: &Look) -> Option<bool> {
    look.owners.iter().find(|fact| fact.owner == *owner)?.alive
}

fn of_entry(entry: &Entry, look: &Look, mount: Option<&Path>) -> Vec<Row> {
    let own: Vec<&RecordedAttachment> =
        entry.attachments.iter().filter(|it| it.former_cgroup.is_none()).collect();
    let shapes_tcp = own.iter().any(|it| it.attach_type == AttachType::SOCK_OPS);
    let row = |recorded: &&RecordedAttachment| {
        let limits = recorded.limits.as_ref()?;
        Some(Row {
            id: Some(entry.throttle.clone()),
            cgroup: below(mount, &entry.cgroup_path),
            direction: Direction::of(recorded.attach_type)?,
            rate_bytes_per_second: limits.rate.bytes_per_second(),
            burst_ms: limits.burst_ns as f64 / 1e6,
            traffic: limits.traffic.to_string(),
            tcp: if shapes_tcp { Tcp::Shape } else { Tcp::Police },
            departures: !limits.fq_devices.is_empty(),
            fq_devices: limits.fq_devices.clone(),
            attach: match (entry.persist, recorded.link_id) {
                (true, _) => Mode::Pinned,
                (false, Some(_)) => Mode::Link,
                (false, None) => Mode::Legacy,
            },
            owner_pid: Some(entry.owner.pid),
            owner_alive: is_alive(&entry.owner, look),
            finding: Finding::Waiting,
            passed: Count::default(),
            dropped: Count::default(),
            held_back: Count::default(),
        })
    };
    own.iter().filter_map(row).collect()
}

/// As other throttles' cgroups are shown: below the mount.
fn below(mount: Option<&Path>, cgroup: &Path) -> PathBuf {
    match mount.and_then(|mount| cgroup.strip_prefix(mount).ok()) {
        Some(below) => Path::new("/").join(below),
        None => cgroup.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded() -> Snapshot {
        serde_json::from_str(include_str!("../../auditor/tests/snapshots-in/waiting.json")).unwrap()
    }

    #[test]
    fn a_throttle_that_waits_is_listed_from_its_record() {
        let rows = rows(&recorded(), Some(Path::new("/sys/fs/cgroup")));
        let [row] = &rows[..] else { panic!("{rows:?}") };
        assert_eq!(row.id.as_deref(), Some("nginx"));
        assert_eq!(row.cgroup, Path::new("/system.slice/nginx.service"));
        assert_eq!((row.rate_bytes_per_second, row.finding), (125_000, Finding::Waiting));
        assert_eq!((row.attach, row.owner_alive), (Mode::Pinned, Some(false)));
    }

    #[test]
    fn what_is_attached_or_of_another_boot_does_not_wait() {
        let mut attached = recorded();
        attached.looks[0].removed_cgroups.clear();
        assert!(rows(&attached, None).is_empty());
        let mut other = recorded();
        other.host.boot_id = "another".to_owned();
        assert!(rows(&other, None).is_empty());
    }

    #[test]
    fn a_living_owner_says_itself_that_it_waits() {
        let mut snapshot = recorded();
        let look = &mut snapshot.looks[0];
        look.removed_cgroups.clear();
        (look.ledger[0].persist, look.ledger[0].waiting) = (false, true);
        assert!(rows(&snapshot, None).is_empty(), "it is dead");
        snapshot.looks[0].owners[0].alive = Some(true);
        let rows = rows(&snapshot, None);
        assert_eq!((rows.len(), rows[0].attach), (1, Mode::Link));
        assert_eq!(rows[0].cgroup, Path::new("/sys/fs/cgroup/system.slice/nginx.service"));
    }
}
