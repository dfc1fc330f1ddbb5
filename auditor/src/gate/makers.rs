//! Tells who holds the new things, and what else keeps them.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use kernel::loads::Loader;
use kernel::{LinkId, MapId, ProgramId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::processes::Processes;
use crate::compare::Item;
use crate::facts::{
    DeviceProgramFact, HolderFact, Inventory, Look, MapFact, Object, PinFact, Process, Snapshot,
    Subject,
};
use crate::judge::correlate;

/// Where a process comes from, seen from the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The command or one of its children started it.
    Command,
    /// It was started while the command ran, and not by it.
    Meanwhile,
    /// It was running before the command.
    Earlier,
    /// It cannot be told: it, or who started it, has ended since, or nothing can be read of it.
    Unknown,
}

impl Origin {
    fn wording(self) -> &'static str {
        match self {
            Self::Command => "started by the command and still running",
            Self::Meanwhile => "started meanwhile, but not by the command",
            Self::Earlier => "running since before the command",
            Self::Unknown => "of which nothing more can be told",
        }
    }

    pub(super) fn is_not_the_commands(self) -> bool {
        matches!(self, Self::Meanwhile | Self::Earlier)
    }
}

/// A process that holds something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Holder {
    /// Which.
    #[serde(flatten)]
    pub process: Process,
    /// Where it comes from.
    pub origin: Origin,
}

/// The process that loaded a program, as the kernel has written it down. It may have ended since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LoadedBy {
    /// Its pid; 0 for one outside of this pid namespace.
    pub pid: u32,
    /// Its name then; empty where that is not known.
    pub comm: String,
    /// The command started it, or something that the command started.
    pub is_of_command: bool,
}

/// Formats as `process 4711 (bpftool), which the command started`.
impl fmt::Display for LoadedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            0 => f.write_str("a process outside of this pid namespace")?,
            pid => write!(f, "process {pid}")?,
        }
        if !self.comm.is_empty() {
            write!(f, " ({})", self.comm)?;
        }
        f.write_str(if self.is_of_command {
            ", which the command started"
        } else {
            ", which the command did not start"
        })
    }
}

/// What keeps things, according to one look.
pub struct Held<'a> {
    look: Option<&'a Look>,
    inventory: Option<&'a Inventory>,
    processes: &'a Processes,
    /// Programs that are attached to a cgroup without a link.
    without_link: HashSet<ProgramId>,
}

impl<'a> Held<'a> {
    /// Reads the last look of a snapshot.
    pub fn new(after: &'a Snapshot, processes: &'a Processes) -> Self {
        let look = after.looks.last();
        let attached = look.into_iter().flat_map(|look| {
            let links = correlate(&look.attachments, &look.links);
            look.attachments.iter().zip(links).filter(|(_, link)| link.is_none())
        });
        let without_link = attached.map(|(it, _)| it.program_id).collect();
        let inventory = look.and_then(|look| look.inventory.as_ref());
        Self { look, inventory, processes, without_link }
    }

    /// Returns the processes that keep a thing, by pid: those that hold it, or something that keeps it.
    pub fn holders(&self, item: &Item) -> Vec<Holder> {
        self.holders_of(&self.keeping(item))
    }

    /// Returns the processes that hold one of these objects, by pid.
    pub(super) fn holders_of(&self, objects: &[Object]) -> Vec<Holder> {
        let facts = self.look.into_iter().flat_map(|look| &look.holders);
        let facts = facts.filter(|it| it.objects.iter().any(|object| objects.contains(object)));
        let holder = |HolderFact { process, .. }: &HolderFact| {
            let (pid, process) = (process.pid, process.clone());
            (pid, Holder { process, origin: self.processes.origin(pid) })
        };
        facts.map(holder).collect::<BTreeMap<_, _>>().into_values().collect()
    }

    /// Says who may have made the thing and what keeps it, in a sentence. Names appear exactly as the system has them.
    /// Escape the sentence before printing it to a terminal.
    pub fn reason(&self, item: &Item) -> String {
        let loader = self.loader(item);
        let when = item.program().and_then(|program| {
            let (at, uid) = (program.loaded_at.as_ref()?, program.uid?);
            let by = loader.as_ref().map(|by| format!(", {by}")).unwrap_or_default();
            Some(format!("loaded {at} by uid {uid}{by}"))
        });
        let holders = held_by(&self.holders(item));
        let maker = holders.unwrap_or_else(|| {
            let which = if self.sees_every_process() { "" } else { " that could be looked into" };
            let maker = if loader.is_some() { "" } else { "maker unknown: " };
            format!("{maker}no process{which} holds it any more")
        });
        let keepers = self.keepers(item);
        let kept = (!keepers.is_empty()).then(|| format!("kept by {}", keepers.join(", ")));
        let parts: Vec<String> = [when, Some(maker), kept].into_iter().flatten().collect();
        parts.join("; ")
    }

