//! Builds an inventory of a host, and differences between two moments.

use auditor::compare::{Difference, compare};
use auditor::facts::{
    AnyLinkFact, DeviceProgramFact, Inventory, LoadedProgram, MapFact, Object, SlotFact, Snapshot,
};
use kernel::{LinkId, MapId, ProgramId};

use super::*;

/// Returns a host with the inventory of the recorded one, and nothing of ours.
pub(crate) fn everything() -> Snapshot {
    let mut host = host();
    let look = host.look();
    let programs = look.programs.iter().map(|fact| fact.loaded.clone());
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

    /// Puts an object into a slot of the last map.
    fn slot(&mut self, key: &str, object: Object) {
        let slot = SlotFact { key: key.into(), object };
        self.inventory().maps.last_mut().unwrap().slots.push(slot);
    }

    /// Adds a program on a network device of another namespace.
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

pub(crate) fn difference(before: &Snapshot, after: &Snapshot, globs: &[&str]) -> Difference {
    let globs: Vec<String> = globs.iter().map(|&glob| glob.to_owned()).collect();
    compare(before, after, &globs).unwrap()
}

/// Returns the new things, worded for people.
pub(crate) fn new(before: &Snapshot, after: &Snapshot, globs: &[&str]) -> Vec<String> {
    difference(before, after, globs).new.iter().map(ToString::to_string).collect()
}

/// Returns a host with one thing of each kind: a program on a cgroup through a pinned link, and its map.
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
