//! What nothing says the owner of is never a leak, and is told with what is known of it.

use crate::common::*;
use auditor::classify::Finding::{self, Active, OrphanedAttachment, Unowned};
use auditor::classify::{Verdict, classify};
use auditor::formats::{Medium, Rendition};
use auditor::plan::plan;
use auditor::report::report;
use auditor::snapshot::{Snapshot, Subject};

fn reasons(host: &Snapshot) -> Vec<String> {
    classify(host).unowned().map(|judged| judged.reason.clone()).collect()
}

fn text(host: &Snapshot) -> String {
    report(host, &classify(host), false).text(Medium::FILE)
}

/// Every way in which it would be a leak if it were ours.
fn situations() -> Vec<(&'static str, Snapshot)> {
    let mut linked = unowned();
    linked.link(11, 41, A, IN);
    let mut pinned = linked.clone();
    pinned.pin("/sys/fs/bpf/acme/fw", link(11));
    let mut held = linked.clone();
    held.hold(99, &[link(11)]);
    let mut twice = unowned();
    twice.attach(41, A, IN);
    twice.hold(99, &[program(41)]);
    let mut older = unowned();
    older.program(42, None).name = "acme_fw".into();
    older.attach(42, A, IN);
    older.hold(99, &[program(41), program(42)]);
    let mut loose = whole(unowned());
    loose.look().attachments.pop();
    let mut defunct = loose.clone();
    defunct.link(11, 41, 0, IN);
    defunct.pin("/sys/fs/bpf/acme/fw", link(11));
    let mut idle = loose.clone();
    idle.hold(99, &[program(41)]);
    vec![
        ("legacy", unowned()),
        ("linked", linked),
        ("pinned", pinned),
        ("held", held),
        ("twice", twice),
        ("older", older),
        ("loose", loose),
        ("defunct", defunct),
        ("idle", idle),
    ]
}

#[test]
fn what_is_anybodys_is_never_a_leak_and_nothing_is_done_about_it() {
    for (what, host) in situations() {
        let classified = classify(&host);
        assert_eq!(classified.verdict, Verdict::Clean, "{what}");
        assert!(classified.unowned().count() > 0, "{what}");
        assert_eq!(plan(&classified), [], "{what}");
    }
}

#[test]
fn a_gap_about_somebodys_program_is_none_of_its_own() {
    for (what, mut host) in situations() {
        for about in [Subject::Pins, Subject::Ledger, Subject::Links, Subject::Programs] {
            host.look().coverage.gaps.clear();
            host.gap(about);
            let classified = classify(&host);
            assert_eq!(classified.gaps.len(), 1, "{what} {about:?}");
            assert!(classified.unowned().count() > 0, "{what} {about:?}");
        }
    }
}

#[test]
fn metadata_a_record_or_a_name_of_ours_makes_it_ours() {
    let mut named = unowned();
    named.scope.programs = vec!["*".into()];
    named.look().programs.last_mut().unwrap().name = "chadthrottle_in".into();
    assert_eq!(attachments(&named), [OrphanedAttachment], "the historical throttle");

    let dead = owner(4711);
    let mut owned = unowned();
    owned.owner_lives(&dead, Some(false));
    owned.look().programs.last_mut().unwrap().owner = Some(dead.clone());
    assert_eq!(attachments(&owned), [OrphanedAttachment], "metadata");

    let mut recorded = unowned();
    recorded.owner_lives(&dead, Some(false));
    recorded.record(&dead, 41, A).persist = false;
    assert_eq!(attachments(&recorded), [OrphanedAttachment], "a record");
    // Of the program itself, not of one that had its id before, or in an earlier boot.
    let record = recorded.look().ledger.last_mut().unwrap();
    record.attachments[0].loaded_at_ns += 1;
    assert_eq!(attachments(&recorded), [Unowned]);
    let record = recorded.look().ledger.last_mut().unwrap();
    record.attachments[0].loaded_at_ns -= 1;
    record.owner.boot_id = "another".into();
    assert_eq!(attachments(&recorded), [Unowned]);

    let mut alive = unowned();
    alive.owner_lives(&dead, Some(true));
    alive.look().programs.last_mut().unwrap().owner = Some(dead);
    assert_eq!(attachments(&alive), [Active]);
}

