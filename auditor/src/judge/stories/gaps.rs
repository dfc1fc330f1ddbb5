//! Tests that a missing fact prevents both a judgement and a step.

use crate::actions::plan;
use crate::facts::{Snapshot, Subject};
use crate::judge::Finding::{
    Active, DefunctLink, OrphanedAttachment, OrphanedPin, StackedDuplicate, Unknown,
    UnreachableProgram,
};
use crate::judge::{Verdict, classify};
use crate::story::*;

/// Checks that a gap turns the leak into `Unknown` (or `Active`, for the one attachment that is meant) without a step.
fn is_not_judged(mut host: Snapshot, about: Subject) {
    assert_eq!(classify(&host).verdict, Verdict::Leaks, "without a gap it is a leak");
    host.gap(about);
    let classified = classify(&host);
    assert_eq!(classified.verdict, Verdict::Incomplete, "{:?}", classified.leaks().next());
    let is_told = |finding: &_| matches!(finding, Active | Unknown);
    assert!(attachments(&host).iter().all(is_told), "{:?}", attachments(&host));
    assert_eq!(programs(&host), []);
    assert!(classified.gaps.len() > 1, "what is not judged is named");
    assert!(classified.gaps.iter().all(|gap| gap.about == about), "{:?}", classified.gaps);
    assert_eq!(plan(&classified), []);
}

/// Returns a host with a dead owner's program 41 on cgroup A through link 11.
fn linked() -> Snapshot {
    let mut host = orphan();
    host.link(11, 41, A, IN);
    host
}

fn pinned() -> Snapshot {
    let mut host = linked();
    host.pin("/sys/fs/bpf/x", link(11));
    host
}

#[test]
fn without_the_whole_ledger_a_pin_may_be_meant() {
    assert_eq!(attachments(&pinned()), [OrphanedPin]);
    is_not_judged(pinned(), Subject::Ledger);
    let mut host = pinned();
    host.gap(Subject::Ledger);
    let classified = classify(&host);
    let why = &classified.gaps[1].why;
    assert!(why.starts_with("not to be judged: the ledger cannot be read"), "{why}");
    let listed = classified.attachments.last().unwrap();
    assert!(listed.reason.contains("not to be judged"), "{}", listed.reason);
    assert_eq!(listed.pins.len(), 1);
}

#[test]
fn without_the_whole_ledger_the_pin_of_a_program_may_be_meant() {
    let mut nowhere = orphan();
    nowhere.look().attachments.pop();
    nowhere.pin("/sys/fs/bpf/x", program(41));
    assert_eq!(programs(&nowhere), [OrphanedPin]);
    is_not_judged(nowhere, Subject::Ledger);
    let mut legacy = orphan();
    legacy.pin("/sys/fs/bpf/x", program(41));
    is_not_judged(legacy, Subject::Ledger);
}

#[test]
fn without_the_whole_ledger_a_link_that_something_out_of_sight_holds_may_be_meant() {
    assert_eq!(attachments(&linked()), [UnreachableProgram]);
    is_not_judged(linked(), Subject::Ledger);
}

#[test]
fn without_the_whole_ledger_which_of_two_links_is_meant_is_unknown() {
    let mut host = linked();
    host.look().owners[0].alive = Some(true);
    host.attach(41, A, IN);
    host.link(12, 41, A, IN);
    assert_eq!(attachments(&host), [StackedDuplicate, Active]);
    is_not_judged(host, Subject::Ledger);
}

#[test]
fn a_record_changes_nothing_about_a_legacy_attachment_without_a_pin_or_a_defunct_link() {
    let mut legacy = orphan();
    legacy.gap(Subject::Ledger);
    assert_eq!(attachments(&legacy), [OrphanedAttachment]);

    // The defunct link attaches nothing, whatever the ledger says. Only the program's own pin may be meant.
    let mut defunct = orphan();
    defunct.look().attachments.pop();
    defunct.link(11, 41, 0, IN);
    defunct.pin("/sys/fs/bpf/x", link(11));
    defunct.pin("/sys/fs/bpf/y", program(41));
    defunct.gap(Subject::Ledger);
    assert_eq!(programs(&defunct), [DefunctLink]);
    assert_eq!(plan(&classify(&defunct)).len(), 1);
}

