//! Tests which leaks an earlier snapshot makes known.

use crate::facts::{Gap, Subject};
use crate::judge::Verdict;
use crate::story::*;

#[test]
fn what_was_no_leak_then_or_another_program_is_not_known() {
    let mut meant = orphan();
    meant.look().owners.last_mut().unwrap().alive = Some(true);
    assert_eq!(known(&against(&meant, &orphan())), [false]);
    let mut again = orphan();
    again.look().programs.last_mut().unwrap().loaded.loaded_at_ns += 1;
    assert_eq!(known(&against(&orphan(), &again)), [false], "its id was given anew");
    let mut elsewhere = orphan();
    elsewhere.look().attachments.last_mut().unwrap().cgroup_id = kernel::CgroupId(1);
    assert_eq!(known(&against(&orphan(), &elsewhere)), [false]);
}

#[test]
fn a_network_device_is_known_by_its_namespace_and_number() {
    let leaked = |index: u32| {
        let (mut host, owner) = (host(), owner(4711));
        host.owner_lives(&owner, Some(false));
        host.device(&owner).index = index;
        host.look().coverage.network_namespaces = Some(1);
        host
    };
    assert_eq!(known(&against(&leaked(7), &leaked(7))), [true]);
    assert_eq!(known(&against(&leaked(7), &leaked(8))), [false]);
}

#[test]
fn a_baseline_of_another_boot_knows_nothing_and_says_so() {
    let mut before = orphan();
    before.host.host.boot_id = "another".into();
    for owner in &mut before.look().owners {
        owner.owner.boot_id = "another".into();
    }
    let report = against(&before, &orphan());
    assert_eq!((report.verdict, known(&report)), (Verdict::Leaks, vec![false]));
    let note = report.coverage.notes.last().unwrap();
    assert_eq!(note.what, "the baseline old.json");
    assert!(note.why.contains("another boot"), "{}", note.why);
}

#[test]
fn a_scan_that_saw_not_everything_is_incomplete_though_all_it_saw_is_known() {
    let mut now = two_orphans();
    now.gap(Subject::Cgroups);
    let report = against(&two_orphans(), &now);
    assert_eq!((report.verdict, report.summary.leaked), (Verdict::Incomplete, 0));
}

#[test]
fn a_hidden_process_matters_no_more_where_all_leaks_are_known() {
    let mut now = two_orphans();
    now.gap(Subject::HiddenProcesses);
    let report = against(&orphan(), &now);
    assert_eq!((report.verdict, report.coverage.gaps.len()), (Verdict::Leaks, 1));
    let report = against(&two_orphans(), &now);
    assert_eq!((report.verdict, report.coverage.gaps.len()), (Verdict::Clean, 0));
}

#[test]
fn of_several_looks_the_last_one_says_what_could_not_be_seen() {
    for hidden_in in [[true, false], [false, true], [true, true]] {
        let mut now = two_orphans();
        now.looks.push(now.looks[0].clone());
        for (look, is_hidden) in now.looks.iter_mut().zip(hidden_in) {
            let gap =
                Gap { about: Subject::HiddenProcesses, what: "/x".into(), why: "denied".into() };
            look.coverage.gaps.extend(is_hidden.then_some(gap));
        }
        let some = against(&orphan(), &now);
        assert_eq!(some.coverage.gaps.len(), usize::from(hidden_in[1]), "{hidden_in:?}");
        let all = against(&two_orphans(), &now);
        assert_eq!((all.verdict, all.coverage.gaps.len()), (Verdict::Clean, 0), "{hidden_in:?}");
    }
}
