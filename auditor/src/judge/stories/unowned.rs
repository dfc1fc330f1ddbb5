//! Tests that a program without a known owner is never a leak, and that the report says what is known.

use crate::actions::plan;
use crate::facts::{Snapshot, Subject};
use crate::judge::Finding::{self, Active, OrphanedAttachment, Unowned};
use crate::judge::{Verdict, classify};
use crate::story::*;

fn reasons(host: &Snapshot) -> Vec<String> {
    classify(host).unowned().map(|judged| judged.reason.clone()).collect()
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
    named.look().programs.last_mut().unwrap().loaded.name = "chadthrottle_in".into();
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
    // A record must match the program itself: not an earlier program with the id, and not an earlier boot.
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
        // With a visible holder, or with nothing unowned, there is nothing to add.
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