#[test]
fn what_nobody_asked_for_stays_foreign() {
    let mut host = unowned();
    host.scope.programs = vec!["chadthrottle*".into()];
    assert_eq!(attachments(&host), [Finding::Foreign]);
    assert_eq!(classify(&host).unowned().count(), 0);
}

#[test]
fn the_reason_says_who_holds_it_where_it_is_pinned_and_whether_it_is_in_force() {
    let [(_, legacy), (_, linked), (_, pinned), ..] = &situations()[..] else { panic!() };
    let nobody = "nothing says who made it";
    let loaded = "loaded 2026-11-23T05:26:40Z by uid 0";
    assert_eq!(
        reasons(legacy),
        [format!(
            "{nobody}; attached the legacy way and in force there; {loaded}; no process holds it; not pinned"
        )]
    );
    let linked = &reasons(linked)[0];
    assert!(linked.contains("; attached through link 11 and in force there; "), "{linked}");
    let pinned = &reasons(pinned)[0];
    assert!(pinned.ends_with("no process holds it; pinned as /sys/fs/bpf/acme/fw"), "{pinned}");
}

#[test]
fn the_reason_of_what_is_attached_nowhere_says_so() {
    let of = |name: &str| {
        let (_, host) = situations().into_iter().find(|(what, _)| *what == name).unwrap();
        reasons(&host).remove(0)
    };
    let defunct = of("defunct");
    assert!(defunct.contains("; defunct: link 11 is attached to nothing any more; "), "{defunct}");
    assert!(of("loose").contains("; attached to no cgroup; "), "{}", of("loose"));
    assert!(of("idle").contains("; held by process 99 (somebody); "), "{}", of("idle"));
}

#[test]
fn what_could_not_be_seen_is_not_said_to_be_absent() {
    let mut host = unowned();
    host.gap(Subject::HiddenProcesses);
    host.gap(Subject::HiddenPins);
    let reason = &reasons(&host)[0];
    assert!(reason.contains("no process that could be looked into holds it"), "{reason}");
    assert!(reason.contains("not pinned where it could be seen"), "{reason}");
}

#[test]
fn a_process_that_may_hold_it_is_a_note_and_makes_nothing_incomplete() {
    for about in [Subject::HiddenProcesses, Subject::Processes] {
        let mut host = unowned();
        host.gap(about);
        let classified = classify(&host);
        assert_eq!(classified.verdict, Verdict::Clean);
        let why = &classified.notes.last().unwrap().why;
        assert!(why.ends_with("; it may hold something that is listed as unowned"), "{why}");
        // Where a holder is seen, or nothing is unowned, there is nothing to add.
        host.hold(99, &[program(41)]);
        assert_eq!(classify(&host).notes, []);
    }
}

#[test]
fn a_place_without_room_is_part_of_the_reason() {
    let mut host = unowned();
    for (used, words) in [(64, "the place is full (64"), (48, "the place is nearly full (48")] {
        host.look().attachments.last_mut().unwrap().slots_used = used;
        let reason = &reasons(&host)[0];
        assert!(reason.contains(words), "{reason}");
    }
}

#[test]
fn the_text_lists_it_says_that_it_is_no_leak_and_names_no_command_that_removes_it() {
    for (what, host) in situations() {
        let text = text(&host);
        assert!(text.contains("unowned, and no leak ("), "{what}: {text}");
        assert!(text.contains("find out who made it"), "{what}: {text}");
        for command in ["audit clean", "bpftool", "detach it", "rm /", "unpin", "Remove what"] {
            assert!(!text.contains(command), "{what}: {command}: {text}");
        }
        let count = classify(&host).unowned().count();
        assert!(text.contains(&format!("foreign, {count} unowned")), "{what}: {text}");
    }
}

#[test]
fn a_program_without_a_name_can_be_asked_for() {
    let mut host = unowned();
    host.scope.programs = vec![String::new()];
    assert_eq!(attachments(&host), [Finding::Foreign]);
    host.look().programs.last_mut().unwrap().name.clear();
    assert_eq!(attachments(&host), [Unowned]);
    assert!(text(&host).contains("program 41 (no name) on /cgroup-9310"), "{}", text(&host));
}
