use bpf::Owner;
use bpf::ledger::Stage;
use kernel::{CgroupId, ProgramId};

use super::*;

type Edit<'a> = &'a dyn Fn(&mut Entry);

/// Creates a snapshot with attachments of one load: both directions on one cgroup, and a download on another.
fn active() -> Snapshot {
    serde_json::from_str(include_str!("../../auditor/tests/snapshots-in/active.json")).unwrap()
}

/// Creates a snapshot with a pinned and recorded throttle.
fn pinned() -> Snapshot {
    serde_json::from_str(include_str!("../../auditor/tests/snapshots-in/pinned.json")).unwrap()
}

fn ids(snapshot: &Snapshot) -> Vec<Option<String>> {
    throttles(snapshot).rows.into_iter().map(|row| row.id).collect()
}

#[test]
fn what_is_attached_is_listed_with_the_id_of_its_record() {
    let found = throttles(&pinned());
    let [row] = &found.rows[..] else { panic!("{found:?}") };
    assert_eq!((row.id.as_deref(), row.direction), (Some("nginx"), Direction::Download));
    assert_eq!((row.attach, row.finding), (Mode::Pinned, Some(Finding::Pinned)));
    assert_eq!((row.owner_alive, row.rate_bytes_per_second), (Some(false), 125_000));
    assert_eq!(row.burst_ms.to_string(), "20");
    assert!(found.leaked == 0 && found.unreadable == 0 && found.gaps.is_empty());
}

