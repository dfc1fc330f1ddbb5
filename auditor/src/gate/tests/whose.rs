//! Tests whose a new thing is: which evidence shows that it is somebody else's, and which shows nothing.

use std::collections::HashMap;

use kernel::loads::{Asked, Loader};
use kernel::{MapId, ProgramId};

use crate::compare::Kind;
use crate::facts::{Object, Snapshot};
use crate::gate::{Aftermath, Evidence, Processes, judge};
use crate::judge::Verdict;
use crate::story::*;
use crate::story::{Stock, everything};

#[test]
fn what_only_processes_hold_that_are_not_the_commands_is_somebody_elses_and_does_not_count() {
    for holders in [vec![SYSTEMD], vec![STRANGER], vec![SYSTEMD, STRANGER]] {
        let found = settled(&everything(), &loaded(&holders));
        assert_eq!((found.left.len(), kinds(&found.others)), (0, vec![Kind::Program]));
        assert_eq!(found.others[0].evidence, Some(Evidence::Holders));
        assert_eq!(found.verdict(), Verdict::Clean);
    }
    let mine =
        [vec![], vec![SYSTEMD, DAEMON], vec![STRANGER, WORKER], vec![999], vec![SYSTEMD, 999]];
    for holders in mine {
        let found = settled(&everything(), &loaded(&holders));
        assert_eq!((found.left.len(), found.others.len()), (1, 0), "{holders:?}");
    }
}

#[test]
fn an_earlier_process_that_is_seen_but_once_may_just_have_looked() {
    let first = judged(&everything(), &loaded(&[SYSTEMD])).confirmed_by(None);
    assert_eq!((first.left.len(), first.others.len()), (1, 0));
    assert!(!first.is_settled());
    let second = judged(&everything(), &loaded(&[])).confirmed_by(Some(&first));
    assert_eq!((second.left.len(), second.others.len()), (1, 0));
    let third = judged(&everything(), &loaded(&[SYSTEMD])).confirmed_by(Some(&second));
    assert_eq!((third.left.len(), third.others.len()), (1, 0), "the look before saw nobody");
    let fourth = judged(&everything(), &loaded(&[SYSTEMD])).confirmed_by(Some(&third));
    assert_eq!((fourth.left.len(), fourth.others.len()), (0, 1));
    assert!(fourth.is_settled());
    let fifth = judged(&everything(), &loaded(&[SYSTEMD])).confirmed_by(Some(&fourth));
    assert_eq!((fifth.left.len(), fifth.others.len()), (0, 1));
    // The holder let go after two looks had shown it. The program stays for a reason that cannot be seen.
    let sixth = judged(&everything(), &loaded(&[])).confirmed_by(Some(&fifth));
    assert_eq!((sixth.left.len(), sixth.others.len()), (0, 1));
    assert!(sixth.others[0].reason.contains("held by process 1"), "{}", sixth.others[0].reason);
    let seventh = judged(&everything(), &loaded(&[DAEMON])).confirmed_by(Some(&sixth));
    assert_eq!((seventh.left.len(), seventh.others.len()), (1, 0), "the command has it now");
}

/// Judges a look whose program 41 was loaded at 1,041 ns.
fn judged_in(after: &Snapshot, began_ns: Option<u64>, over_ns: Option<u64>) -> Aftermath {
    let processes = Processes { began_ns, over_ns, ..processes() };
    judge(&everything(), after, &all(), &processes).unwrap().confirmed_by(None)
}

#[test]
fn what_was_loaded_before_the_command_or_after_it_is_not_its_own_whoever_holds_it_or_nobody() {
    for holders in [vec![], vec![SYSTEMD], vec![999]] {
        let mut after = loaded(&holders);
        after.attach(41, A, EG);
        let later = judged_in(&after, Some(1_000), Some(1_040));
        assert_eq!(kinds(&later.others), [Kind::Attachment, Kind::Program]);
        assert!(later.others.iter().all(|it| it.evidence == Some(Evidence::LoadedAfter)));
        // The command may have attached a program that existed before it.
        let earlier = judged_in(&after, Some(1_042), None);
        assert_eq!(kinds(&earlier.others), [Kind::Program]);
        assert_eq!(earlier.others[0].evidence, Some(Evidence::LoadedBefore));
        assert_eq!(kinds(&earlier.unclear), [Kind::Attachment]);
        assert_eq!((later.left.len(), earlier.left.len()), (0, 0));
        // Loaded while the command ran, or at an unknown time.
        for (began, over) in [(Some(1_041), Some(1_041)), (Some(1_000), None), (None, None)] {
            assert_eq!(judged_in(&after, began, over).left.len(), 2);
        }
    }
    // A process of the command may have taken over the program.
    assert_eq!(judged_in(&loaded(&[DAEMON]), Some(1_042), None).left.len(), 1);
}

