//! Tests that what could not be seen is a gap of the right kind, and that the rest is complete.

use std::path::PathBuf;

use kernel::error::Call;
use kernel::holders::Holder;
use kernel::pins::{Held, Pin};
use nix::errno::Errno;

use super::*;

fn denied(target: &str) -> Error {
    Error::found(Call::ReadProc, target, Errno::EACCES)
}

fn program(id: u32) -> Held {
    Held::Program(ProgramId(id))
}

/// Returns program 1 and link 2.
fn known() -> HashSet<Object> {
    HashSet::from([Object::Program(ProgramId(1)), Object::Link(LinkId(2))])
}

fn about(gaps: &[Gap]) -> Vec<Subject> {
    gaps.iter().map(|gap| gap.about).collect()
}

#[test]
fn every_pin_of_what_is_known_is_told_whatever_else_could_not_be_read() {
    let pin = |path: &str, held| Pin { path: path.into(), held };
    for unreadable in 0..4 {
        let found = Pins {
            pins: vec![
                pin("/a", program(1)),
                pin("/b", program(1)),
                pin("/c", program(7)),
                pin("/d", Held::Link(LinkId(2))),
                pin("/e", Held::Link(LinkId(1))),
            ],
            unreadable: (0..unreadable).map(|number| denied(&format!("/x{number}"))).collect(),
            walked: 1,
            ..Pins::default()
        };
        let mut gaps = Vec::new();
        let pins = pins_among(&known(), Ok(found), None, &mut gaps);
        let paths: Vec<_> = pins.iter().map(|pin| pin.path.display().to_string()).collect();
        assert_eq!(paths, ["/a", "/b", "/d"]);
        let expected: &[Subject] = if unreadable > 0 { &[Subject::Pins] } else { &[] };
        assert_eq!(about(&gaps), expected);
        let more = ["", "/x0", "/x0 and 1 more", "/x0 and 2 more"][unreadable];
        assert!(gaps.iter().all(|gap| gap.what == more), "{gaps:?}");
    }
    let mut gaps = Vec::new();
    assert_eq!(pins_among(&known(), Err(denied("mounts")), None, &mut gaps), []);
    // The look walked no bpffs either.
    assert_eq!(about(&gaps), [Subject::Pins, Subject::HiddenPins]);
}

#[test]
fn every_holder_of_what_is_known_is_told_whoever_could_not_be_looked_into() {
    let holder = |pid, held: &[Held]| Holder { pid, comm: "x".to_owned(), held: held.to_vec() };
    for kind in [Subject::Processes, Subject::HiddenProcesses] {
        for unreadable in 0..3 {
            let found = Holders {
                holders: vec![
                    holder(10, &[program(7)]),
                    holder(11, &[program(7), program(1), Held::Link(LinkId(2))]),
                    holder(12, &[Held::Link(LinkId(1)), Held::Link(LinkId(2))]),
                ],
                unreadable: (0..unreadable).map(|number| denied(&format!("/x{number}"))).collect(),
            };
            let mut gaps = Vec::new();
            let told = holders_among(&known(), Ok(found), Ok, kind, &mut gaps);
            let (one, two) = (Object::Program(ProgramId(1)), Object::Link(LinkId(2)));
            let told: Vec<_> = told.into_iter().map(|it| (it.process.pid, it.objects)).collect();
            assert_eq!(told, [(11, vec![one, two]), (12, vec![two])]);
            let expected: &[Subject] = if unreadable > 0 { &[kind] } else { &[] };
            assert_eq!(about(&gaps), expected);
        }
        // A failed listing hides more than a policy does.
        let mut gaps = Vec::new();
        assert_eq!(holders_among(&known(), Err(denied("/proc")), Ok, kind, &mut gaps), []);
        assert_eq!(about(&gaps), [Subject::Processes]);
    }
}

#[test]
fn a_holder_is_who_has_something_known_open_still() {
    let holder = |pid, held: &[Held]| Holder { pid, comm: "x".to_owned(), held: held.to_vec() };
    let all = vec![holder(10, &[program(7)]), holder(11, &[program(1)]), holder(12, &[program(1)])];
    let found = || Ok(Holders { holders: all.clone(), unreadable: Vec::new() });
    let kind = Subject::Processes;
    let still = |mut found: Vec<Holder>| {
        assert_eq!(
            found.iter().map(|it| it.pid).collect::<Vec<_>>(),
            [11, 12],
            "what matters here"
        );
        found.remove(0);
        Ok(found)
    };
    let mut gaps = Vec::new();
    let told = holders_among(&known(), found(), still, kind, &mut gaps);
    assert_eq!((told.len(), told[0].process.pid, about(&gaps)), (1, 12, vec![]));
    // If checking the holders fails, the result has no holders and a gap.
    let told = holders_among(&known(), found(), |_| Err(denied("/proc")), kind, &mut gaps);
    assert_eq!((told, about(&gaps)), (vec![], vec![Subject::Processes]));
}

