//! Tests the results for cgroups that cannot be queried.

use std::os::fd::AsFd;

use kernel::list::{AttachFlags, AttachedProgram, attach};
use kernel::{Program, ProgramId};
use testkit::cgroup::ScratchCgroup;

use super::*;
use crate::collect::host::Clock;
use crate::judge::Ours;

fn told(errnos: &[Errno]) -> Coverage {
    let (ours, _) = Ours::new(&[]);
    let clock = Clock::now(0).unwrap();
    let mut programs = Programs::new(&ours, &clock);
    let types = [AttachType::INET_INGRESS];
    let mut attachments = Attachments::new(&types, false, &mut programs);
    for &errno in errnos {
        attachments.fail(Path::new("/a"), errno);
    }
    attachments.into_facts().1
}

#[test]
fn a_cgroup_that_vanished_is_counted_and_is_no_gap() {
    let coverage = told(&[Errno::ENOENT, Errno::ENODEV]);
    assert_eq!((coverage.cgroups_vanished, coverage.cgroups_denied), (2, 0));
    assert_eq!(coverage.gaps, []);
}

#[test]
fn a_denied_cgroup_is_a_gap() {
    let coverage = told(&[Errno::EACCES, Errno::EPERM]);
    assert_eq!((coverage.cgroups_vanished, coverage.cgroups_denied), (0, 2));
    assert_eq!(coverage.gaps.len(), 2);
    assert_eq!(coverage.gaps[0].about, Subject::Cgroups);
    assert_eq!(coverage.gaps[0].what, "/a");
}

#[test]
fn any_other_failure_is_a_gap_too() {
    let coverage = told(&[Errno::EMFILE, Errno::ENOMEM, Errno::EIO]);
    assert_eq!(coverage.gaps.len(), 3);
}

#[test]
fn a_walk_that_stops_is_a_gap_even_where_something_vanished() {
    let (ours, _) = Ours::new(&[]);
    let clock = Clock::now(0).unwrap();
    let mut programs = Programs::new(&ours, &clock);
    let mut attachments = Attachments::new(&[], false, &mut programs);
    attachments.stop(Path::new("/a"), Errno::ENOENT);
    assert_eq!(attachments.into_facts().1.gaps.len(), 1);
}

/// Returns the result after an iterator failed with some attachments found. `then` handles the error.
fn after_a_failed_iterator(
    errno: Errno,
    then: impl FnOnce(&mut Attachments<'_, '_>, &Error),
) -> (Vec<AttachmentFact>, Coverage) {
    let (ours, _) = Ours::new(&[]);
    let clock = Clock::now(0).unwrap();
    let mut programs = Programs::new(&ours, &clock);
    let types = [AttachType::INET_INGRESS];
    let mut attachments = Attachments::new(&types, false, &mut programs);
    attachments.found.push(AttachmentFact {
        cgroup: "/a".into(),
        cgroup_id: CgroupId(7),
        attach_type: types[0],
        program_id: ProgramId(1),
        list_flags: 2,
        program_flags: None,
        slots_used: 1,
        state: None,
    });
    attachments.fail(Path::new("/b"), Errno::EACCES);
    attachments.fail(Path::new("/c"), Errno::ENOENT);
    attachments.coverage.cgroups_visited = 3;
    attachments.coverage.changing_lists = 1;
    then(&mut attachments, &Error::new(Call::Iterate, "the iterator", errno));
    attachments.into_facts()
}

#[test]
fn what_a_failed_iterator_found_does_not_count_beside_what_is_asked_for_instead() {
    for (errno, notes) in [(Errno::EAGAIN, 1), (Errno::EPERM, 0), (Errno::EOPNOTSUPP, 0)] {
        let (found, mut coverage) = after_a_failed_iterator(errno, |it, error| {
            it.do_without_iterator(error);
        });
        assert_eq!(found, []);
        assert_eq!(coverage.notes.len(), notes, "{errno}");
        coverage.notes.clear();
        let attach_types = vec![AttachType::INET_INGRESS];
        assert_eq!(coverage, Coverage { attach_types, ..Coverage::default() });
    }
}