#[test]
fn without_the_list_of_links_nothing_attached_is_judged() {
    is_not_judged(orphan(), Subject::Links);

    let mut stacked = host();
    stacked.program(41, None);
    stacked.attach(41, A, IN);
    stacked.attach(41, A, IN);
    stacked.hold(99, &[program(41)]);
    assert_eq!(attachments(&stacked), [StackedDuplicate, Active]);
    is_not_judged(stacked, Subject::Links);

    let mut disarmed = orphan();
    disarmed.look().owners[0].alive = Some(true);
    disarmed.look().attachments.last_mut().unwrap().state = Some(state(false));
    is_not_judged(disarmed, Subject::Links);

    let mut nowhere = orphan();
    nowhere.look().attachments.pop();
    is_not_judged(nowhere, Subject::Links);
}

#[test]
fn a_gap_says_what_to_do_where_more_rights_or_another_place_would_close_it() {
    let ends_with = |host: &Snapshot, end: &str| {
        let why = classify(host).gaps.pop().unwrap().why;
        assert!(why.ends_with(end), "{why}");
    };
    let mut unnamed = host();
    unnamed.program(41, None);
    unnamed.attach(41, A, IN);
    unnamed.gap(Subject::Processes);
    ends_with(&unnamed, "could be looked at; run the audit as root, outside of any pid namespace");

    let mut untold = orphan();
    untold.look().owners[0].alive = None;
    untold.gap(Subject::Processes);
    ends_with(
        &untold,
        "whether its owner, process 4711 of another pid or time namespace, lives cannot be told from here; \
         run the audit on the host, as root",
    );

    let mut unread = linked();
    unread.gap(Subject::Ledger);
    ends_with(&unread, "may have it as meant to stay");
}

#[test]
fn what_somebody_stands_for_is_judged_whatever_could_not_be_seen() {
    let mut host = orphan();
    host.look().owners[0].alive = Some(true);
    host.gap(Subject::Links);
    let classified = classify(&host);
    assert_eq!(classified.gaps.len(), 1);
    let reason = &classified.attachments.last().unwrap().reason;
    assert_eq!(reason, "attached the legacy way; its owner, process 4711, lives");
}

#[test]
fn without_a_look_into_every_process_one_without_metadata_may_have_an_owner() {
    let mut unnamed = host();
    unnamed.program(41, None);
    unnamed.attach(41, A, IN);
    is_not_judged(unnamed.clone(), Subject::Processes);
    unnamed.gap(Subject::HiddenProcesses);
    assert_eq!(attachments(&unnamed), [OrphanedAttachment], "one process that hides is no reason");

    let mut dead = orphan();
    dead.gap(Subject::Processes);
    assert_eq!(attachments(&dead), [OrphanedAttachment], "its owner is known to be dead");

    let mut recorded = host();
    recorded.program(41, None);
    recorded.attach(41, A, IN);
    recorded.record(&owner(4711), 41, A).persist = false;
    recorded.owner_lives(&owner(4711), Some(false));
    recorded.gap(Subject::Processes);
    assert_eq!(attachments(&recorded), [OrphanedAttachment], "the ledger's is known to be dead");
}

#[test]
fn without_a_look_into_every_process_a_visible_holder_may_not_be_the_only_one() {
    let mut host = host();
    for id in [41, 42] {
        host.program(id, None);
        host.attach(id, A, IN);
    }
    host.hold(99, &[program(41), program(42)]);
    assert_eq!(attachments(&host), [StackedDuplicate, Active]);
    is_not_judged(host, Subject::Processes);

    let mut idle = crate::story::host();
    idle.program(41, None);
    idle.hold(99, &[program(41)]);
    is_not_judged(idle, Subject::Processes);
}

#[test]
fn without_every_pin_a_link_without_a_visible_holder_is_not_judged() {
    is_not_judged(linked(), Subject::Pins);
    // Holders and pins of the program do not keep the link.
    let mut beside = linked();
    beside.hold(99, &[program(41)]);
    beside.pin("/sys/fs/bpf/x", program(41));
    is_not_judged(beside, Subject::Pins);

    let mut held = linked();
    held.hold(99, &[link(11)]);
    held.gap(Subject::Pins);
    assert_eq!(attachments(&held), [OrphanedAttachment]);

    let mut nowhere = orphan();
    nowhere.look().attachments.pop();
    is_not_judged(nowhere, Subject::Pins);
}

