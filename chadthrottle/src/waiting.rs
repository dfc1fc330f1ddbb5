//! Lists throttles that only the ledger knows. Some wait for a new cgroup at the path of a removed one. Others were
//! detached by somebody.

use std::path::{Path, PathBuf};

use auditor::facts::{Count, Look, Snapshot, Subject};
use auditor::judge::Finding;
use bpf::Owner;
use bpf::ledger::{Entry, RecordedAttachment};
use kernel::{AttachType, CgroupId};
use throttle_core::Direction;
use throttle_core::mode::{Mode, Tcp};

use crate::throttles::Row;

/// The mounts and the namespace that decide what a cgroup's path means here.
pub(crate) struct Here {
    /// The inode number of this process's cgroup namespace.
    namespace: Option<u64>,
    /// The cgroup2 mounts, each with the cgroup at its top. The mount that shows the most comes first.
    mounts: Vec<(PathBuf, CgroupId)>,
}

impl Here {
    pub(crate) fn look() -> Self {
        let views = kernel::cgroup::views().unwrap_or_default();
        let mounts = views.iter().map(|view| (view.point().to_owned(), view.top().id()));
        Self { namespace: kernel::cgroup::namespace().ok(), mounts: mounts.collect() }
    }

    /// Returns the path of an entry's cgroup below the mount, as other throttles' cgroups are shown. Returns `None`
    /// unless the path is of this namespace and of a mount that is visible here.
    fn path(&self, entry: &Entry) -> Option<PathBuf> {
        let path = &entry.cgroup_path;
        let mut mounts = self.mounts.iter();
        let (mount, _) = mounts
            .find(|(mount, top)| path.starts_with(mount) && entry.cgroup_top == Some(*top))
            .filter(|_| self.namespace == Some(entry.cgroup_namespace))?;
        let best = self.mounts.first().filter(|(best, _)| best == mount);
        let below = best.and_then(|_| path.strip_prefix(mount).ok());
        Some(below.map_or_else(|| path.clone(), |below| Path::new("/").join(below)))
    }
}

/// Returns a row for each direction of each throttle that waits.
pub(crate) fn rows(snapshot: &Snapshot, here: &Here) -> Vec<Row> {
    let Some(look) = snapshot.looks.last() else { return Vec::new() };
    let of_this_boot =
        look.ledger.iter().filter(|entry| entry.owner.boot_id == snapshot.host.host.boot_id);
    of_this_boot
        .filter(|entry| waits(entry, look))
        .flat_map(|entry| of_entry(entry, look, here, Some(Finding::Waiting)))
        .collect()
}

/// Returns a row for each direction of a pinned throttle that neither waits nor is among `shown`, which are the
/// attached ones. Returns nothing unless every attachment could be seen.
pub(crate) fn detached(snapshot: &Snapshot, here: &Here, shown: &[Row]) -> Vec<Row> {
    let Some(look) = snapshot.looks.last().filter(|look| is_attached_seen(look)) else {
        return Vec::new();
    };
    // An id is unique in one ledger only. The host's and a container's ledger may both have it.
    let is_one = |row: &Row, other: &Row| {
        (&row.id, row.direction) == (&other.id, other.direction)
            && (row.owner_pid == other.owner_pid || row.cgroup == other.cgroup)
    };
    let is_shown = |row: &Row| shown.iter().any(|other| is_one(row, other));
    let kept = look.ledger.iter().filter(|entry| {
        entry.is_kept() && !waits(entry, look) && entry.owner.boot_id == snapshot.host.host.boot_id
    });
    let rows = kept.flat_map(|entry| of_entry(entry, look, here, None));
    rows.filter(|row| !is_shown(row)).collect()
}

fn is_attached_seen(look: &Look) -> bool {
    let matters = [Subject::Cgroups, Subject::Programs, Subject::Links];
    look.coverage.gaps.iter().all(|gap| !matters.contains(&gap.about))
}

fn waits(entry: &Entry, look: &Look) -> bool {
    let owner_waits = entry.waiting && is_alive(&entry.owner, look) != Some(false);
    let is_removed = look.removed_cgroups.contains(&entry.cgroup_id);
    owner_waits || entry.can_be_armed() && (entry.waiting || is_removed)
}

fn is_alive(owner: &Owner, look: &Look) -> Option<bool> {
    look.owners.iter().find(|fact| fact.owner == *owner)?.alive
}

