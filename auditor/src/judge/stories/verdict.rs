//! Tests how single findings lead to a verdict, over one or more looks.

use crate::facts::{Snapshot, Subject};
use crate::judge::Finding::{OrphanedAttachment, Unknown};
use crate::judge::{Finding, Verdict, classify, suspects, unsettled};
use crate::story::recorded;
use crate::story::*;

/// Joins the looks of both into one snapshot.
fn then(before: &Snapshot, after: &Snapshot) -> Snapshot {
    let looks = [before.looks.clone(), after.looks.clone()].concat();
    Snapshot { looks, ..after.clone() }
}

#[test]
fn a_single_look_is_judged_as_it_is() {
    assert_eq!(classify(&orphan()).verdict, Verdict::Leaks);
    assert_eq!(classify(&host()).verdict, Verdict::Clean);
}

#[test]
fn a_suspect_that_stays_is_a_leak() {
    assert_eq!(classify(&then(&orphan(), &orphan())).verdict, Verdict::Leaks);
}

#[test]
fn a_suspect_that_is_gone_is_none() {
    assert_eq!(classify(&then(&orphan(), &host())).verdict, Verdict::Clean);
}

#[test]
fn a_suspect_that_is_new_in_the_last_look_is_a_gap() {
    let snapshot = then(&host(), &orphan());
    let classified = classify(&snapshot);
    assert_eq!(classified.verdict, Verdict::Incomplete);
    assert_eq!(attachments(&snapshot), [Unknown]);
    assert!(classified.gaps[0].why.contains("still changing after 2 looks"));

    let mut idle = host();
    idle.program(41, None);
    let snapshot = then(&host(), &idle);
    assert_eq!(programs(&snapshot), []);
    assert_eq!(classify(&snapshot).verdict, Verdict::Incomplete);
}

#[test]
fn a_leak_of_any_kind_is_still_changing_until_two_looks_have_seen_it() {
    for finding in Finding::ALL.into_iter().filter(|finding| finding.is_leak()) {
        let mut now = recorded(finding.name());
        now.looks.drain(..now.looks.len() - 1);
        let leaks = |snapshot: &Snapshot| {
            let classified = classify(snapshot);
            (classified.leaks().count() + classified.leaked_devices().count(), classified.verdict)
        };
        let (count, verdict) = leaks(&now);
        assert!(count > 0 && verdict == Verdict::Leaks, "{finding}");
        assert_eq!(leaks(&then(&now, &now)), (count, verdict), "{finding}");
        let mut before = now.clone();
        let look = before.look();
        look.attachments.clear();
        look.programs.clear();
        look.devices.clear();
        let gaps = classify(&now).gaps.len();
        let late = then(&before, &now);
        assert_eq!(leaks(&late), (0, Verdict::Incomplete), "{finding}");
        assert_eq!(classify(&late).gaps.len(), gaps + count, "{finding}");
        let all = [&before, &now, &now].map(|it| it.looks.clone()).concat();
        assert_eq!(leaks(&Snapshot { looks: all, ..now.clone() }), (count, verdict), "{finding}");
    }
}

#[test]
fn only_the_look_before_the_last_confirms() {
    let snapshot = then(&then(&orphan(), &host()), &orphan());
    assert_eq!(classify(&snapshot).verdict, Verdict::Incomplete);
}

#[test]
fn a_suspect_at_another_place_is_another_suspect() {
    let mut elsewhere = orphan();
    elsewhere.look().attachments.last_mut().unwrap().attach_type = EG;
    assert_eq!(classify(&then(&elsewhere, &orphan())).verdict, Verdict::Incomplete);
}

#[test]
fn a_suspect_is_the_same_one_only_if_nothing_of_what_makes_it_so_has_changed() {
    type Change = fn(&mut Snapshot);
    let attached = || {
        let mut host = orphan();
        host.link(11, 41, A, IN);
        host.pin("/sys/fs/bpf/x", link(11));
        host
    };
    let changes: [(&str, Change); 5] = [
        ("cgroup", |host| {
            host.look().attachments.last_mut().unwrap().cgroup_id.0 += 1;
            host.look().links.last_mut().unwrap().cgroup_id.0 += 1;
        }),
        ("attach type", |host| {
            host.look().attachments.last_mut().unwrap().attach_type = EG;
            host.look().links.last_mut().unwrap().attach_type = Some(EG);
        }),
        ("program", |host| {
            host.look().programs.last_mut().unwrap().loaded.id.0 += 1;
            host.look().attachments.last_mut().unwrap().program_id.0 += 1;
            host.look().links.last_mut().unwrap().program_id.0 += 1;
        }),
        ("link", |host| {
            host.look().links.last_mut().unwrap().id.0 += 1;
            host.look().pins.last_mut().unwrap().object = link(12);
        }),
        ("pin", |host| host.look().pins.last_mut().unwrap().path = "/sys/fs/bpf/y".into()),
    ];
    assert_eq!(classify(&then(&attached(), &attached())).verdict, Verdict::Leaks);
    for (what, change) in changes {
        let mut before = attached();
        change(&mut before);
        assert_eq!(classify(&before).verdict, Verdict::Leaks, "{what}");
        assert_eq!(classify(&then(&before, &attached())).verdict, Verdict::Incomplete, "{what}");
    }
    let device = || {
        let mut host = host();
        host.owner_lives(&owner(4711), Some(false));
        host.device(&owner(4711));
        host
    };
    let changes: [(&str, Change); 3] = [
        ("namespace", |host| host.look().devices[0].network_namespace += 1),
        ("number", |host| host.look().devices[0].index += 1),
        ("alias", |host| {
            let other = bpf::Owner { version: "0.0.1".into(), ..owner(4711) };
            host.look().devices[0].alias = Some(serde_json::to_string(&other).unwrap());
            host.owner_lives(&other, Some(false));
        }),
    ];
    assert_eq!(classify(&then(&device(), &device())).verdict, Verdict::Leaks);
    for (what, change) in changes {
        let mut before = device();
        change(&mut before);
        assert_eq!(classify(&before).verdict, Verdict::Leaks, "{what}");
        assert_eq!(classify(&then(&before, &device())).verdict, Verdict::Incomplete, "{what}");
    }
}

