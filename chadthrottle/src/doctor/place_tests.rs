use kernel::CgroupId;
use kernel::list::{AttachFlags, AttachedProgram, ProgramList};

use super::super::facts::Called;
use super::*;

const EGRESS: AttachType = AttachType::INET_EGRESS;

fn level(number: u64, flags: AttachFlags, programs: std::ops::Range<u32>) -> Level {
    let program = |id| AttachedProgram { id: ProgramId(id), flags: None };
    let list =
        ProgramList { programs: programs.map(program).collect(), flags, ..ProgramList::default() };
    Level { cgroup: CgroupId(number), path: format!("/{number}").into(), list }
}

fn place(attach_type: AttachType, levels: Vec<Level>, in_force: &[u32]) -> Place {
    let in_force = in_force.iter().copied().map(ProgramId).collect();
    let lineage = Lineage { attach_type, levels, is_whole: true, in_force };
    let called = Called { name: "fire\x1bwall".to_owned(), tag: "0123456789abcdef".to_owned() };
    Place {
        path: "/9".into(),
        lineages: Answer::Is(vec![lineage]),
        called: [(ProgramId(7), called)].into(),
    }
}

fn judged(place: &Place) -> Check {
    judge(place).remove(0)
}

#[test]
fn a_place_with_room_says_how_much_and_what_is_in_force_from_above() {
    let levels = vec![level(9, AttachFlags::MULTI, 1..4), level(1, AttachFlags::MULTI, 7..8)];
    let check = judged(&place(EGRESS, levels, &[7, 1, 2, 3]));
    assert_eq!((check.what.as_str(), check.grade), ("uploads there", Grade::Ok));
    let expected = "3 of 64 places are taken; in force from above: program 7 'fire\\x1bwall'";
    assert_eq!(check.says.replace("\\u{1b}", "\\x1b"), expected);
}

#[test]
fn what_is_attached_above_and_does_not_run_there_is_named() {
    let levels = vec![level(9, AttachFlags::MULTI, 1..2), level(1, AttachFlags::OVERRIDE, 7..8)];
    let check = judged(&place(EGRESS, levels, &[1]));
    assert_eq!(check.grade, Grade::Ok);
    let expected = "1 of 64 places are taken; \
                    attached above, but out of force here: program 7 'fire\\x1bwall'";
    assert_eq!(check.says, expected);
}

#[test]
fn a_place_where_no_limit_can_be_held_is_missing_with_the_reason_and_the_remedy() {
    let none = AttachFlags::empty();
    let empty = || level(9, none, 0..0);
    for (levels, says, advice, room) in [
        (vec![level(9, AttachFlags::MULTI, 0..64)], "all 64 places", "scan --all", Room::Full),
        (
            vec![level(9, AttachFlags::OVERRIDE, 7..8)],
            "of /9 takes the place for itself",
            "ALLOW_MULTI",
            Room::Exclusive,
        ),
        (vec![empty(), level(1, none, 7..8)], "of /1 takes the place", "detach", Room::Exclusive),
        (
            vec![empty(), level(1, AttachFlags::OVERRIDE, 7..8)],
            "a limit would switch off program 7",
            "--displace",
            Room::Displaces,
        ),
    ] {
        let place = place(EGRESS, levels, &[]);
        let check = judged(&place);
        assert_eq!(check.grade, Grade::Missing);
        assert!(check.says.contains(says), "{check:?}");
        assert!(check.advice.as_ref().unwrap().contains(advice), "{check:?}");
        assert_eq!(report(&place).unwrap().lists[0].room, room);
        assert!(refuses(&place, EGRESS) && !refuses(&place, AttachType::INET_INGRESS));
    }
    let free = place(EGRESS, vec![level(9, AttachFlags::MULTI, 0..63)], &[]);
    assert!(!refuses(&free, EGRESS));
}

#[test]
fn what_cannot_be_held_is_said_of_the_directions_that_it_is_true_of() {
    let none = AttachFlags::empty();
    let free = || vec![level(9, AttachFlags::MULTI, 0..3)];
    let full = || vec![level(9, AttachFlags::MULTI, 0..64)];
    let yields = || vec![level(9, none, 0..0), level(1, AttachFlags::OVERRIDE, 7..8)];
    let said = |download, upload, tcp| {
        let list = |attach_type, levels| match place(attach_type, levels, &[]).lineages {
            Answer::Is(mut lists) => lists.remove(0),
            other => panic!("{other:?}"),
        };
        let lists = vec![
            list(AttachType::INET_INGRESS, download),
            list(EGRESS, upload),
            list(AttachType::SOCK_OPS, tcp),
        ];
        let place = Place { lineages: Answer::Is(lists), ..place(EGRESS, Vec::new(), &[]) };
        what_cannot_be(&place).unwrap_or_default()
    };
    assert_eq!(said(free(), free(), free()), "");
    assert_eq!(said(free(), free(), full()), "", "a limit is held all the same");
    assert_eq!(said(free(), full(), free()), "no upload limit can be held there");
    assert_eq!(said(full(), free(), full()), "no download limit can be held there");
    assert_eq!(said(full(), full(), free()), "no limit can be held there");
    let without = "no upload limit can be held there without --displace";
    assert_eq!(said(free(), yields(), free()), without);
    assert_eq!(said(full(), yields(), free()), "no limit can be held there");
    let unseen = |lineages| Place { lineages, ..place(EGRESS, Vec::new(), &[]) };
    assert_eq!(what_cannot_be(&unseen(Answer::Unknown("denied".to_owned()))), None);
    assert!(what_cannot_be(&unseen(Answer::No("gone".to_owned()))).is_some());
}

#[test]
fn tcp_is_held_by_dropping_where_there_is_no_room_for_its_program() {
    let levels = vec![level(9, AttachFlags::empty(), 7..8)];
    let check = judged(&place(AttachType::SOCK_OPS, levels, &[7]));
    assert_eq!((check.what.as_str(), check.grade), ("TCP there", Grade::Lesser));
}

#[test]
fn what_is_out_of_sight_or_refused_is_unknown() {
    let hidden = place(EGRESS, vec![level(9, AttachFlags::empty(), 0..0)], &[7]);
    let Answer::Is(lineages) = &hidden.lineages else { panic!() };
    let lineage = Lineage { is_whole: false, ..lineages[0].clone() };
    let hidden = Place { lineages: Answer::Is(vec![lineage]), ..hidden };
    let check = judged(&hidden);
    assert_eq!(check.grade, Grade::Unknown, "{check:?}");
    let denied = Place { lineages: Answer::Unknown("denied".to_owned()), ..hidden };
    assert_eq!(judged(&denied).grade, Grade::Unknown);
    assert_eq!(report(&denied), None);
}

#[test]
fn the_report_has_the_lists_with_their_modes() {
    let levels = vec![
        level(9, AttachFlags::OVERRIDE, 3..4),
        level(5, AttachFlags::empty(), 0..0),
        level(1, AttachFlags::MULTI, 7..8),
    ];
    let report = report(&place(EGRESS, levels, &[7, 3])).unwrap();
    let list = &report.lists[0];
    assert_eq!((report.id, list.mode, list.used, list.takes), (9, Mode::Override, 1, 1));
    let [above] = list.above.as_slice() else { panic!("{list:?}") };
    assert_eq!((above.id, above.mode), (1, Mode::Multi));
    assert_eq!(above.programs[0].tag.as_deref(), Some("0123456789abcdef"));
    let ids: Vec<_> = list.in_force.iter().map(|program| program.id).collect();
    assert_eq!(ids, [7, 3]);
}