#[test]
fn each_record_that_could_not_be_read_is_a_gap() {
    for count in 0..3 {
        let torn = |number| (PathBuf::from(format!("/run/x/{number}.json")), "torn".to_owned());
        let ledger =
            ledger::Ledger { entries: Vec::new(), unreadable: (0..count).map(torn).collect() };
        let mut gaps = Vec::new();
        entries_of(ledger, &mut gaps);
        assert_eq!(about(&gaps), vec![Subject::Ledger; count]);
        let what: Vec<_> = gaps.iter().map(|gap| gap.what.as_str()).collect();
        assert_eq!(what, ["/run/x/0.json", "/run/x/1.json"][..count]);
    }
}

#[test]
fn a_cgroup_is_removed_if_the_kernel_says_so_and_not_if_it_cannot_be_asked() {
    let pinned = include_str!("../../tests/snapshots-in/pinned.json");
    let pinned: crate::facts::Snapshot = serde_json::from_str(pinned).unwrap();
    let kept = |id| ledger::Entry { cgroup_id: CgroupId(id), ..pinned.looks[0].ledger[0].clone() };
    let passing = ledger::Entry { persist: false, ..kept(5) };
    let ledger = [kept(4), kept(1), kept(2), kept(3), kept(4), passing];
    let open = |id: CgroupId| match id.0 {
        1 => Ok(()),
        2 => Err(Error::new(Call::OpenById, "2", Errno::EPERM)),
        3 => Err(Error::new(Call::OpenById, "3", Errno::ENOSYS)),
        _ => Err(Error::new(Call::OpenById, "4", Errno::ESTALE)),
    };
    assert_eq!(removed_cgroups(&ledger, open), [CgroupId(4)]);
}

#[test]
fn what_an_earlier_look_has_seen_elsewhere_stays_seen_while_its_program_lives() {
    let active = include_str!("../../tests/snapshots-in/active.json");
    let active: crate::facts::Snapshot = serde_json::from_str(active).unwrap();
    let mut before = active.looks[0].clone();
    let on = |cgroup, program| AttachmentFact {
        cgroup_id: CgroupId(cgroup),
        program_id: ProgramId(program),
        ..active.looks[0].attachments[0].clone()
    };
    before.attachments = vec![on(1, 10), on(2, 10), on(2, 11), on(3, 12), on(4, 10)];
    let again = HashSet::from([CgroupId(2), CgroupId(9)]);
    let places = |is_gone: fn(ProgramId) -> bool| -> Vec<_> {
        let left = elsewhere(&before, &again, is_gone).into_iter();
        left.map(|it| (it.cgroup_id.0, it.program_id.0)).collect()
    };
    assert_eq!(places(|_| false), [(1, 10), (3, 12), (4, 10)]);
    assert_eq!(places(|program| program.0 == 10), [(3, 12)]);
}

#[test]
fn links_that_are_being_made_are_told_apart_from_those_that_could_not_be_listed() {
    let (mut gaps, mut changing) = (Vec::new(), vec![LinkId(1)]);
    let read = Links { links: vec!['a', 'b'], changing: vec![LinkId(2), LinkId(3)] };
    assert_eq!(known_links(Ok(read), &mut gaps, &mut changing), ['a', 'b']);
    assert_eq!((about(&gaps), &changing[..]), (vec![], &[LinkId(1), LinkId(2), LinkId(3)][..]));
    assert_eq!(known_links(Err(denied("links")), &mut gaps, &mut changing), []);
    assert_eq!((about(&gaps), changing.len()), (vec![Subject::Links], 3));
}

fn known_links(
    read: kernel::Result<Links<char>>,
    gaps: &mut Vec<Gap>,
    changing: &mut Vec<LinkId>,
) -> Vec<char> {
    super::known(read, "links", gaps, changing)
}

#[test]
fn each_owner_is_judged_once_and_told_from_the_others() {
    let me = Owner::this_process("1").unwrap();
    let dead = Owner { start_time: me.start_time + 1, ..me.clone() };
    let mut gaps = Vec::new();
    let told = owners([&me, &dead, &me, &dead].into_iter(), &mut gaps);
    let told: Vec<_> = told.into_iter().map(|it| (it.owner, it.alive)).collect();
    assert_eq!(told, [(me, Some(true)), (dead, Some(false))]);
    assert_eq!(gaps, []);
}
