use std::fs;

use bpf::Owner;
use bpf::ledger::{RecordedAttachment, SCHEMA_VERSION, Stage};
use kernel::{AttachType, CgroupId, LinkId, ProgramId};
use tempfile::TempDir;

use super::*;

fn entry(name: &str) -> Entry {
    Entry {
        schema_version: SCHEMA_VERSION,
        throttle: name.to_owned(),
        owner: Owner {
            pid: 7,
            start_time: 1,
            pid_namespace: 1,
            boot_id: "b".to_owned(),
            version: "0".to_owned(),
        },
        stage: Stage::Intent,
        persist: true,
        cgroup_path: "/sys/fs/cgroup/a b\n".into(),
        cgroup_id: CgroupId(5),
        attachments: Vec::new(),
        waiting: false,
        cgroup_namespace: 0,
        cgroup_top: None,
        displace: false,
    }
}

fn ledger() -> (TempDir, LedgerDir) {
    let dir = tempfile::tempdir().unwrap();
    let ledger = LedgerDir::new(dir.path().join("ledger"));
    (dir, ledger)
}

#[test]
fn an_entry_comes_back_as_it_was_written() {
    let (_dir, ledger) = ledger();
    let lock = ledger.lock().unwrap();
    ledger.write(&lock, &entry("1")).unwrap();
    let attached = Entry { stage: Stage::Attached, ..entry("1") };
    ledger.write(&lock, &attached).unwrap();
    let found = ledger.read().unwrap();
    assert_eq!(found.entries, [(ledger.path("1"), attached)]);
    assert!(found.unreadable.is_empty());
    ledger.remove(&ledger.path("1")).unwrap();
    ledger.remove(&ledger.path("1")).unwrap();
    assert!(ledger.read().unwrap().entries.is_empty());
}

#[test]
fn an_entry_whose_name_somebody_else_has_taken_is_not_ours() {
    let (_dir, ledger) = ledger();
    let lock = ledger.lock().unwrap();
    let ours = entry("1");
    assert!(!ledger.has(&lock, &ours).unwrap());
    ledger.write(&lock, &ours).unwrap();
    assert!(ledger.has(&lock, &Entry { stage: Stage::Removing, ..ours.clone() }).unwrap());
    let changed = Entry { stage: Stage::Removing, ..ours.clone() };
    assert_eq!(ledger.find(&lock, &changed).unwrap(), Some(ours.clone()));
    let other = Entry { owner: Owner { pid: 8, ..ours.owner.clone() }, ..ours.clone() };
    ledger.write(&lock, &other).unwrap();
    assert!(!ledger.has(&lock, &ours).unwrap());
    assert_eq!(ledger.find(&lock, &ours).unwrap(), None);
    fs::write(ledger.path("1"), "torn").unwrap();
    assert!(ledger.has(&lock, &ours).unwrap());
    assert_eq!(ledger.find(&lock, &ours).unwrap(), None);
}

#[test]
fn what_a_killed_writer_left_is_swept_away_and_nothing_else() {
    let (_dir, ledger) = ledger();
    let lock = ledger.lock().unwrap();
    ledger.write(&lock, &entry("1")).unwrap();
    for name in [".2.json.draft", "notes.txt", "3.json"] {
        fs::write(ledger.dir.join(name), "x").unwrap();
    }
    ledger.sweep(&lock).unwrap();
    let mut names: Vec<_> =
        fs::read_dir(&ledger.dir).unwrap().map(|file| file.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["1.json", "3.json", "lock", "notes.txt"]);
}

#[test]
fn a_ledger_that_nobody_has_written_is_empty() {
    let (_dir, ledger) = ledger();
    assert!(!ledger.exists());
    assert!(ledger.read().unwrap().entries.is_empty());
}