    /// Returns the process that loaded the thing's program, if known.
    pub(super) fn loader(&self, item: &Item) -> Option<LoadedBy> {
        let Loader { pid, name, is_descendant } =
            self.processes.loaders.get(&item.program()?.id)?;
        Some(LoadedBy { pid: *pid, comm: name.clone(), is_of_command: (*is_descendant)? })
    }

    fn sees_every_process(&self) -> bool {
        let is_hidden =
            |about: Subject| matches!(about, Subject::Processes | Subject::HiddenProcesses);
        self.look.is_some_and(|look| !look.coverage.gaps.iter().any(|gap| is_hidden(gap.about)))
    }

    /// Returns the objects that keep a thing while a process holds one of them.
    pub(super) fn keeping(&self, item: &Item) -> Vec<Object> {
        match item {
            Item::Attachment { link: Some(link), .. }
            | Item::Link { link, .. }
            | Item::Pin { link: Some(link), .. } => vec![Object::Link(link.id)],
            Item::Attachment { program, .. }
            | Item::Program { program }
            | Item::Pin { program: Some(program), .. } => self.keeping_program(program.id),
            Item::Map { map } | Item::Pin { map: Some(map), .. } => self.keeping_map(map.id),
            Item::Pin { .. } => Vec::new(),
        }
    }

    /// Returns the objects that keep a program: itself, its links, and maps with the program in a slot.
    pub(super) fn keeping_program(&self, id: ProgramId) -> Vec<Object> {
        let links = self.links_of(id).map(Object::Link);
        let maps = self.slots_of(Object::Program(id)).map(|(map, _)| Object::Map(map.id));
        [Object::Program(id)].into_iter().chain(links).chain(maps).collect()
    }

    /// Returns the objects that keep a map: itself, the programs that use it, links, and maps with the map in a slot.
    pub(super) fn keeping_map(&self, id: MapId) -> Vec<Object> {
        let programs = self.users_of(id).flat_map(|program| self.keeping_program(program));
        let links = self.links_to(id).map(Object::Link);
        let maps = self.slots_of(Object::Map(id)).map(|(map, _)| Object::Map(map.id));
        [Object::Map(id)].into_iter().chain(programs).chain(links).chain(maps).collect()
    }

    fn links_of(&self, program: ProgramId) -> impl Iterator<Item = LinkId> {
        let links = self.inventory.into_iter().flat_map(|it| &it.links);
        links.filter(move |link| link.program_id == Some(program)).map(|link| link.id)
    }

    pub(super) fn users_of(&self, map: MapId) -> impl Iterator<Item = ProgramId> {
        let programs = self.inventory.into_iter().flat_map(|it| &it.programs);
        programs.filter(move |program| program.map_ids.contains(&map)).map(|program| program.id)
    }

    /// Returns the maps that have the object in a slot, with the slot's key.
    fn slots_of(&self, object: Object) -> impl Iterator<Item = (&'a MapFact, &'a str)> {
        let maps = self.inventory.into_iter().flat_map(|it| &it.maps);
        maps.flat_map(move |map| {
            let slots = map.slots.iter().filter(move |slot| slot.object == object);
            slots.map(move |slot| (map, slot.key.as_str()))
        })
    }