fn of_entry(entry: &Entry, look: &Look, here: &Here, finding: Option<Finding>) -> Vec<Row> {
    let path = here.path(entry);
    let own: Vec<&RecordedAttachment> =
        entry.attachments.iter().filter(|it| it.former_cgroup.is_none()).collect();
    let shapes_tcp = own.iter().any(|it| it.attach_type == AttachType::SOCK_OPS);
    let row = |recorded: &&RecordedAttachment| {
        let limits = recorded.limits.as_ref()?;
        Some(Row {
            id: Some(entry.throttle.clone()),
            cgroup: path.clone().unwrap_or_else(|| entry.cgroup_path.clone()),
            cgroup_elsewhere: path.is_none(),
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
            finding,
            detached: finding.is_none(),
            passed: Count::default(),
            dropped: Count::default(),
            held_back: Count::default(),
        })
    };
    own.iter().filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use auditor::facts::Gap;
    use bpf::ledger::Stage;

    use super::*;

    fn recorded() -> Snapshot {
        serde_json::from_str(include_str!("../../auditor/tests/snapshots-in/waiting.json")).unwrap()
    }

    fn here() -> Here {
        let mounts = vec![("/sys/fs/cgroup".into(), CgroupId(1)), ("/mnt".into(), CgroupId(40))];
        Here { namespace: Some(4_026_531_835), mounts }
    }

    #[test]
    fn a_throttle_that_waits_is_listed_from_its_record() {
        let rows = rows(&recorded(), &here());
        let [row] = &rows[..] else { panic!("{rows:?}") };
        assert_eq!(row.id.as_deref(), Some("nginx"));
        assert_eq!(row.cgroup, Path::new("/system.slice/nginx.service"));
        assert_eq!((row.rate_bytes_per_second, row.finding), (125_000, Some(Finding::Waiting)));
        assert_eq!((row.attach, row.owner_alive), (Mode::Pinned, Some(false)));
        assert!(!row.cgroup_elsewhere && !row.detached);
        assert_eq!(row.burst_ms.to_string(), "20");
    }

    #[test]
    fn a_pinned_throttle_that_lost_its_program_is_listed_from_its_record() {
        let mut snapshot = recorded();
        assert!(detached(&snapshot, &here(), &[]).is_empty(), "it waits");
        snapshot.looks[0].removed_cgroups.clear();
        let rows = detached(&snapshot, &here(), &[]);
        let [row] = &rows[..] else { panic!("{rows:?}") };
        assert_eq!((row.id.as_deref(), row.detached, row.finding), (Some("nginx"), true, None));
        assert!(detached(&snapshot, &here(), &rows).is_empty(), "it is attached");
        let mut other = snapshot.clone();
        other.host.host.boot_id = "another".to_owned();
        assert!(detached(&other, &here(), &[]).is_empty());
        let gap = |about| Gap { about, what: "x".to_owned(), why: "y".to_owned() };
        snapshot.looks[0].coverage.gaps = vec![gap(Subject::HiddenProcesses)];
        assert_eq!(detached(&snapshot, &here(), &[]).len(), 1);
        snapshot.looks[0].coverage.gaps = vec![gap(Subject::Cgroups)];
        assert!(detached(&snapshot, &here(), &[]).is_empty(), "it may be attached out of sight");
        snapshot.looks[0].coverage.gaps.clear();
        snapshot.looks[0].ledger[0].persist = false;
        assert!(detached(&snapshot, &here(), &[]).is_empty(), "its owner had it detached");
    }

    /// Adds the second direction of the record and the program for TCP.
    fn with_both(mut snapshot: Snapshot) -> Snapshot {
        let look = &mut snapshot.looks[0];
        look.removed_cgroups.clear();
        let recorded = &mut look.ledger[0].attachments;
        for attach_type in [AttachType::INET_EGRESS, AttachType::SOCK_OPS] {
            let limits = recorded[0].limits.clone().filter(|_| attach_type != AttachType::SOCK_OPS);
            recorded.push(RecordedAttachment { attach_type, limits, ..recorded[0].clone() });
        }
        snapshot
    }

    #[test]
    fn of_a_throttle_of_two_directions_just_the_one_is_detached_that_is_not_shown() {
        let snapshot = with_both(recorded());
        let not_shown = |shown: &[Row]| -> Vec<_> {
            let rows = detached(&snapshot, &here(), shown).into_iter();
            rows.map(|row| (row.id.unwrap(), row.direction)).collect()
        };
        let both = || detached(&snapshot, &here(), &[]);
        let all = Direction::BOTH.map(|direction| ("nginx".to_owned(), direction));
        assert_eq!(not_shown(&[]), all);
        assert!(both().iter().all(|row| row.tcp == Tcp::Shape && row.detached));
        assert_eq!(not_shown(&both()), []);
        for (nth, other) in [(0, 1), (1, 0)] {
            assert_eq!(not_shown(&[both().remove(nth)]), [all[other].clone()]);
        }
        // A row of another throttle, and one without an id.
        for id in [Some("web".to_owned()), None] {
            let shown: Vec<_> =
                both().into_iter().map(|row| Row { id: id.clone(), ..row }).collect();
            assert_eq!(not_shown(&shown), all);
        }
        // A throttle with the same id in another ledger.
        let namesake = |row| Row { owner_pid: Some(9), cgroup: "/other".into(), ..row };
        assert_eq!(not_shown(&both().into_iter().map(namesake).collect::<Vec<_>>()), all);
        // Another process armed it again.
        let armed_again = |row| Row { owner_pid: Some(9), ..row };
        assert_eq!(not_shown(&both().into_iter().map(armed_again).collect::<Vec<_>>()), []);
    }

    #[test]
    fn of_a_throttle_of_two_directions_that_waits_each_is_listed_once() {
        let mut snapshot = with_both(recorded());
        let look = &mut snapshot.looks[0];
        look.removed_cgroups.push(look.ledger[0].cgroup_id);
        // A direction that it had on the earlier cgroup only is no direction of it any more.
        let former = RecordedAttachment {
            former_cgroup: Some(CgroupId(3)),
            ..look.ledger[0].attachments[0].clone()
        };
        look.ledger[0].attachments.push(former);
        let rows = rows(&snapshot, &here());
        assert_eq!(rows.iter().map(|row| row.direction).collect::<Vec<_>>(), Direction::BOTH);
        assert!(detached(&snapshot, &here(), &rows).is_empty());
    }

    #[test]
    fn a_path_is_shown_below_the_mount_only_where_it_means_the_same_here() {
        let shown = |path: &str, edit: &dyn Fn(&mut Entry)| {
            let mut snapshot = recorded();
            let entry = &mut snapshot.looks[0].ledger[0];
            entry.cgroup_path = path.into();
            edit(entry);
            let row = rows(&snapshot, &here()).remove(0);
            (row.cgroup.to_str().unwrap().to_owned(), row.cgroup_elsewhere)
        };
        let path = "/sys/fs/cgroup/app";
        assert_eq!(shown(path, &|_| ()), ("/app".to_owned(), false));
        let elsewhere = (path.to_owned(), true);
        assert_eq!(shown(path, &|entry| entry.cgroup_namespace += 1), elsewhere);
        assert_eq!(shown(path, &|entry| entry.cgroup_top = Some(CgroupId(40))), elsewhere);
        assert_eq!(shown(path, &|entry| entry.cgroup_top = None), elsewhere);
        // One mount that is visible here, and one that is not.
        let of_40 = |entry: &mut Entry| entry.cgroup_top = Some(CgroupId(40));
        assert_eq!(shown("/mnt/app", &of_40), ("/mnt/app".to_owned(), false));
        assert_eq!(shown("/run/app", &of_40), ("/run/app".to_owned(), true));
    }

    #[test]
    fn what_is_attached_or_of_another_boot_does_not_wait() {
        let mut attached = recorded();
        attached.looks[0].removed_cgroups.clear();
        assert!(rows(&attached, &here()).is_empty());
        let mut other = recorded();
        other.host.host.boot_id = "another".to_owned();
        assert!(rows(&other, &here()).is_empty());
    }

    #[test]
    fn a_living_owner_says_itself_that_it_waits() {
        let mut snapshot = recorded();
        let look = &mut snapshot.looks[0];
        look.removed_cgroups.clear();
        (look.ledger[0].persist, look.ledger[0].waiting) = (false, true);
        assert!(rows(&snapshot, &here()).is_empty(), "it is dead");
        snapshot.looks[0].owners[0].alive = Some(true);
        let rows = rows(&snapshot, &here());
        assert_eq!((rows.len(), rows[0].attach), (1, Mode::Link));
    }

    /// Returns how many throttles wait and how many are detached after a change to the look. The cgroup exists.
    fn seen(edit: impl Fn(&mut Look)) -> (usize, usize) {
        let mut snapshot = recorded();
        snapshot.looks[0].removed_cgroups.clear();
        edit(&mut snapshot.looks[0]);
        let rows = rows(&snapshot, &here());
        (rows.len(), detached(&snapshot, &here(), &rows).len())
    }

    #[test]
    fn what_was_never_finished_or_is_being_removed_is_neither_detached_nor_does_it_wait() {
        assert_eq!(seen(|_| ()), (0, 1));
        for stage in [Stage::Intent, Stage::Removing] {
            assert_eq!(seen(|look| look.ledger[0].stage = stage), (0, 0), "{stage:?}");
        }
    }

    /// A process armed it again and died half way.
    #[test]
    fn a_pinned_throttle_that_is_recorded_to_wait_does_although_its_cgroup_is_there() {
        assert_eq!(seen(|look| look.ledger[0].waiting = true), (1, 0));
    }

    #[test]
    fn who_is_not_known_to_be_dead_may_wait() {
        let owned = |edit: &dyn Fn(&mut Look)| {
            seen(|look| {
                (look.ledger[0].persist, look.ledger[0].waiting) = (false, true);
                edit(look);
            })
        };
        assert_eq!(owned(&|_| ()), (0, 0), "it is dead");
        assert_eq!(owned(&|look| look.owners[0].alive = None), (1, 0));
        assert_eq!(owned(&|look| look.owners.clear()), (1, 0));
        // The dead process is another one with the same pid.
        assert_eq!(owned(&|look| look.owners[0].owner.pid_namespace += 1), (1, 0));
        assert_eq!(owned(&|look| look.owners[0].owner.start_time += 1), (1, 0));
    }

    #[test]
    fn nothing_is_said_to_be_detached_where_what_is_attached_could_not_all_be_seen() {
        for about in [Subject::Cgroups, Subject::Programs, Subject::Links] {
            let gap = Gap { about, what: "x".to_owned(), why: "y".to_owned() };
            assert_eq!(seen(|look| look.coverage.gaps.push(gap.clone())), (0, 0), "{about:?}");
        }
    }
}