#[test]
fn what_a_failed_iterator_found_does_not_count_where_nothing_is_asked_for_instead() {
    let (found, coverage) = after_a_failed_iterator(Errno::EAGAIN, |it, error| {
        it.cannot_iterate(error);
    });
    assert_eq!(found, []);
    assert_eq!((coverage.cgroups_visited, coverage.changing_lists), (0, 0));
    assert_eq!(coverage.gaps.len(), 1, "the iterator itself");
}

#[test]
fn root_a_list_of_which_a_program_has_gone_is_not_kept() {
    let (ours, _) = Ours::new(&[]);
    let clock = Clock::now(0).unwrap();
    let mut programs = Programs::new(&ours, &clock);
    let types = [AttachType::INET_INGRESS];
    let mut attachments = Attachments::new(&types, false, &mut programs);
    let here = Program::load_pass("chadtest_list", types[0]).unwrap();
    let gone = ProgramId(2_000_000_000);
    let mut list = ProgramList::default();
    for id in [here.info().id, gone] {
        list.programs.push(AttachedProgram { id, flags: None });
    }
    assert!(!attachments.read(&list, CgroupId(7), Path::new("/a"), types[0]));
    list.programs.pop();
    assert!(attachments.read(&list, CgroupId(7), Path::new("/a"), types[0]));
    let (found, coverage) = attachments.into_facts();
    assert_eq!(found.len(), 1);
    assert_eq!(coverage.gaps, []);
}

#[test]
fn root_of_a_list_that_changes_each_time_what_is_there_counts_and_it_is_no_gap() {
    let (ours, _) = Ours::new(&[]);
    let clock = Clock::now(0).unwrap();
    let mut programs = Programs::new(&ours, &clock);
    let types = [AttachType::INET_INGRESS];
    let mut attachments = Attachments::new(&types, false, &mut programs);
    let here = Program::load_pass("chadtest_list", types[0]).unwrap();
    let mut list = ProgramList::default();
    for id in [ProgramId(2_000_000_000), here.info().id] {
        list.programs.push(AttachedProgram { id, flags: None });
    }
    attachments.read_the_rest(list, CgroupId(7), Path::new("/a"), types[0]);
    let (found, coverage) = attachments.into_facts();
    let found: Vec<ProgramId> = found.iter().map(|it| it.program_id).collect();
    assert_eq!(found, [here.info().id]);
    assert_eq!((coverage.changing_lists, coverage.gaps), (1, vec![]));
}

/// Returns an attachment that was found before a failure.
fn fact() -> AttachmentFact {
    AttachmentFact {
        cgroup: "/a".into(),
        cgroup_id: CgroupId(7),
        attach_type: AttachType::INET_INGRESS,
        program_id: ProgramId(41),
        list_flags: 0,
        program_flags: None,
        slots_used: 1,
        state: None,
    }
}

#[test]
fn nothing_that_a_failed_iterator_has_found_counts_and_only_a_gap_or_a_note_is_left_of_it() {
    let (ours, _) = Ours::new(&[]);
    let clock = Clock::now(0).unwrap();
    let types = [AttachType::INET_INGRESS];
    let failed = |errno| Error::new(Call::Iterate, "the iterator", errno);
    // Whether the user named the iterator, the error, and the expected numbers of gaps and notes.
    let cases = [
        (true, Errno::ENOMEM, 1, 0),
        (true, Errno::EPERM, 1, 0),
        (false, Errno::ENOMEM, 0, 1),
        (false, Errno::EPERM, 0, 0),
    ];
    for (is_asked, errno, gaps, notes) in cases {
        let mut programs = Programs::new(&ours, &clock);
        let mut attachments = Attachments::new(&types, false, &mut programs);
        attachments.found.push(fact());
        attachments.coverage.cgroups_visited = 3;
        attachments.fail(Path::new("/a"), Errno::EACCES);
        if is_asked {
            attachments.cannot_iterate(&failed(errno));
        } else {
            attachments.do_without_iterator(&failed(errno));
        }
        let (found, coverage) = attachments.into_facts();
        assert_eq!(found, []);
        assert_eq!((coverage.gaps.len(), coverage.notes.len()), (gaps, notes), "{errno}");
        assert_eq!((coverage.cgroups_visited, coverage.cgroups_denied), (0, 0));
        assert_eq!(coverage.attach_types, types);
    }
}