/// Returns processes in which one process loaded program 41. `is_descendant` says whether the command started that
/// process, if known. `asked` is what the command asked the kernel for.
fn done(is_descendant: Option<bool>, asked: Option<&[Asked]>) -> Processes {
    let loader = Loader { pid: 77, name: "loader".to_owned(), is_descendant };
    let asked = asked.map(|asked| asked.iter().copied().collect());
    Processes { loaders: HashMap::from([(ProgramId(41), loader)]), asked, ..processes() }
}

fn judged_by(after: &Snapshot, processes: &Processes) -> Aftermath {
    judge(&everything(), after, &all(), processes).unwrap().confirmed_by(None)
}

const ALL: &[Asked] = &[Asked::Map, Asked::Pin, Asked::Attachment, Asked::Link];

#[test]
fn who_has_loaded_a_program_tells_whose_it_is_whoever_holds_it_or_nobody() {
    for holders in [vec![], vec![SYSTEMD], vec![SYSTEMD, 999]] {
        let after = loaded(&holders);
        let found = judged_by(&after, &done(Some(false), Some(ALL)));
        assert_eq!((found.left.len(), found.others.len()), (0, 1), "{holders:?}");
        assert_eq!(found.others[0].evidence, Some(Evidence::Loader));
        assert!(found.others[0].reason.contains("process 77 (loader), which the command did not"));
        let found = judged_by(&after, &done(Some(true), None));
        assert_eq!((found.left.len(), found.others.len()), (1, 0), "{holders:?}");
        assert!(found.left[0].reason.contains("process 77 (loader), which the command started"));
        let untold = judged_by(&after, &done(None, Some(ALL)));
        assert_eq!((untold.left.len(), untold.others.len()), (1, 0), "{holders:?}");
        assert!(!untold.left[0].reason.contains("process 77"), "{}", untold.left[0].reason);
    }
    // A process of the command may have taken over the program.
    assert_eq!(judged_by(&loaded(&[DAEMON]), &done(Some(false), None)).left.len(), 1);
}

#[test]
fn what_was_made_of_anothers_program_is_the_commands_only_if_it_has_asked_for_the_like() {
    let mut after = loaded(&[]);
    after.attach(41, A, EG);
    after.pin("/sys/fs/bpf/p", program(41));
    let found = |asked: Option<&[Asked]>| judged_by(&after, &done(Some(false), asked));
    let others = found(Some(&[Asked::Map, Asked::Link]));
    assert_eq!(kinds(&others.others), [Kind::Attachment, Kind::Pin, Kind::Program]);
    assert_eq!(others.others[0].evidence, Some(Evidence::NotAsked));
    assert_eq!(others.verdict(), Verdict::Clean);
    // The command made an attachment, but nobody knows which one.
    let open = found(Some(&[Asked::Attachment]));
    assert_eq!(kinds(&open.unclear), [Kind::Attachment]);
    assert_eq!((kinds(&open.others), open.left.len()), (vec![Kind::Pin, Kind::Program], 0));
    let unknown = found(None);
    assert_eq!((unknown.unclear.len(), unknown.verdict()), (2, Verdict::Incomplete));
}

