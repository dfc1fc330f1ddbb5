//! What came and what went between two snapshots.

use auditor::classify::Verdict;
use auditor::diff::{DiffReport, Difference, Incomparable, Kind, compare, report, rule};
use auditor::formats::{Medium, Rendition};
use auditor::results::{COVERAGE, Outcome};
use auditor::snapshot::{
    AnyLinkFact, DeviceProgramFact, Inventory, LoadedProgram, MapFact, Object, SlotFact, Snapshot,
    Subject,
};
use bpf::{LinkId, MapId, ProgramId};

use crate::common::*;

/// A host with an inventory of everything that the recorded one has, and nothing of ours.
pub(crate) fn everything() -> Snapshot {
    let mut host = host();
    let look = host.look();
    let programs = look.programs.iter().map(|fact| LoadedProgram {
        id: fact.id,
        name: fact.name.clone(),
        full_name: fact.full_name.clone(),
        tag: fact.tag.clone(),
        kind: fact.kind.clone(),
        loaded_at_ns: fact.loaded_at_ns,
        loaded_at: fact.loaded_at.clone(),
        uid: fact.uid,
        map_ids: fact.map_ids.clone(),
    });
    let inventory = Inventory { programs: programs.collect(), ..Inventory::default() };
    look.inventory = Some(inventory);
    host
}

/// Adds to the inventory of the last look.
pub(crate) trait Stock: Story {
    fn inventory(&mut self) -> &mut Inventory {
        self.look().inventory.as_mut().unwrap()
    }

    fn load(&mut self, id: u32, name: &str, maps: &[u32]) {
        self.inventory().programs.push(LoadedProgram {
            id: ProgramId(id),
            name: name.into(),
            full_name: None,
            tag: "6b1f9c0a7e5d4321".into(),
            kind: "cgroup_skb".into(),
            loaded_at_ns: 1_000 + u64::from(id),
            loaded_at: "2026-11-23T05:26:40Z".into(),
            uid: 1_000,
            map_ids: maps.iter().copied().map(MapId).collect(),
        });
    }

    fn any_link(&mut self, id: u32, program: u32, kind: &str) {
        self.inventory().links.push(AnyLinkFact {
            id: LinkId(id),
            kind: kind.into(),
            program_id: Some(ProgramId(program)),
            map_id: None,
            device: None,
        });
    }

    fn map(&mut self, id: u32, name: &str) {
        let map =
            MapFact { id: MapId(id), name: name.into(), kind: "hash".into(), slots: Vec::new() };
        self.inventory().maps.push(map);
    }

    /// Puts something into a slot of the last map.
    fn slot(&mut self, key: &str, object: Object) {
        let slot = SlotFact { key: key.into(), object };
        self.inventory().maps.last_mut().unwrap().slots.push(slot);
    }

    /// A program on a network device of another namespace.
    fn on_device(&mut self, program: u32, device: u32, hook: &str, link: Option<u32>) {
        self.inventory().device_programs.push(DeviceProgramFact {
            network_namespace: 4_026_532_177,
            namespace_path: Some("/run/netns/blue".into()),
            device,
            name: "eth0".into(),
            hook: hook.into(),
            program_id: ProgramId(program),
            link_id: link.map(LinkId),
        });
    }
}

impl Stock for Snapshot {}

fn all() -> Vec<String> {
    vec!["*".to_owned()]
}

pub(crate) fn difference(before: &Snapshot, after: &Snapshot, globs: &[&str]) -> Difference {
    let globs: Vec<String> = globs.iter().map(|&glob| glob.to_owned()).collect();
    compare(before, after, &globs).unwrap()
}

/// The new things, as people read them.
pub(crate) fn new(before: &Snapshot, after: &Snapshot, globs: &[&str]) -> Vec<String> {
    difference(before, after, globs).new.iter().map(ToString::to_string).collect()
}

