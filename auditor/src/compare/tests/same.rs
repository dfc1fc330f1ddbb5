//! Tests which things of two moments are the same, and what cannot be compared.

use kernel::{LinkId, MapId};

use crate::compare::{Difference, Item, Kind};
use crate::facts::{AnyLinkFact, Snapshot, Subject};
use crate::story::*;
use crate::story::{Stock, difference, everything, new, one_of_each};

#[test]
fn a_thing_is_the_same_one_only_if_all_that_the_kernel_never_changes_is_the_same() {
    type Change = fn(&mut Snapshot);
    // Each change, and the things that differ after it. A program's attachments differ with the program.
    let changes: [(&str, Change, &[Kind]); 9] = [
        ("nothing", |_| {}, &[]),
        (
            "cgroup",
            |it| {
                it.look().attachments.last_mut().unwrap().cgroup_id.0 += 1;
                it.look().links.last_mut().unwrap().cgroup_id.0 += 1;
            },
            &[Kind::Attachment],
        ),
        (
            "attach type",
            |it| {
                it.look().attachments.last_mut().unwrap().attach_type = IN;
                it.look().links.last_mut().unwrap().attach_type = Some(IN);
            },
            &[Kind::Attachment],
        ),
        (
            "tag",
            |it| it.inventory().programs.last_mut().unwrap().tag = "0".repeat(16),
            &[Kind::Attachment, Kind::Program],
        ),
        (
            "load time",
            |it| it.inventory().programs.last_mut().unwrap().loaded_at_ns += 1,
            &[Kind::Attachment, Kind::Program],
        ),
        ("type of the link", |it| it.inventory().links[0].kind = "xdp".into(), &[Kind::Link]),
        ("name of the map", |it| it.inventory().maps[0].name = "other".into(), &[Kind::Map]),
        ("type of the map", |it| it.inventory().maps[0].kind = "array".into(), &[Kind::Map]),
        ("pin", |it| it.look().pins.last_mut().unwrap().object = program(41), &[Kind::Pin]),
    ];
    for (what, change, others) in changes {
        let mut before = one_of_each();
        change(&mut before);
        let found = difference(&before, &one_of_each(), &["*"]);
        let kinds = |items: &[Item]| items.iter().map(Item::kind).collect::<Vec<_>>();
        assert_eq!(
            (kinds(&found.new), kinds(&found.gone)),
            (others.to_vec(), others.to_vec()),
            "{what}"
        );
    }
    // A cgroup's path may change, and so may properties that only describe a thing.
    let mut before = one_of_each();
    before.look().attachments.last_mut().unwrap().cgroup = "/renamed".into();
    before.inventory().programs.last_mut().unwrap().uid += 1;
    assert_eq!(difference(&before, &one_of_each(), &["*"]), Difference::default());
}

#[test]
fn of_each_kind_only_what_both_snapshots_could_see_is_called_new_or_gone() {
    for about in [
        Subject::Cgroups,
        Subject::Programs,
        Subject::Links,
        Subject::Pins,
        Subject::HiddenPins,
        Subject::Ledger,
        Subject::HiddenLedger,
        Subject::Processes,
        Subject::HiddenProcesses,
        Subject::Devices,
    ] {
        let doubted: &[Kind] = match about {
            Subject::Cgroups => &[Kind::Attachment],
            Subject::Programs => &Kind::ALL,
            Subject::Links => &[Kind::Attachment, Kind::Link, Kind::Pin],
            Subject::Pins => &[Kind::Pin],
            _ => &[],
        };
        let sure: Vec<Kind> = Kind::ALL.into_iter().filter(|it| !doubted.contains(it)).collect();
        let mut blind = everything();
        blind.gap(about);
        let kinds = |items: &[Item]| items.iter().map(Item::kind).collect::<Vec<_>>();
        assert_eq!(kinds(&difference(&blind, &one_of_each(), &["*"]).new), sure, "{about:?}");
        assert_eq!(kinds(&difference(&one_of_each(), &blind, &["*"]).gone), sure, "{about:?}");
    }
}

#[test]
fn a_link_without_a_program_is_of_its_map_and_so_is_its_pin() {
    let mut after = everything();
    after.map(9, "leaky_ops");
    after.inventory().links.push(AnyLinkFact {
        id: LinkId(7),
        kind: "struct_ops".into(),
        program_id: None,
        map_id: Some(MapId(9)),
        device: None,
    });
    after.pin("/sys/fs/bpf/ops", link(7));
    let expected = [
        "link 7 (struct_ops) of map 9 (leaky_ops)",
        "pin /sys/fs/bpf/ops of link 7 (struct_ops)",
        "map 9 (leaky_ops), hash",
    ];
    assert_eq!(new(&everything(), &after, &["leaky*"]), expected);
    assert_eq!(new(&everything(), &after, &["chad*"]), [""; 0]);
    // Documents name the map as well.
    let pin = &difference(&everything(), &after, &["*"]).new[1];
    assert!(matches!(pin, Item::Pin { map: Some(map), .. } if map.id == MapId(9)), "{pin:?}");
}