#[test]
fn a_link_or_a_map_that_the_command_did_not_ask_for_is_somebody_elses_whatever_is_of_it() {
    let mut after = loaded(&[]);
    after.inventory().programs.pop();
    after.load(41, "mine", &[9]);
    after.map(9, "theirs");
    after.pin("/sys/fs/bpf/m", Object::Map(MapId(9)));
    let asked = [Asked::Attachment, Asked::Link];
    let found = judged_by(&after, &done(Some(true), Some(&asked)));
    assert_eq!(kinds(&found.left), [Kind::Program]);
    assert_eq!(kinds(&found.others), [Kind::Pin, Kind::Map]);
    // A process of the command that holds the map is evidence for the command.
    after.hold(DAEMON, &[Object::Map(MapId(9))]);
    assert_eq!(judged_by(&after, &done(Some(true), Some(&asked))).left.len(), 3);
    // A link of somebody else's program, without any holder.
    let mut linked = loaded(&[]);
    linked.any_link(7, 41, "xdp");
    let of_others = judged_by(&linked, &done(Some(false), Some(&[])));
    assert_eq!(
        (kinds(&of_others.others), of_others.left.len()),
        (vec![Kind::Link, Kind::Program], 0)
    );
    let open = judged_by(&linked, &done(Some(false), Some(ALL)));
    assert_eq!(kinds(&open.unclear), [Kind::Link], "nobody is seen to hold it");
}

#[test]
fn what_the_command_has_loaded_stays_its_own_though_others_hold_it_in_every_look() {
    let mut after = loaded(&[SYSTEMD]);
    after.inventory().programs.pop();
    after.load(41, "mine", &[9]);
    after.any_link(7, 41, "xdp");
    after.map(9, "counts");
    after.hold(SYSTEMD, &[link(7), Object::Map(MapId(9))]);
    let processes = done(Some(true), Some(ALL));
    let first = judged_by(&after, &processes);
    let second = judge(&everything(), &after, &all(), &processes).unwrap();
    let found = second.confirmed_by(Some(&first));
    assert_eq!(kinds(&found.left), [Kind::Link, Kind::Program]);
    // The map may be older than the command, and others use it as well.
    assert_eq!((kinds(&found.unclear), found.others.len()), (vec![Kind::Map], 0));
}

#[test]
fn links_pins_and_maps_are_as_old_as_the_programs_that_they_are_of() {
    let mut after = loaded(&[]);
    after.inventory().programs.pop();
    after.load(41, "theirs", &[9]);
    after.any_link(7, 41, "xdp");
    after.map(9, "counts");
    after.pin("/sys/fs/bpf/l", link(7));
    after.pin("/sys/fs/bpf/p", program(41));
    after.pin("/sys/fs/bpf/m", Object::Map(MapId(9)));
    let found = judged_in(&after, Some(1_000), Some(1_040));
    assert_eq!((kinds(&found.left), found.others.len()), (vec![], 6));
    // A program of the command uses the map as well.
    after.load(42, "mine", &[9]);
    let found = judged_in(&after, Some(1_042), None);
    assert_eq!(kinds(&found.left), [Kind::Pin, Kind::Program, Kind::Map]);
}

#[test]
fn the_owner_that_a_program_names_tells_whose_it_is_if_it_lives() {
    let owned = |pid, start_time| {
        let mut after = loaded(&[]);
        let owner = bpf::Owner { start_time, ..owner(pid) };
        after.program(41, Some(&owner));
        judged(&everything(), &after).confirmed_by(None)
    };
    for (pid, start_time) in [(SYSTEMD, 3), (STRANGER, 9_150)] {
        let found = owned(pid, start_time);
        assert_eq!((found.left.len(), found.others.len()), (0, 1));
        assert_eq!(found.others[0].evidence, Some(Evidence::Owner));
    }
    // A process of the command, a process that reuses the pid, and a dead process.
    for (pid, start_time) in [(DAEMON, 9_100), (STRANGER, 9_151), (999, 3)] {
        assert_eq!(owned(pid, start_time).left.len(), 1, "{pid}");
    }
    let elsewhere = bpf::Owner { start_time: 3, pid_namespace: 1, ..owner(SYSTEMD) };
    let mut after = loaded(&[]);
    after.program(41, Some(&elsewhere));
    assert_eq!(judged(&everything(), &after).left.len(), 1, "a pid of another namespace");
}