    /// Returns the network devices that have the program without a link.
    fn on_devices(&self, program: ProgramId) -> impl Iterator<Item = &'a DeviceProgramFact> {
        let places = self.inventory.into_iter().flat_map(|it| &it.device_programs);
        places.filter(move |place| place.program_id == program && place.link_id.is_none())
    }

    /// Tells whether the thing stays even if no process holds it.
    pub(super) fn is_kept(&self, item: &Item) -> bool {
        let has_no_holder = match item {
            Item::Pin { .. } => true,
            Item::Attachment { link, .. } => link.is_none(),
            Item::Program { .. } | Item::Link { .. } | Item::Map { .. } => false,
        };
        has_no_holder || self.keeping(item).into_iter().any(|object| self.is_kept_by_itself(object))
    }

    /// Tells whether the object is pinned, or attached without a link.
    fn is_kept_by_itself(&self, object: Object) -> bool {
        let is_attached = |id| {
            self.without_link.contains(&id)
                || self.on_devices(id).any(|place| self.is_without_link(place))
        };
        self.pins(object).next().is_some()
            || matches!(object, Object::Program(id) if is_attached(id))
    }

    /// Tells whether a process, a pin or an attachment keeps the object, directly or through other objects.
    ///
    /// Objects that only keep each other do not count. The kernel frees them one by one, some time after their last
    /// user let go. So a program that uses a map keeps the map only if something keeps the program.
    pub(super) fn stays(&self, object: Object) -> bool {
        let all = self.all_keeping(object);
        let is_kept = |&object: &Object| self.is_kept_by_itself(object) || self.is_attached(object);
        !self.holders_of(&all).is_empty() || all.iter().any(is_kept)
    }

    /// Returns an object and everything that keeps it, directly or through other objects.
    pub(super) fn all_keeping(&self, object: Object) -> Vec<Object> {
        let mut found = vec![object];
        let mut next = 0;
        while let Some(&object) = found.get(next) {
            for by in self.kept_by(object) {
                if !found.contains(&by) {
                    found.push(by);
                }
            }
            next += 1;
        }
        found
    }

    /// Tells whether the object is a program on a cgroup or a device, with or without a link.
    fn is_attached(&self, object: Object) -> bool {
        let Object::Program(id) = object else { return false };
        let mut on_cgroups = self.look.into_iter().flat_map(|look| &look.attachments);
        let mut on_devices = self.inventory.into_iter().flat_map(|it| &it.device_programs);
        on_cgroups.any(|it| it.program_id == id) || on_devices.any(|it| it.program_id == id)
    }

    /// Returns the objects that directly keep an object, whether or not something keeps them.
    fn kept_by(&self, object: Object) -> Vec<Object> {
        let slots = self.slots_of(object).map(|(map, _)| Object::Map(map.id));
        let by: Vec<Object> = match object {
            Object::Program(id) => self.links_of(id).map(Object::Link).collect(),
            Object::Map(id) => {
                let programs = self.users_of(id).map(Object::Program);
                programs.chain(self.links_to(id).map(Object::Link)).collect()
            }
            Object::Link(_) => Vec::new(),
        };
        by.into_iter().chain(slots).collect()
    }

    fn links_to(&self, map: MapId) -> impl Iterator<Item = LinkId> {
        let links = self.inventory.into_iter().flat_map(|it| &it.links);
        links.filter(move |link| link.map_id == Some(map)).map(|link| link.id)
    }

    /// Tells whether a place is without a link. For XDP the kernel does not report this, so a link of the program
    /// decides.
    fn is_without_link(&self, place: &DeviceProgramFact) -> bool {
        place.hook != "xdp" || self.links_of(place.program_id).next().is_none()
    }

    /// Describes what keeps a thing, apart from processes.
    pub(super) fn keepers(&self, item: &Item) -> Vec<String> {
        match item {
            Item::Link { link, .. } | Item::Attachment { link: Some(link), .. } => {
                self.pins(Object::Link(link.id)).collect()
            }
            Item::Program { program } => {
                let attached = self.look.into_iter().flat_map(|look| &look.attachments);
                let on = attached.filter(|it| it.program_id == program.id).map(|it| {
                    format!("its attachment to {} ({})", it.cgroup.display(), it.attach_type)
                });
                let links = self.links_of(program.id).map(|id| format!("link {id}"));
                let devices =
                    self.on_devices(program.id).filter(|place| self.is_without_link(place));
                let devices = devices.map(|place| format!("its attachment to {place}"));
                let object = Object::Program(program.id);
                on.chain(links)
                    .chain(devices)
                    .chain(self.slots(object))
                    .chain(self.pins(object))
                    .collect()
            }
            Item::Map { map } => {
                let users = self.users_of(map.id).map(|id| format!("program {id}"));
                let object = Object::Map(map.id);
                users.chain(self.slots(object)).chain(self.pins(object)).collect()
            }
            Item::Attachment { .. } | Item::Pin { .. } => Vec::new(),
        }
    }

    fn pins(&self, object: Object) -> impl Iterator<Item = String> {
        let here = self.look.into_iter().flat_map(|look| &look.pins);
        let elsewhere = &self.processes.pins_elsewhere;
        let pins = here.chain(elsewhere).filter(move |pin| pin.object == object);
        pins.map(|pin: &PinFact| format!("its pin {}", pin.path.display()))
    }

    /// Describes slots: `entry 0 of map 12 (jmp), which is kept by its pin /sys/fs/bpf/jmp`.
    fn slots(&self, object: Object) -> impl Iterator<Item = String> {
        self.slots_of(object).map(|(map, key)| {
            let name = if map.name.is_empty() { String::new() } else { format!(" ({})", map.name) };
            let pins: Vec<String> = self.pins(Object::Map(map.id)).collect();
            let users = self.users_of(map.id).map(|id| format!("program {id}"));
            let by: Vec<String> = pins.into_iter().chain(users).collect();
            let kept = if by.is_empty() {
                String::new()
            } else {
                format!(", which is kept by {}", by.join(" and "))
            };
            format!("entry {key} of map {}{name}{kept}", map.id)
        })
    }
}

/// Says who holds something; `None` if nobody does.
pub fn held_by(holders: &[Holder]) -> Option<String> {
    let holders: Vec<String> = holders
        .iter()
        .map(|it| {
            format!(
                "held by process {} ({}), {}",
                it.process.pid,
                it.process.comm,
                it.origin.wording()
            )
        })
        .collect();
    (!holders.is_empty()).then(|| holders.join(", "))
}
