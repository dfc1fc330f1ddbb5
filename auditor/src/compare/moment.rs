//! Turns one look into a list of things to compare.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use kernel::{AttachType, CgroupId, LinkId, MapId, ProgramId};

use super::item::{DeviceRef, Item, LinkRef, MapRef, ProgramRef};
use crate::facts::{
    AnyLinkFact, DeviceProgramFact, Inventory, LoadedProgram, Look, MapFact, Object,
};
use crate::judge::{Ours, correlate};
use crate::report::cgroup;

/// A program's id, with its tag and load time if they could be read. The kernel reuses ids.
type Identity<'a> = (ProgramId, Option<(&'a str, u64)>);

/// Identifies the same thing in two looks. The order is the order of a report.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key<'a> {
    Attachment(CgroupId, AttachType, Identity<'a>, Option<LinkId>),
    Link(LinkId, Option<&'a str>),
    Pin(&'a Path, Object),
    Program(Identity<'a>),
    Map(MapId, Option<(&'a str, &'a str)>),
}

impl Key<'_> {
    /// Tells whether the thing is one of these links, or belongs to one.
    pub(super) fn is_of_link(&self, links: &[LinkId]) -> bool {
        match self {
            Self::Attachment(.., Some(id)) | Self::Link(id, _) | Self::Pin(_, Object::Link(id)) => {
                links.contains(id)
            }
            _ => false,
        }
    }
}

/// One thing of a look.
pub(super) struct Thing<'a> {
    pub(super) key: Key<'a>,
    pub(super) item: Item,
}

/// The things of one look that the globs cover.
pub(crate) struct Moment<'a> {
    programs: HashMap<ProgramId, &'a LoadedProgram>,
    links: HashMap<LinkId, &'a AnyLinkFact>,
    maps: HashMap<MapId, &'a MapFact>,
    /// The maps of our programs.
    their_maps: BTreeSet<MapId>,
    ours: &'a Ours,
    /// Whether the inventory may lack existing objects. Otherwise an object it lacks has gone during the look.
    is_blind: bool,
    things: Vec<Thing<'a>>,
}

impl<'a> Moment<'a> {
    /// Lists the things of a look. Returns `None` if the look has no inventory.
    pub(crate) fn new(look: &'a Look, ours: &'a Ours) -> Option<Self> {
        let inventory = look.inventory.as_ref()?;
        let of_ours = inventory.programs.iter().filter(|program| ours.has(&program.name));
        let mut moment = Self {
            programs: inventory.programs.iter().map(|it| (it.id, it)).collect(),
            links: inventory.links.iter().map(|it| (it.id, it)).collect(),
            maps: inventory.maps.iter().map(|it| (it.id, it)).collect(),
            their_maps: of_ours.flat_map(|program| program.map_ids.iter().copied()).collect(),
            ours,
            is_blind: !super::unseen(look).is_empty(),
            things: Vec::new(),
        };
        moment.things = moment.of(look, inventory);
        moment.things.sort_by(|a, b| a.key.cmp(&b.key));
        Some(moment)
    }