#[test]
fn a_suspect_that_turns_from_one_finding_to_another_stays_one() {
    let mut disarmed = orphan();
    disarmed.look().owners[0].alive = Some(true);
    disarmed.look().attachments.last_mut().unwrap().state = Some(state(false));
    let snapshot = then(&disarmed, &orphan());
    assert_eq!(attachments(&snapshot), [OrphanedAttachment]);
}

#[test]
fn suspects_are_what_a_look_alone_would_call_leaks() {
    let (orphan, host) = (orphan(), host());
    assert_eq!(suspects(&orphan.looks[0], &orphan.host, &orphan.scope).len(), 1);
    assert_eq!(suspects(&host.looks[0], &host.host, &host.scope).len(), 0);
}

#[test]
fn what_cannot_be_judged_is_no_suspect_but_another_look_may_not_show_it_any_more() {
    let mut doubted = host();
    doubted.program(41, None);
    doubted.gap(Subject::Pins);
    let look = &doubted.looks[0];
    assert_eq!(suspects(look, &doubted.host, &doubted.scope).len(), 0);
    assert_eq!(unsettled(look, &doubted.host, &doubted.scope).len(), 1);
    assert_eq!(classify(&doubted).gaps.len(), 2);
    let orphan = orphan();
    let look = &orphan.looks[0];
    assert_eq!(
        unsettled(look, &orphan.host, &orphan.scope),
        suspects(look, &orphan.host, &orphan.scope)
    );
    assert_eq!(unsettled(&host().looks[0], &host().host, &host().scope).len(), 0);
}

#[test]
fn any_gap_makes_it_incomplete_and_a_leak_wins_over_gaps() {
    for about in
        [Subject::Cgroups, Subject::Programs, Subject::Links, Subject::Pins, Subject::Ledger]
    {
        let mut host = host();
        host.gap(about);
        assert_eq!(classify(&host).verdict, Verdict::Incomplete, "{about:?}");
        // The judgement of a dead owner's unpinned legacy attachment depends only on the links.
        let mut orphan = orphan();
        orphan.gap(about);
        if about == Subject::Links {
            assert_eq!(classify(&orphan).verdict, Verdict::Incomplete);
            continue;
        }
        assert_eq!(classify(&orphan).verdict, Verdict::Leaks, "{about:?}");
        assert_eq!(classify(&orphan).gaps.len(), 1);
    }
}

#[test]
fn a_process_that_hides_its_files_matters_only_where_nobody_answers_for_something() {
    let mut answered = host();
    answered.program(41, Some(&owner(7)));
    answered.owner_lives(&owner(7), Some(true));
    answered.attach(41, A, IN);
    answered.gap(Subject::Processes);
    assert_eq!(classify(&answered).verdict, Verdict::Clean);

    let mut untold = host();
    untold.program(41, Some(&owner(7)));
    untold.owner_lives(&owner(7), None);
    untold.attach(41, A, IN);
    untold.gap(Subject::Processes);
    assert_eq!(classify(&untold).verdict, Verdict::Incomplete);
    assert_eq!(classify(&untold).gaps.len(), 2);

    let mut orphan = orphan();
    orphan.gap(Subject::Processes);
    assert_eq!(classify(&orphan).verdict, Verdict::Leaks);
    assert_eq!(classify(&orphan).gaps.len(), 1);
}

#[test]
fn a_denied_cgroup_makes_it_incomplete_even_without_a_gap() {
    let mut host = host();
    host.look().coverage.cgroups_denied = 3;
    assert_eq!(classify(&host).verdict, Verdict::Incomplete);
    host.gap(Subject::Pins);
    assert_eq!(classify(&host).gaps.len(), 2, "a gap about something else does not name it");
    host.gap(Subject::Cgroups);
    assert_eq!(classify(&host).gaps.len(), 2, "one that names it is not told twice");
}

#[test]
fn nothing_visited_is_never_clean() {
    let mut host = host();
    host.look().coverage.cgroups_visited = 0;
    assert_eq!(classify(&host).verdict, Verdict::Incomplete);
    host.looks.clear();
    assert_eq!(classify(&host).verdict, Verdict::Incomplete);
}

#[test]
fn findings_have_their_names_in_json_and_on_the_command_line() {
    for finding in Finding::ALL {
        assert_eq!(serde_json::to_value(finding).unwrap(), finding.name());
        assert_eq!(finding.name().parse(), Ok(finding));
    }
    assert!("leak".parse::<Finding>().unwrap_err().to_string().contains("orphaned_pin"));
    assert_eq!(Finding::ALL.iter().filter(|finding| finding.is_leak()).count(), 8);
}