#[test]
fn a_look_that_continues_one_counts_what_both_could_not_see_once() {
    let named = |about, what: &str| Gap { about, what: what.to_owned(), why: "denied".to_owned() };
    let known = [named(Subject::Cgroups, "known")];
    let own = named(Subject::Cgroups, "/now");
    let earlier = [
        known[0].clone(),
        named(Subject::Cgroups, "/before"),
        // Each look reads programs anew.
        named(Subject::Programs, "program 1"),
    ];
    let counts = |visited, others| Coverage {
        cgroups_visited: visited,
        cgroups_vanished: others,
        cgroups_denied: others,
        changing_lists: others,
        ..Coverage::default()
    };
    let before = Coverage { gaps: earlier.to_vec(), ..counts(10, 1) };
    let mut now = Coverage { gaps: vec![own.clone(), known[0].clone()], ..counts(2, 3) };
    now.continue_from(&before, &known);
    let gaps = vec![own, known[0].clone(), earlier[1].clone()];
    assert_eq!(now, Coverage { gaps, ..counts(10, 4) });
}

#[test]
fn what_could_not_be_read_each_time_that_it_was_tried_is_one_gap() {
    let (ours, _) = Ours::new(&[]);
    let clock = Clock::now(0).unwrap();
    let mut programs = Programs::new(&ours, &clock);
    let error = Error::new(Call::MapLookup, "state", Errno::EPERM);
    for what in ["program 1", "program 2", "program 1"] {
        programs.miss(gap(Subject::Programs, what, &error));
    }
    let gaps = programs.into_facts().1;
    let what: Vec<_> = gaps.iter().map(|gap| &*gap.what).collect();
    assert_eq!(what, ["program 1", "program 2"]);
}

#[test]
fn root_a_cgroup_whose_lists_changed_since_the_iterator_met_it_counts_once_as_it_is_now() {
    let cgroup = ScratchCgroup::new("changed");
    let open = Cgroup::open(cgroup.path()).unwrap();
    let (ours, _) = Ours::new(&[]);
    let clock = Clock::now(0).unwrap();
    let mut programs = Programs::new(&ours, &clock);
    let types = [AttachType::INET_INGRESS, AttachType::INET_EGRESS];
    let mut attachments = Attachments::new(&types, false, &mut programs);
    let here = Program::load_pass("chadtest_list", types[0]).unwrap();
    attach(here.as_fd(), &open, types[0], AttachFlags::MULTI, None).unwrap();
    let list = |id| {
        let programs = vec![AttachedProgram { id, flags: None }];
        ProgramList { programs, ..ProgramList::default() }
    };
    let id = here.info().id;
    let met = [(types[0], list(id)), (types[1], list(ProgramId(2_000_000_000)))].into();
    assert!(!attachments.keep(&met, &open, Path::new("/changed")));
    let (found, coverage) = attachments.into_facts();
    let found: Vec<_> = found.iter().map(|it| (it.attach_type, it.program_id)).collect();
    assert_eq!(found, [(types[0], id)]);
    assert_eq!((coverage.cgroups_visited, coverage.gaps), (1, vec![]));
}

#[test]
fn where_nobody_may_ask_no_cgroup_counts_as_visited() {
    let (ours, _) = Ours::new(&[]);
    let clock = Clock::now(0).unwrap();
    let mut programs = Programs::new(&ours, &clock);
    let mut attachments = Attachments::new(&[], false, &mut programs);
    let folder = std::fs::File::open("/").unwrap();
    attachments.visit(folder.as_fd(), CgroupId(1), Path::new("/"));
    let coverage = attachments.into_facts().1;
    assert_eq!((coverage.cgroups_visited, coverage.cgroups_denied), (0, 1));
}