    /// Returns the things in the order of a report.
    pub(super) fn things(&self) -> impl Iterator<Item = &Thing<'a>> {
        self.things.iter()
    }

    pub(super) fn keys(&self) -> BTreeSet<Key<'a>> {
        self.things.iter().map(|thing| thing.key.clone()).collect()
    }

    fn of(&self, look: &'a Look, inventory: &'a Inventory) -> Vec<Thing<'a>> {
        let link_of = correlate(&look.attachments, &look.links);
        let attached = look.attachments.iter().zip(link_of);
        let attached = attached.filter(|(it, _)| self.is_program_ours(it.program_id));
        let attachments = attached.map(|(fact, link)| Thing {
            key: Key::Attachment(
                fact.cgroup_id,
                fact.attach_type,
                self.identity(fact.program_id),
                link,
            ),
            item: Item::Attachment {
                cgroup: cgroup(fact),
                attach_type: fact.attach_type,
                program: self.program(fact.program_id),
                link: link.map(|id| self.link(id)),
            },
        });
        let links = inventory.links.iter().filter(|it| self.is_link_ours(it)).map(|fact| Thing {
            key: Key::Link(fact.id, Some(&fact.kind)),
            item: Item::Link {
                link: self.link(fact.id),
                program: fact.program_id.map(|id| self.program(id)),
                map: fact.map_id.map(|id| self.map(id)),
                device: fact.device.map(|index| device(inventory, fact, index)),
            },
        });
        let pins = look.pins.iter().filter(|pin| self.is_ours(pin.object)).map(|pin| {
            let (link, program, map) = self.pinned(pin.object);
            Thing {
                key: Key::Pin(&pin.path, pin.object),
                item: Item::pin(&pin.path, link, program, map),
            }
        });
        let programs = inventory.programs.iter().filter(|it| self.ours.has(&it.name));
        let programs = programs.map(|fact| Thing {
            key: Key::Program(self.identity(fact.id)),
            item: Item::Program { program: self.program(fact.id) },
        });
        let maps = inventory.maps.iter().filter(|it| self.is_map_ours(it)).map(|fact| Thing {
            key: Key::Map(fact.id, Some((&fact.name, &fact.kind))),
            item: Item::Map { map: self.map(fact.id) },
        });
        attachments.chain(links).chain(pins).chain(programs).chain(maps).collect()
    }

    fn identity(&self, id: ProgramId) -> Identity<'a> {
        (id, self.programs.get(&id).map(|it| (it.tag.as_str(), it.loaded_at_ns)))
    }

    fn is_program_ours(&self, id: ProgramId) -> bool {
        self.programs.get(&id).map_or(self.is_blind, |program| self.ours.has(&program.name))
    }

    fn is_map_ours(&self, map: &MapFact) -> bool {
        self.ours.has(&map.name) || self.their_maps.contains(&map.id)
    }

    fn is_link_ours(&self, link: &AnyLinkFact) -> bool {
        link.program_id.is_some_and(|id| self.is_program_ours(id))
            || link.map_id.is_some_and(|id| self.is_ours(Object::Map(id)))
    }

    fn is_ours(&self, object: Object) -> bool {
        match object {
            Object::Program(id) => self.is_program_ours(id),
            Object::Link(id) => {
                self.links.get(&id).map_or(self.is_blind, |link| self.is_link_ours(link))
            }
            Object::Map(id) => {
                self.maps.get(&id).map_or(self.is_blind, |map| self.is_map_ours(map))
            }
        }
    }

    fn pinned(&self, object: Object) -> (Option<LinkRef>, Option<ProgramRef>, Option<MapRef>) {
        match object {
            Object::Program(id) => (None, Some(self.program(id)), None),
            Object::Map(id) => (None, None, Some(self.map(id))),
            Object::Link(id) => {
                let fact = self.links.get(&id);
                let program = fact.and_then(|link| link.program_id).map(|id| self.program(id));
                let map = fact.and_then(|link| link.map_id).map(|id| self.map(id));
                (Some(self.link(id)), program, map)
            }
        }
    }

    fn program(&self, id: ProgramId) -> ProgramRef {
        let fact = self.programs.get(&id);
        ProgramRef {
            id,
            name: fact.map(|it| it.name.clone()),
            full_name: fact.and_then(|it| it.full_name.clone()),
            kind: fact.map(|it| it.kind.clone()),
            tag: fact.map(|it| it.tag.clone()),
            loaded_at: fact.map(|it| it.loaded_at.clone()),
            uid: fact.map(|it| it.uid),
        }
    }

    fn link(&self, id: LinkId) -> LinkRef {
        LinkRef { id, kind: self.links.get(&id).map(|it| it.kind.clone()) }
    }

    fn map(&self, id: MapId) -> MapRef {
        let fact = self.maps.get(&id);
        MapRef { id, name: fact.map(|it| it.name.clone()), kind: fact.map(|it| it.kind.clone()) }
    }
}

/// Returns the device of a link. The place is known only if the look covers the device's namespace. XDP reports no
/// links, so an XDP link needs exactly one matching place.
fn device(inventory: &Inventory, link: &AnyLinkFact, index: u32) -> DeviceRef {
    let is_it = |place: &&DeviceProgramFact| match place.link_id {
        Some(id) => id == link.id,
        None => {
            link.kind == "xdp"
                && place.hook == "xdp"
                && (place.device, Some(place.program_id)) == (index, link.program_id)
        }
    };
    let mut places = inventory.device_programs.iter().filter(is_it);
    let place = places.next().filter(|_| places.next().is_none());
    DeviceRef {
        index,
        name: place.map(|it| it.name.clone()),
        hook: place.map(|it| it.hook.clone()),
        network_namespace: place.map(|it| it.network_namespace),
        namespace_path: place.and_then(|it| it.namespace_path.clone()),
    }
}