#[test]
fn without_what_programs_say_of_themselves_one_without_metadata_may_have_an_owner() {
    let mut unnamed = host();
    unnamed.program(41, None);
    unnamed.attach(41, A, IN);
    is_not_judged(unnamed, Subject::Programs);
}

/// Checks that a hidden fact is a gap if a finding would need it, and only then.
fn counts_only_where_it_matters(hidden: Subject, would_be: &Snapshot, about: Subject) {
    let mut host = would_be.clone();
    host.gap(hidden);
    assert_eq!(classify(would_be).verdict, Verdict::Leaks);
    let classified = classify(&host);
    assert_eq!(classified.verdict, Verdict::Incomplete);
    let subjects: Vec<_> = classified.gaps.iter().map(|gap| gap.about).collect();
    assert_eq!(subjects, [hidden, about], "the cause is named, and what is not judged for it");
    assert_eq!(plan(&classified), []);

    // A legacy attachment needs neither a pin nor a record.
    let mut legacy = orphan();
    legacy.gap(hidden);
    let classified = classify(&legacy);
    assert_eq!((classified.verdict, &classified.gaps[..]), (Verdict::Leaks, &[][..]));
    let mut nothing = crate::story::host();
    nothing.gap(hidden);
    assert_eq!(classify(&nothing).verdict, Verdict::Clean);
}

#[test]
fn pins_that_are_out_of_sight_matter_to_what_nothing_visible_keeps() {
    assert_eq!(attachments(&linked()), [UnreachableProgram]);
    counts_only_where_it_matters(Subject::HiddenPins, &linked(), Subject::Pins);
    // A visible pin keeps the program, so hidden pins do not matter.
    let mut host = pinned();
    host.gap(Subject::HiddenPins);
    assert_eq!(attachments(&host), [OrphanedPin]);
}

#[test]
fn a_ledger_that_is_out_of_sight_matters_to_what_is_pinned() {
    assert_eq!(attachments(&pinned()), [OrphanedPin]);
    counts_only_where_it_matters(Subject::HiddenLedger, &pinned(), Subject::Ledger);
}

#[test]
fn pins_that_are_out_of_sight_do_not_matter_to_a_program_whose_link_to_a_device_is_seen_to_be_held()
{
    let mut host = host();
    let owner = owner(4711);
    host.device_program(43, &owner);
    host.owner_lives(&owner, Some(false));
    host.device_link(12, 43, 7);
    host.gap(Subject::HiddenPins);
    assert_eq!(programs(&host), []);
    host.hold(99, &[link(12)]);
    assert_eq!(programs(&host), [OrphanedAttachment]);
}

#[test]
fn a_link_that_is_being_made_is_no_gap() {
    let mut host = host();
    host.look().coverage.changing_links.push(kernel::LinkId(12));
    let classified = classify(&host);
    assert_eq!((classified.verdict, classified.gaps), (Verdict::Clean, vec![]));
}

#[test]
fn what_a_link_that_is_being_made_may_attach_is_still_changing_and_no_leak() {
    let mut host = orphan();
    assert_eq!(classify(&host).verdict, Verdict::Leaks);
    let look = host.looks[0].clone();
    host.looks.push(look);
    for looks in [2, 1] {
        host.looks.truncate(looks);
        host.look().coverage.changing_links = vec![kernel::LinkId(12)];
        let classified = classify(&host);
        assert_eq!((classified.verdict, plan(&classified)), (Verdict::Incomplete, vec![]));
        assert!(
            classified.gaps[0].why.starts_with("still changing after "),
            "{:?}",
            classified.gaps
        );
    }
    // A link that somebody is making does not explain an attachment of a known link.
    let mut host = linked();
    host.hold(7, &[link(11)]);
    host.look().coverage.changing_links = vec![kernel::LinkId(12)];
    assert_eq!(classify(&host).verdict, Verdict::Leaks);
}
