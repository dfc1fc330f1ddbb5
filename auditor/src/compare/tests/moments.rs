//! Tests what is new and what is gone between two snapshots.

use kernel::{LinkId, MapId};

use crate::compare::{Difference, Incomparable, Kind, compare};
use crate::facts::{Object, Snapshot, Subject};
use crate::judge::Verdict;
use crate::story::*;

fn all() -> Vec<String> {
    vec!["*".to_owned()]
}

#[test]
fn two_looks_at_the_same_thing_have_nothing_new() {
    let host = one_of_each();
    let same = difference(&host, &host, &["*"]);
    assert_eq!((same.verdict(), same), (Verdict::Clean, Difference::default()));
}

#[test]
fn one_new_thing_of_each_kind_is_named_as_people_read_it() {
    let (before, after) = (everything(), one_of_each());
    let expected = [
        "program 41 (leaky) on /cgroup-9310, cgroup_inet_egress, through link 7",
        "link 7 (cgroup) of program 41 (leaky)",
        "pin /sys/fs/bpf/x of link 7 (cgroup) of program 41 (leaky)",
        "program 41 (leaky), cgroup_skb",
        "map 9 (counts), hash",
    ];
    assert_eq!(new(&before, &after, &["*"]), expected);
    let backwards = difference(&after, &before, &["*"]);
    assert_eq!((backwards.new.len(), backwards.gone.len()), (0, 5));
    assert_eq!(backwards.verdict(), Verdict::Clean, "what went is no leak");
}

#[test]
fn links_maps_and_pins_belong_to_the_programs_that_use_them() {
    let (before, after) = (everything(), one_of_each());
    assert_eq!(new(&before, &after, &["leak*"]).len(), 5);
    assert_eq!(new(&before, &after, &["chadthrottle*"]), [""; 0]);
    assert_eq!(new(&before, &after, &["counts"]), ["map 9 (counts), hash"]);
    let mut after = everything();
    after.map(9, "leaky_map");
    after.map(10, "other");
    after.pin("/sys/fs/bpf/m", Object::Map(MapId(9)));
    let expected = ["pin /sys/fs/bpf/m of map 9 (leaky_map)", "map 9 (leaky_map), hash"];
    assert_eq!(new(&before, &after, &["leak*"]), expected);
}

#[test]
fn what_has_no_name_is_found_by_a_glob_for_everything() {
    let (before, mut after) = (everything(), everything());
    after.load(41, "", &[]);
    after.map(9, "");
    assert_eq!(new(&before, &after, &["*"]), ["program 41, cgroup_skb", "map 9, hash"]);
    assert_eq!(new(&before, &after, &["?*"]), [""; 0]);
}

#[test]
fn an_id_that_is_given_anew_is_another_program() {
    let (mut before, mut after) = (everything(), everything());
    before.load(41, "leaky", &[]);
    after.load(41, "leaky", &[]);
    assert_eq!(new(&before, &after, &["*"]), [""; 0]);
    after.inventory().programs.last_mut().unwrap().loaded_at_ns += 1;
    let other = difference(&before, &after, &["*"]);
    assert_eq!((other.new.len(), other.gone.len()), (1, 1));
}

#[test]
fn a_legacy_attachment_beside_a_link_is_new_and_the_link_is_not() {
    let before = one_of_each();
    let mut after = one_of_each();
    after.attach(41, A, EG);
    let expected =
        "program 41 (leaky) on /cgroup-9310, cgroup_inet_egress, attached the legacy way";
    assert_eq!(new(&before, &after, &["*"]), [expected]);
}

#[test]
fn a_cgroup_that_was_made_again_under_the_same_name_is_another_one() {
    let (mut before, mut after) = (everything(), everything());
    before.load(41, "leaky", &[]);
    after.load(41, "leaky", &[]);
    before.attach(41, A, EG).cgroup = "/a".into();
    after.attach(41, A + 1, EG).cgroup = "/a".into();
    assert_eq!(new(&before, &after, &["*"]).len(), 1);
}

#[test]
fn what_the_second_snapshot_could_not_see_makes_it_incomplete_and_never_equal() {
    for about in [Subject::Cgroups, Subject::Programs, Subject::Links, Subject::Pins] {
        let (before, mut after) = (everything(), everything());
        after.gap(about);
        let difference = difference(&before, &after, &["*"]);
        assert_eq!(difference.verdict(), Verdict::Incomplete, "{about:?}");
        assert_eq!(difference.gaps.len(), 1);
    }
    let (before, mut after) = (everything(), everything());
    after.look().coverage.cgroups_visited = 0;
    assert_eq!(difference(&before, &after, &["*"]).verdict(), Verdict::Incomplete);
}

#[test]
fn who_holds_what_is_not_compared() {
    let (before, mut after) = (everything(), everything());
    after.gap(Subject::Processes);
    after.gap(Subject::HiddenProcesses);
    after.gap(Subject::Ledger);
    assert_eq!(difference(&before, &after, &["*"]).verdict(), Verdict::Clean);
}