/// One of each kind: a program on a cgroup through a pinned link, and its map.
pub(crate) fn one_of_each() -> Snapshot {
    let mut after = everything();
    after.load(41, "leaky", &[9]);
    after.attach(41, A, EG);
    after.link(7, 41, A, EG);
    after.any_link(7, 41, "cgroup");
    after.map(9, "counts");
    after.pin("/sys/fs/bpf/x", link(7));
    after
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
    let kinds: Vec<Kind> = found.new.iter().map(auditor::diff::Item::kind).collect();
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
    other.host.boot_id = "another".into();
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
    assert_eq!(crate::common::host().looks[0].inventory, None);
}

#[test]
fn each_kind_of_thing_is_a_check_and_so_is_whether_everything_was_seen() {
    let (before, mut after) = (everything(), everything());
    let checks = |after: &Snapshot| {
        let found = compare(&before, after, &all()).unwrap();
        let results = report(&before, after, &all(), found).results();
        assert_eq!(
            results.checks.iter().map(|check| check.rule).collect::<Vec<_>>(),
            ["left_attachment", "left_link", "left_pin", "left_program", "left_map", COVERAGE,]
        );
        results.checks
    };
    assert!(checks(&after).iter().all(|check| check.outcome == Outcome::Passed));
    after.map(9, "counts");
    after.gap(Subject::Pins);
    let checks = checks(&after);
    let of = |kind: &str| &checks.iter().find(|check| check.rule == kind).unwrap().outcome;
    let Outcome::Failed(problems) = of(rule(Kind::Map)) else { panic!("{checks:?}") };
    assert_eq!(problems[0].identity, "map counts hash");
    assert!(matches!(of(rule(Kind::Pin)), Outcome::Unseen(_)));
    assert!(matches!(of(COVERAGE), Outcome::Failed(_)));
}

#[test]
fn the_text_has_no_control_characters_whatever_names_there_are() {
    let mut after = one_of_each();
    after.pin("/sys/fs/bpf/a\n\x1b[31m", Object::Map(MapId(9)));
    let before = everything();
    let found = compare(&before, &after, &all()).unwrap();
    let text = report(&before, &after, &all(), found).text(Medium::FILE);
    assert!(text.contains("pin /sys/fs/bpf/a\\n\\x1b[31m of map 9 (counts)"), "{text}");
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
}

/// With something of everything.
pub(crate) fn reported() -> DiffReport {
    let (mut before, mut after) = (everything(), one_of_each());
    before.load(40, "sd_devices", &[]);
    before.attach(40, 12, IN);
    after.gap(Subject::Pins);
    let found = compare(&before, &after, &all()).unwrap();
    let mut report = report(&before, &after, &all(), found);
    report.tool.version = "0.0.0".into();
    report
}

#[test]
fn the_report_reads_as_it_should() {
    insta::assert_snapshot!("diff-text", reported().text(Medium::FILE));
    insta::assert_json_snapshot!("diff-json", reported());
}

/// A new link 7 of program 41, of that type, on device 2.
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
    // The same program on a device of that number, but through another link.
    after.on_device(41, 2, "tcx_ingress", Some(8));
    assert!(link_of(&after).ends_with(unknown), "{}", link_of(&after));
    let mut after = on_device_2("xdp");
    after.on_device(41, 2, "tcx_ingress", None);
    after.on_device(41, 3, "xdp", None);
    after.on_device(40, 2, "xdp", None);
    assert!(link_of(&after).ends_with(unknown), "{}", link_of(&after));
    after.on_device(41, 2, "xdp", None);
    assert!(link_of(&after).contains("on device eth0 (2), xdp, in "), "{}", link_of(&after));
    // In each of two namespaces.
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
    // Another one is.
    after.any_link(8, 41, "xdp");
    assert_eq!(new(&before, &after, &["*"]), ["link 8 (xdp) of program 41 (leaky)"]);
}