#[test]
fn torn_and_foreign_files_are_told_and_left_alone() {
    let (_dir, ledger) = ledger();
    let lock = ledger.lock().unwrap();
    ledger.write(&lock, &entry("2")).unwrap();
    let whole = fs::read(ledger.path("2")).unwrap();
    let bad: [(&str, &[u8]); 4] = [
        ("1.json", &whole[..whole.len() / 2]),
        ("3.json", b""),
        ("4.json", b"\xff\x00"),
        ("5.json", br#"{"schema_version": 99}"#),
    ];
    for (name, text) in bad {
        fs::write(ledger.dir.join(name), text).unwrap();
    }
    fs::write(ledger.dir.join("notes.txt"), "not the ledger's").unwrap();

    let found = ledger.read().unwrap();
    assert_eq!(found.entries.len(), 1);
    let names: Vec<_> =
        found.unreadable.iter().map(|(path, _)| path.file_name().unwrap().to_owned()).collect();
    assert_eq!(names, ["1.json", "3.json", "4.json", "5.json"]);
    assert!(found.unreadable[3].1.contains("version 99"), "{:?}", found.unreadable[3]);
    // A name with an unreadable file is taken too.
    assert_eq!(ledger.free_name(&lock, |_| false), "6");
    assert_eq!(ledger.free_name(&lock, |name| name == "6"), "7");
}

#[test]
fn two_owners_cannot_hold_the_lock_at_once() {
    let (_dir, ledger) = ledger();
    let lock = ledger.lock().unwrap();
    let folder = ledger.dir.clone();
    let (sender, receiver) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let _lock = LedgerDir::new(folder).lock().unwrap();
        sender.send(()).unwrap();
    });
    assert!(receiver.recv_timeout(std::time::Duration::from_millis(100)).is_err());
    drop(lock);
    receiver.recv_timeout(std::time::Duration::from_secs(5)).unwrap();
    thread.join().unwrap();
}

#[test]
fn a_ledger_that_cannot_be_written_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = LedgerDir::new(file.join("below")).lock().unwrap_err();
    assert!(error.to_string().contains("cannot make the folder"), "{error}");
}

/// A new stage and new fields do not make it another throttle's entry.
#[test]
fn an_entry_is_told_from_another_of_its_name_by_owner_cgroup_and_programs() {
    let (_dir, ledger) = ledger();
    let lock = ledger.lock().unwrap();
    let recorded = |program: u32, attach_type| RecordedAttachment {
        attach_type,
        program_id: ProgramId(program),
        tag: "t".to_owned(),
        loaded_at_ns: 1,
        link_id: None,
        pin: None,
        limits: None,
        former_cgroup: None,
    };
    let (download, upload) = (AttachType::INET_INGRESS, AttachType::INET_EGRESS);
    let attachments = vec![recorded(3, download), recorded(4, upload)];
    let ours = Entry { attachments, ..entry("1") };
    let is_ours = |edit: &dyn Fn(&mut Entry)| {
        let mut found = ours.clone();
        edit(&mut found);
        ledger.write(&lock, &found).unwrap();
        ledger.has(&lock, &ours).unwrap()
    };
    let attach = |it: &mut Entry| {
        it.stage = Stage::Attached;
        it.attachments[0].link_id = Some(LinkId(9));
    };
    let same: [&dyn Fn(&mut Entry); 3] = [&|_| (), &attach, &|it| it.waiting = true];
    for (nth, edit) in same.into_iter().enumerate() {
        assert!(is_ours(edit), "{nth}");
    }
    let others: [&dyn Fn(&mut Entry); 8] = [
        &|it| it.owner.pid += 1,
        &|it| it.owner.start_time += 1,
        &|it| it.owner.pid_namespace += 1,
        &|it| it.owner.boot_id.push('x'),
        &|it| it.cgroup_id = CgroupId(6),
        &|it| it.attachments[0].program_id = ProgramId(5),
        &|it| it.attachments[1].program_id = ProgramId(5),
        &|it| drop(it.attachments.pop()),
    ];
    for (nth, edit) in others.into_iter().enumerate() {
        assert!(!is_ours(edit), "{nth}");
    }
}