#[test]
fn what_the_first_snapshot_may_have_missed_is_not_called_new() {
    let mut before = everything();
    before.gap(Subject::Pins);
    let found = difference(&before, &one_of_each(), &["*"]);
    let kinds: Vec<Kind> = found.new.iter().map(crate::compare::Item::kind).collect();
    assert_eq!(kinds, [Kind::Attachment, Kind::Link, Kind::Program, Kind::Map]);
    assert_eq!(found.gaps[0].what, "whether 1 of what is there now are new");
    assert_eq!(found.gaps.len(), 2, "and the first one's own");
    before.gap(Subject::Programs);
    let found = difference(&before, &one_of_each(), &["*"]);
    assert_eq!((found.new.len(), found.verdict()), (0, Verdict::Incomplete));
    let found = difference(&one_of_each(), &before, &["*"]);
    assert_eq!(found.gone, [], "nor is it called gone");
}

#[test]
fn an_attachment_whose_program_went_away_meanwhile_is_none() {
    let (before, mut after) = (everything(), everything());
    after.attach(77, A, EG);
    assert_eq!(new(&before, &after, &["*"]), [""; 0]);
    after.gap(Subject::Programs);
    assert_eq!(new(&before, &after, &["*"]).len(), 1, "unless it may just not have been read");
}

#[test]
fn snapshots_of_other_boots_scopes_or_without_an_inventory_are_refused() {
    let refused = |before: &Snapshot, after: &Snapshot| compare(before, after, &all()).unwrap_err();
    let mut other = everything();
    other.host.host.boot_id = "another".into();
    assert!(matches!(refused(&everything(), &other), Incomparable::Boots { .. }));
    let mut other = everything();
    other.scope.root = "/a".into();
    assert_eq!(refused(&everything(), &other), Incomparable::Scopes);
    let mut other = everything();
    other.scope.attach_types.pop();
    assert_eq!(refused(&everything(), &other), Incomparable::Scopes);
    assert_eq!(refused(&host(), &everything()), Incomparable::NoInventory { which: "first" });
    assert_eq!(refused(&everything(), &host()), Incomparable::NoInventory { which: "second" });
    let mut other = everything();
    other.looks.clear();
    assert_eq!(refused(&other, &everything()), Incomparable::Empty { which: "first" });
}

#[test]
fn an_inventory_comes_back_from_json_and_an_old_snapshot_has_none() {
    let host = one_of_each();
    let text = serde_json::to_string(&host).unwrap();
    assert_eq!(serde_json::from_str::<Snapshot>(&text).unwrap(), host);
    assert_eq!(crate::story::host().looks[0].inventory, None);
}

/// Returns a host with a new link 7 of that type, from program 41 to device 2.
fn on_device_2(kind: &str) -> Snapshot {
    let mut after = everything();
    after.load(41, "leaky", &[]);
    after.any_link(7, 41, kind);
    after.inventory().links[0].device = Some(2);
    after
}

fn link_of(after: &Snapshot) -> String {
    new(&everything(), after, &["*"]).remove(0)
}

#[test]
fn a_link_on_a_device_is_told_with_the_device_and_its_network_namespace() {
    let mut after = on_device_2("tcx");
    after.on_device(41, 2, "tcx_ingress", Some(7));
    let told = "link 7 (tcx) of program 41 (leaky) on device eth0 (2), tcx_ingress, in network namespace 4026532177 \
                (/run/netns/blue)";
    assert_eq!(link_of(&after), told);
    after.inventory().device_programs[0].namespace_path = None;
    assert!(link_of(&after).ends_with("namespace 4026532177 (the auditor's own)"));
    after.inventory().links[0].device = Some(0);
    after.inventory().device_programs.clear();
    let told = "link 7 (tcx) of program 41 (leaky) on a network device that is gone";
    assert_eq!(link_of(&after), told);
}

#[test]
fn whose_device_it_is_that_a_link_is_on_is_unknown_unless_one_place_alone_fits() {
    let unknown = "on device 2, in an unknown network namespace";
    let mut after = on_device_2("tcx");
    assert!(link_of(&after).ends_with(unknown), "{}", link_of(&after));
    // The same program is on a device with that number, but through another link.
    after.on_device(41, 2, "tcx_ingress", Some(8));
    assert!(link_of(&after).ends_with(unknown), "{}", link_of(&after));
    let mut after = on_device_2("xdp");
    after.on_device(41, 2, "tcx_ingress", None);
    after.on_device(41, 3, "xdp", None);
    after.on_device(40, 2, "xdp", None);
    assert!(link_of(&after).ends_with(unknown), "{}", link_of(&after));
    after.on_device(41, 2, "xdp", None);
    assert!(link_of(&after).contains("on device eth0 (2), xdp, in "), "{}", link_of(&after));
    // Now one place in each of two namespaces fits.
    after.on_device(41, 2, "xdp", None);
    assert!(link_of(&after).ends_with(unknown), "{}", link_of(&after));
}

#[test]
fn a_link_that_was_being_made_at_the_first_look_is_not_new_nor_is_what_it_attaches() {
    let mut after = one_of_each();
    let mut before = one_of_each();
    before.inventory().links.clear();
    before.look().links.clear();
    before.look().pins.clear();
    let told = difference(&before, &after, &["*"]);
    assert_eq!((told.new.len(), told.gone.len()), (3, 1), "{told:?}");
    before.look().coverage.changing_links = vec![LinkId(7)];
    assert_eq!(difference(&before, &after, &["*"]), Difference::default());
    // Another link is new.
    after.any_link(8, 41, "xdp");
    assert_eq!(new(&before, &after, &["*"]), ["link 8 (xdp) of program 41 (leaky)"]);
}