/// A record belongs to another attachment if the cgroup or the program differs, even if only the number is the same.
#[test]
fn an_attachment_has_no_id_of_a_record_that_is_not_its_own() {
    let with = |edit: &dyn Fn(&mut Entry)| {
        let mut snapshot = pinned();
        edit(&mut snapshot.looks[0].ledger[0]);
        ids(&snapshot)
    };
    let own = with(&|_| ());
    assert_eq!(own, [Some("nginx".to_owned())]);
    assert_eq!(with(&|entry| entry.stage = Stage::Intent), own, "it is what its owner was making");
    let others: [(&str, Edit<'_>); 5] = [
        ("cgroup", &|entry| entry.cgroup_id = CgroupId(4_822)),
        ("attach type", &|entry| entry.attachments[0].attach_type = AttachType::INET_EGRESS),
        ("program", &|entry| entry.attachments[0].program_id = ProgramId(42)),
        ("tag", &|entry| entry.attachments[0].tag.replace_range(..1, "0")),
        ("load time", &|entry| entry.attachments[0].loaded_at_ns += 1),
    ];
    for (what, edit) in others {
        assert_eq!(with(edit), [None], "another {what}");
    }
}

/// The service restarted while sockets of its old cgroup were open. The old record waits, and the new attachment of the
/// same program has no record.
#[test]
fn the_record_of_the_cgroup_before_is_not_the_new_attachments() {
    let mut snapshot = pinned();
    let look = &mut snapshot.looks[0];
    let waiting = Entry {
        throttle: "former".to_owned(),
        cgroup_id: CgroupId(4_000),
        waiting: true,
        persist: false,
        ..look.ledger[0].clone()
    };
    look.ledger.insert(0, waiting);
    assert_eq!(ids(&snapshot), [Some("nginx".to_owned())], "whichever is first");
    snapshot.looks[0].ledger.remove(1);
    assert_eq!(ids(&snapshot), [None]);
}

#[test]
fn each_direction_and_each_cgroup_is_a_row_of_its_own() {
    let found = throttles(&active());
    let rows: Vec<_> = found
        .rows
        .iter()
        .map(|row| (row.cgroup.file_name().unwrap().to_str().unwrap(), row.direction))
        .collect();
    let (down, up) = (Direction::Download, Direction::Upload);
    let expected = [("firefox.scope", down), ("firefox.scope", up), ("nginx.service", down)];
    assert_eq!(rows, expected);
    let owner = |row: &Row| (row.owner_pid, row.owner_alive);
    assert!(found.rows.iter().all(|row| owner(row) == (Some(4_711), Some(true))));
    assert!(found.rows.iter().all(|row| row.id.is_none() && row.attach == Mode::Link));
}

/// A pid alone does not identify an owner.
#[test]
fn whether_an_owner_lives_is_said_of_that_owner_alone() {
    let mut snapshot = active();
    let fact = snapshot.looks[0].owners[0].clone();
    let other = Owner { pid_namespace: 7, ..fact.owner.clone() };
    snapshot.looks[0].owners[0].owner = other;
    let mut dead = fact;
    dead.owner.start_time += 1;
    dead.alive = Some(false);
    snapshot.looks[0].owners.push(dead);
    let rows = throttles(&snapshot).rows;
    assert!(rows.iter().all(|row| row.owner_alive.is_none()), "{rows:?}");
}

/// One load serves both directions of a cgroup and another cgroup, where the throttle polices TCP.
#[test]
fn tcp_is_shaped_where_its_program_is_on_the_same_cgroup_and_of_the_same_load() {
    let shaped = |cgroup_id: u64, map: u32| -> Vec<bool> {
        let mut snapshot = active();
        let look = &mut snapshot.looks[0];
        let like = look.attachments.iter().find(|it| it.program_id.0 == 41).unwrap().clone();
        let mut program = look.programs.iter().find(|it| it.loaded.id.0 == 41).unwrap().clone();
        program.loaded.id = ProgramId(43);
        program.loaded.name = "chadthrottle_so".to_owned();
        program.loaded.map_ids = vec![kernel::MapId(map)];
        look.programs.push(program);
        let mut tcp = like;
        (tcp.program_id, tcp.attach_type) = (ProgramId(43), AttachType::SOCK_OPS);
        (tcp.cgroup_id, tcp.state) = (CgroupId(cgroup_id), None);
        look.attachments.push(tcp);
        let found = throttles(&snapshot);
        let is_any = found.rows.iter().any(|row| row.tcp == Tcp::Shape);
        assert_eq!(found.unreadable, usize::from(!is_any), "one that goes with no direction");
        found.rows.iter().map(|row| row.tcp == Tcp::Shape).collect()
    };
    // The maps of the download and of the upload.
    assert_eq!(shaped(9_310, 82), [true, false, false]);
    assert_eq!(shaped(9_310, 84), [false, true, false]);
    assert_eq!(shaped(4_821, 82), [false, false, true]);
    assert_eq!(shaped(9_310, 7), [false; 3]);
    assert_eq!(shaped(4_821, 84), [false; 3]);
}

/// The pins may be in a bpffs that is not mounted here, and the record may be lost.
#[test]
fn how_a_throttle_is_attached_its_link_its_pins_and_its_record_tell() {
    let attach = |edit: &dyn Fn(&mut Look)| {
        let mut snapshot = pinned();
        edit(&mut snapshot.looks[0]);
        throttles(&snapshot).rows[0].attach
    };
    let no_record: &dyn Fn(&mut Look) = &|look| look.ledger.clear();
    let no_pins: &dyn Fn(&mut Look) = &|look| look.pins.clear();
    assert_eq!([attach(no_record), attach(no_pins)], [Mode::Pinned; 2]);
    let neither = |look: &mut Look| (no_record(look), no_pins(look)).0;
    assert_eq!(attach(&neither), Mode::Link);
    let not_kept = |look: &mut Look| {
        no_pins(look);
        look.ledger[0].persist = false;
    };
    assert_eq!(attach(&not_kept), Mode::Link);
    assert_eq!(attach(&|look| (neither(look), look.links.clear()).1), Mode::Legacy);
}

/// A guard is no limit, but belongs to one.
#[test]
fn a_guard_is_no_throttle_and_nothing_that_cannot_be_read() {
    let mut snapshot = active();
    let programs = snapshot.looks[0].programs.iter_mut();
    for program in programs.filter(|it| it.loaded.name.starts_with("chadthrottle")) {
        program.loaded.name = format!("{GUARDS}x");
    }
    let found = throttles(&snapshot);
    assert_eq!((found.rows.len(), found.unreadable, found.leaked), (0, 0, 0));
}

#[test]
fn leaks_of_every_kind_are_counted() {
    for (snapshot, leaked) in [
        (include_str!("../../auditor/tests/snapshots-in/active.json"), 0),
        (include_str!("../../auditor/tests/snapshots-in/waiting.json"), 0),
        (include_str!("../../auditor/tests/snapshots-in/orphaned_device.json"), 1),
        (include_str!("../../auditor/tests/snapshots-in/orphaned_pin.json"), 1),
        (include_str!("../../auditor/tests/snapshots-in/orphaned_attachment.json"), 3),
    ] {
        let found = throttles(&serde_json::from_str(snapshot).unwrap());
        assert_eq!(found.leaked, leaked);
    }
}
