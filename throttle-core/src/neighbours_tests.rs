use kernel::CgroupId;
use kernel::list::{AttachFlags, AttachedProgram, ProgramList};

use super::*;

const NONE: AttachFlags = AttachFlags::empty();
const OVERRIDE: AttachFlags = AttachFlags::OVERRIDE;
const MULTI: AttachFlags = AttachFlags::MULTI;

fn level(number: u64, flags: AttachFlags, programs: &[u32]) -> Level {
    let program = |&id: &u32| AttachedProgram { id: ProgramId(id), flags: None };
    let programs = programs.iter().map(program).collect();
    let list = ProgramList { programs, flags, ..ProgramList::default() };
    Level { cgroup: CgroupId(number), path: format!("/{number}").into(), list }
}

/// Creates the lists of a cgroup and its ancestors, nearest first, and the programs in force.
fn lineage(lists: &[(AttachFlags, &[u32])], in_force: &[u32]) -> Lineage {
    let levels = lists.iter().zip(1..);
    Lineage {
        attach_type: AttachType::INET_EGRESS,
        levels: levels.map(|(&(flags, programs), number)| level(number, flags, programs)).collect(),
        is_whole: true,
        in_force: in_force.iter().copied().map(ProgramId).collect(),
    }
}

const NOTHING: (AttachFlags, &[u32]) = (NONE, &[]);

#[test]
fn where_nothing_is_attached_or_all_lists_are_of_many_anybody_may_join() {
    for lists in [
        vec![NOTHING, NOTHING],
        vec![(MULTI, &[1][..]), NOTHING],
        vec![NOTHING, (MULTI, &[1, 2])],
        // The nearest list decides, because it already puts the one above out of force.
        vec![NOTHING, (MULTI, &[1]), (OVERRIDE, &[2])],
        vec![(MULTI, &[1]), (OVERRIDE, &[2])],
        vec![NOTHING, (MULTI, &[1]), (NONE, &[2])],
    ] {
        assert_eq!(joining(&lineage(&lists, &[])), Joining::Free, "{lists:?}");
    }
}

#[test]
fn a_program_that_yields_is_found_however_far_above_it_is() {
    let lists = [NOTHING, NOTHING, (OVERRIDE, &[7][..]), (MULTI, &[1])];
    let lineage = lineage(&lists, &[1, 7]);
    assert_eq!(joining(&lineage), Joining::Displaces(&lineage.levels[2]));
}

#[test]
fn a_list_of_one_takes_no_other_on_its_cgroup_whatever_its_kind() {
    for flags in [NONE, OVERRIDE] {
        let lineage = lineage(&[(flags, &[7]), (MULTI, &[1])], &[7, 1]);
        assert_eq!(joining(&lineage), Joining::Exclusive(&lineage.levels[0]));
    }
    for own in [NOTHING, (MULTI, &[1][..])] {
        let above = lineage(&[own, (NONE, &[7])], &[7]);
        assert_eq!(joining(&above), Joining::Exclusive(&above.levels[1]));
    }
}

#[test]
fn a_list_of_64_is_full_and_one_of_63_is_not() {
    let many: Vec<u32> = (1..=64).collect();
    assert_eq!(joining(&lineage(&[(MULTI, &many)], &many)), Joining::Full);
    assert_eq!(joining(&lineage(&[(MULTI, &many[1..])], &many[1..])), Joining::Free);
}

#[test]
fn of_programs_that_are_attached_out_of_sight_nothing_is_said() {
    let part = |lists: &[(AttachFlags, &[u32])], in_force: &[u32]| {
        let lineage = Lineage { is_whole: false, ..lineage(lists, in_force) };
        match joining(&lineage) {
            Joining::Unknown(programs) => Some(programs),
            Joining::Free => None,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(part(&[NOTHING, NOTHING], &[7]), Some(vec![ProgramId(7)]));
    assert_eq!(part(&[NOTHING, NOTHING], &[]), None, "nothing is in force there");
    assert_eq!(
        part(&[NOTHING, (MULTI, &[1])], &[7, 1]),
        None,
        "what runs beside a list of many stays"
    );
}

const OURS: ProgramId = ProgramId(99);

fn gone(before: &Lineage, after: &Lineage) -> Vec<(u32, Option<String>)> {
    let shown = |path: PathBuf| path.display().to_string();
    displaced(before, after, OURS).into_iter().map(|(id, path)| (id.0, path.map(shown))).collect()
}

#[test]
fn what_ran_before_and_is_attached_still_must_run_after() {
    let before = lineage(&[NOTHING, (OVERRIDE, &[7]), (MULTI, &[1])], &[1, 7]);
    let after = lineage(&[(MULTI, &[99]), (OVERRIDE, &[7]), (MULTI, &[1])], &[1, 99]);
    assert_eq!(gone(&before, &after), [(7, Some("/2".to_owned()))]);
    let as_before = lineage(&[(MULTI, &[99]), (MULTI, &[7]), (MULTI, &[1])], &[1, 7, 99]);
    assert_eq!(gone(&before, &as_before), []);
}

#[test]
fn what_its_owner_has_detached_meanwhile_is_not_put_down_to_us() {
    let before = lineage(&[(MULTI, &[5]), (MULTI, &[1])], &[1, 5]);
    let after = lineage(&[(MULTI, &[99]), (MULTI, &[1])], &[1, 99]);
    assert_eq!(gone(&before, &after), []);
}

#[test]
fn what_came_between_the_two_looks_is_noticed_although_it_never_ran() {
    let before = lineage(&[NOTHING, NOTHING], &[]);
    let after = lineage(&[(MULTI, &[99]), (OVERRIDE, &[7])], &[99]);
    assert_eq!(gone(&before, &after), [(7, Some("/2".to_owned()))]);
    // Another program beside ours puts it out of force too.
    let beside = lineage(&[(MULTI, &[5, 99]), (OVERRIDE, &[7])], &[5, 99]);
    assert_eq!(gone(&before, &beside), []);
}

#[test]
fn what_ran_from_out_of_sight_and_does_not_any_more_is_told_without_a_place() {
    let before = Lineage { is_whole: false, ..lineage(&[NOTHING], &[7]) };
    let after = Lineage { is_whole: false, ..lineage(&[(MULTI, &[99])], &[99]) };
    assert_eq!(gone(&before, &after), [(7, None)]);
}

#[test]
fn a_program_that_is_attached_twice_and_runs_once_less_is_noticed() {
    let before = lineage(&[NOTHING, (OVERRIDE, &[7]), (MULTI, &[7])], &[7, 7]);
    let after = lineage(&[(MULTI, &[99]), (OVERRIDE, &[7]), (MULTI, &[7])], &[7, 99]);
    assert_eq!(gone(&before, &after), [(7, Some("/2".to_owned()))]);
}

#[test]
fn a_neighbour_is_named_by_all_that_is_known_of_it() {
    let neighbour = Neighbour {
        id: ProgramId(12),
        name: Some("fire\x1bwall".to_owned()),
        tag: Some("0123456789abcdef".to_owned()),
        attach_type: AttachType::INET_EGRESS,
        cgroup: Some("/a".into()),
    };
    assert_eq!(
        neighbour.to_string(),
        "program 12 'fire\\u{1b}wall' (tag 0123456789abcdef), attached to /a (cgroup_inet_egress)"
    );
    let unknown = Neighbour { name: None, tag: None, cgroup: None, ..neighbour };
    assert_eq!(
        unknown.to_string(),
        "program 12, attached above what this mount shows (cgroup_inet_egress)"
    );
}
