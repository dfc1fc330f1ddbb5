use kernel::list::AttachFlags;
use kernel::{LinkId, ProgramId};
use nix::errno::Errno;

use super::*;

const NONE: AttachFlags = AttachFlags::empty();
const OVERRIDE: AttachFlags = AttachFlags::OVERRIDE;
const MULTI: AttachFlags = AttachFlags::MULTI;

fn program(id: u32) -> Hold {
    Hold::Program(ProgramId(id))
}

fn list(flags: AttachFlags, programs: &[u32]) -> List {
    let mut list = List::default();
    for &id in programs {
        list.attach(program(id), flags, None).unwrap();
    }
    list
}

fn order(effective: &[(u8, Entry)]) -> Vec<Hold> {
    effective.iter().map(|(_, entry)| entry.hold).collect()
}

#[test]
fn a_multi_list_detaches_only_what_is_named() {
    let mut list = list(MULTI, &[1, 2]);
    assert_eq!(list.detach(None), Err(Errno::EINVAL));
    assert_eq!(list.detach(Some(program(3))), Err(Errno::ENOENT));
    assert_eq!(list.detach(Some(program(1))).unwrap().hold, program(1));
    assert_eq!(list.detach(Some(Hold::Link(LinkId(2)))), Err(Errno::ENOENT));
}

#[test]
fn any_other_list_detaches_whatever_is_there() {
    for kind in [NONE, OVERRIDE] {
        for named in [None, Some(program(9))] {
            let mut list = list(kind, &[1]);
            assert_eq!(list.detach(named).unwrap().hold, program(1));
            assert_eq!(list.detach(named), Err(Errno::ENOENT));
        }
    }
}

#[test]
fn a_list_that_was_emptied_may_become_of_another_kind() {
    let mut list = list(OVERRIDE, &[1]);
    assert_eq!(list.attach(program(2), MULTI, None), Err(Errno::EPERM));
    list.detach(None).unwrap();
    list.attach(program(2), MULTI, None).unwrap();
    assert_eq!(list.revision, 4);
}

#[test]
fn a_program_joins_a_multi_list_once_and_replaces_another_one() {
    let mut list = list(MULTI, &[1, 2]);
    assert_eq!(list.attach(program(2), MULTI, None), Err(Errno::EINVAL));
    let replacing = MULTI | AttachFlags::REPLACE;
    assert_eq!(list.attach(program(3), replacing, Some(ProgramId(9))), Err(Errno::ENOENT));
    list.attach(program(3), replacing, Some(ProgramId(1))).unwrap();
    assert_eq!(
        list.entries.iter().map(|entry| entry.hold).collect::<Vec<_>>(),
        [program(3), program(2)]
    );
}

#[test]
fn the_sixty_fifth_is_refused_even_where_it_would_take_anothers_place() {
    let mut list = list(MULTI, &(1..=64).collect::<Vec<_>>());
    assert_eq!(list.attach(program(65), MULTI, None), Err(Errno::E2BIG));
    let replacing = MULTI | AttachFlags::REPLACE;
    assert_eq!(list.attach(program(65), replacing, Some(ProgramId(1))), Err(Errno::E2BIG));
}

#[test]
fn the_nearest_ancestor_that_holds_something_decides() {
    let (none, over, multi) = (list(NONE, &[1]), list(OVERRIDE, &[2]), list(MULTI, &[3]));
    let empty = List::default();
    assert!(ancestors_allow([]) && ancestors_allow([&empty]));
    assert!(ancestors_allow([&empty, &over, &none]) && ancestors_allow([&multi, &none]));
    assert!(!ancestors_allow([&empty, &none, &multi]));
}

#[test]
fn the_nearest_runs_and_with_it_every_multi_list_above() {
    let (own, parent) = (list(MULTI, &[1, 2]), list(MULTI, &[3]));
    assert_eq!(order(&effective([(0, &own), (1, &parent)])), [1, 2, 3].map(program));
    let over = list(OVERRIDE, &[4]);
    assert_eq!(order(&effective([(0, &own), (1, &over)])), [1, 2].map(program));
    assert_eq!(order(&effective([(0, &List::default()), (1, &over)])), [4].map(program));
}

#[test]
fn preordered_programs_run_first_the_furthest_ancestors_before_all() {
    let preorder = |list: &mut List, id| {
        list.attach(program(id), MULTI | AttachFlags::PREORDER, None).unwrap();
    };
    let (mut own, mut parent) = (list(MULTI, &[1]), list(MULTI, &[2]));
    preorder(&mut own, 3);
    preorder(&mut parent, 4);
    preorder(&mut parent, 5);
    assert_eq!(order(&effective([(0, &own), (1, &parent)])), [4, 5, 3, 1, 2].map(program));
}

#[test]
fn flags_that_contradict_each_other_are_refused_before_the_list_is_looked_at() {
    const REPLACE: AttachFlags = AttachFlags::REPLACE;
    for wrong in [OVERRIDE | MULTI, REPLACE, OVERRIDE | REPLACE, MULTI | REPLACE | BEFORE] {
        assert_eq!(check_flags(wrong), Err(Errno::EINVAL), "{wrong:?}");
    }
    assert_eq!(check_flags(MULTI | REPLACE), Ok(()));
}

#[test]
fn a_program_is_inserted_at_either_end() {
    let mut list = list(MULTI, &[1, 2]);
    list.attach(program(3), MULTI | BEFORE, None).unwrap();
    list.attach(program(4), MULTI | AFTER, None).unwrap();
    let order: Vec<_> = list.entries.iter().map(|entry| entry.hold).collect();
    assert_eq!(order, [3, 1, 2, 4].map(program));
    assert_eq!(list.attach(program(5), MULTI | BEFORE | AFTER, None), Err(Errno::EINVAL));
    assert_eq!(list.attach(program(5), MULTI | BEFORE | ID, None), Err(Errno::ENOENT));
    assert_eq!(list.attach(program(5), MULTI | ID, None), Err(Errno::EINVAL));
}