#[test]
fn the_owner_that_a_record_names_tells_it_too_unless_another_one_may_be_the_commands() {
    type Change = fn(&mut bpf::ledger::Entry);
    let others = |of: &[u32], change: Change| {
        let mut after = loaded(&[]);
        for &pid in of {
            let start_time = if pid == SYSTEMD { 3 } else { 9_100 };
            change(after.record(&bpf::Owner { start_time, ..owner(pid) }, 41, A));
        }
        let found = judged(&everything(), &after).confirmed_by(None);
        assert!(found.others.iter().all(|it| it.evidence == Some(Evidence::Owner)));
        found.others.len()
    };
    assert_eq!(others(&[SYSTEMD], |_| {}), 1);
    assert_eq!(others(&[SYSTEMD, SYSTEMD], |_| {}), 1);
    for several in [[SYSTEMD, DAEMON], [DAEMON, SYSTEMD], [DAEMON, DAEMON]] {
        assert_eq!(others(&several, |_| {}), 0, "{several:?}");
    }
    // A record of another program, or of an earlier program with the same id.
    let changes: [Change; 4] = [
        |it| it.attachments[0].program_id.0 += 1,
        |it| it.attachments[0].tag = "0000000000000000".into(),
        |it| it.attachments[0].loaded_at_ns += 1,
        |it| it.attachments.clear(),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        assert_eq!(others(&[SYSTEMD], change), 0, "{number}");
    }
}

#[test]
fn links_and_maps_of_what_is_somebody_elses_are_too() {
    let mut after = everything();
    after.load(41, "theirs", &[9]);
    after.hold(SYSTEMD, &[program(41), link(7)]);
    after.any_link(7, 41, "xdp");
    after.map(9, "counts");
    let found = settled(&everything(), &after);
    assert_eq!((kinds(&found.left), found.others.len()), (vec![], 3));
    assert_eq!(found.verdict(), Verdict::Clean);
}

#[test]
fn of_what_the_kernel_keeps_it_cannot_be_told_whose_it_is_by_who_holds_it_too() {
    type Plant = fn(&mut Snapshot);
    let plants: [(&str, Plant, usize); 5] = [
        ("on a cgroup", attached, 2),
        ("on a device", |after| after.on_device(41, 2, "tc_ingress", None), 1),
        ("a pinned program", |after| after.pin("/sys/fs/bpf/p", program(41)), 2),
        ("a pinned link", pinned_link, 3),
        ("a pinned map that has it in a slot", pinned_slot, 3),
    ];
    for (what, plant, things) in plants {
        let mut after = loaded(&[SYSTEMD]);
        plant(&mut after);
        let found = settled(&everything(), &after);
        assert_eq!((found.left.len(), found.others.len()), (0, 0), "{what}: {found:?}");
        assert_eq!((found.unclear.len(), found.gaps().len()), (things, things), "{what}");
        assert_eq!((found.verdict(), found.is_settled()), (Verdict::Incomplete, false), "{what}");
        let why = &found.gaps()[0].why;
        assert!(
            why.contains("held by process 1 (somebody), running since before"),
            "{what}: {why}"
        );
        // The holders let go, so the thing stays without anybody.
        let mut later = loaded(&[]);
        plant(&mut later);
        later.looks[0].holders.clear();
        let later = judged(&everything(), &later).confirmed_by(Some(&found));
        assert_eq!((later.left.len(), later.unclear.len()), (things, 0), "{what}");
        // With its holders the thing stays unclear.
        let still = judged(&everything(), &after).confirmed_by(Some(&found));
        assert_eq!(still.unclear.len(), things, "{what}");
    }
}

fn attached(after: &mut Snapshot) {
    after.attach(41, A, EG);
}

fn pinned_link(after: &mut Snapshot) {
    after.any_link(7, 41, "xdp");
    after.hold(SYSTEMD, &[link(7)]);
    after.pin("/sys/fs/bpf/l", link(7));
}

fn pinned_slot(after: &mut Snapshot) {
    after.map(9, "jmp");
    after.slot("3", program(41));
    after.hold(SYSTEMD, &[Object::Map(MapId(9))]);
    after.pin("/sys/fs/bpf/jmp", Object::Map(MapId(9)));
}

#[test]
fn an_attachment_or_a_pin_of_what_was_there_before_counts_whoever_holds_that() {
    let before = loaded(&[SYSTEMD]);
    let mut after = loaded(&[SYSTEMD]);
    after.attach(41, A, EG);
    after.pin("/sys/fs/bpf/x", program(41));
    let found = settled(&before, &after);
    assert_eq!(kinds(&found.left), [Kind::Attachment, Kind::Pin]);
}
