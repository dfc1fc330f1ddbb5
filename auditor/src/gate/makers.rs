//! Who holds what is left, and with that who may have made it.

use std::collections::BTreeMap;

use bpf::{LinkId, MapId, ProgramId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::processes::Processes;
use crate::diff::Item;
use crate::snapshot::{HolderFact, Inventory, Look, Object, Snapshot, Subject};

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
    /// It cannot be told: it has ended since, or nothing can be read of it.
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
}

/// A process that holds something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Holder {
    /// Its pid.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// Where it comes from.
    pub origin: Origin,
}

/// What keeps things, at the moment after.
pub struct Held<'a> {
    look: Option<&'a Look>,
    inventory: Option<&'a Inventory>,
    processes: &'a Processes,
}

impl<'a> Held<'a> {
    /// By the last look of a snapshot.
    pub fn new(after: &'a Snapshot, processes: &'a Processes) -> Self {
        let look = after.looks.last();
        Self { look, inventory: look.and_then(|look| look.inventory.as_ref()), processes }
    }

    /// Processes that keep a thing, by pid: those that have it open, or something that holds it.
    pub fn holders(&self, item: &Item) -> Vec<Holder> {
        let mut found = BTreeMap::new();
        for object in self.keeping(item) {
            let facts = self.look.into_iter().flat_map(|look| &look.holders);
            for HolderFact { pid, comm, .. } in facts.filter(|it| it.objects.contains(&object)) {
                let origin = self.processes.origin(*pid);
                found.insert(*pid, Holder { pid: *pid, comm: comm.clone(), origin });
            }
        }
        found.into_values().collect()
    }

    /// Somebody else made it meanwhile: it is held, and only by processes that were running before the command. What
    /// needs no process to stay (a pin, a legacy attachment) is theirs only if what it keeps is new, and theirs.
    pub fn is_others(&self, item: &Item, new: &[Item]) -> bool {
        let holders = self.holders(item);
        let is_held = !holders.is_empty() && holders.iter().all(|it| it.origin == Origin::Earlier);
        is_held
            && match item {
                Item::Attachment { link: Some(link), .. } | Item::Pin { link: Some(link), .. } => {
                    has_link(new, link.id)
                }
                Item::Attachment { program, .. } | Item::Pin { program: Some(program), .. } => {
                    has_program(new, program.id)
                }
                Item::Pin { map: Some(map), .. } => has_map(new, map.id),
                Item::Pin { .. } => false,
                Item::Link { .. } | Item::Program { .. } | Item::Map { .. } => true,
            }
    }

    /// Who may have made it, and what keeps it, in a sentence. Names are in it as they are: escape it before it goes
    /// to a terminal.
    pub fn reason(&self, item: &Item) -> String {
        let loaded = item.program().and_then(|program| {
            let (at, uid) = (program.loaded_at.as_ref()?, program.uid?);
            Some(format!("loaded {at} by uid {uid}"))
        });
        let holders: Vec<String> = self
            .holders(item)
            .iter()
            .map(|it| format!("held by process {} ({}), {}", it.pid, it.comm, it.origin.wording()))
            .collect();
        let maker = if holders.is_empty() {
            let which = if self.sees_every_process() { "" } else { " that could be looked into" };
            format!("maker unknown: no process{which} holds it any more")
        } else {
            holders.join(", ")
        };
        let keepers = self.keepers(item);
        let kept = (!keepers.is_empty()).then(|| format!("kept by {}", keepers.join(", ")));
        let parts: Vec<String> = [loaded, Some(maker), kept].into_iter().flatten().collect();
        parts.join("; ")
    }

    fn sees_every_process(&self) -> bool {
        let is_hidden =
            |about: Subject| matches!(about, Subject::Processes | Subject::HiddenProcesses);
        self.look.is_some_and(|look| !look.coverage.gaps.iter().any(|gap| is_hidden(gap.about)))
    }

    /// The objects that a process may have open to keep a thing.
    fn keeping(&self, item: &Item) -> Vec<Object> {
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

    fn keeping_program(&self, id: ProgramId) -> Vec<Object> {
        let links = self.links_of(id).map(Object::Link);
        [Object::Program(id)].into_iter().chain(links).collect()
    }

    fn keeping_map(&self, id: MapId) -> Vec<Object> {
        let programs = self.users_of(id).flat_map(|program| self.keeping_program(program));
        let links = self.inventory.into_iter().flat_map(|it| &it.links);
        let links = links.filter(|link| link.map_id == Some(id)).map(|link| Object::Link(link.id));
        [Object::Map(id)].into_iter().chain(programs).chain(links).collect()
    }

    fn links_of(&self, program: ProgramId) -> impl Iterator<Item = LinkId> {
        let links = self.inventory.into_iter().flat_map(|it| &it.links);
        links.filter(move |link| link.program_id == Some(program)).map(|link| link.id)
    }

    fn users_of(&self, map: MapId) -> impl Iterator<Item = ProgramId> {
        let programs = self.inventory.into_iter().flat_map(|it| &it.programs);
        programs.filter(move |program| program.map_ids.contains(&map)).map(|program| program.id)
    }

    /// What keeps a thing beside processes.
    fn keepers(&self, item: &Item) -> Vec<String> {
        let Some(look) = self.look else { return Vec::new() };
        let pins = |object: Object| {
            let pins = look.pins.iter().filter(move |pin| pin.object == object);
            pins.map(|pin| format!("its pin {}", pin.path.display()))
        };
        match item {
            Item::Link { link, .. } | Item::Attachment { link: Some(link), .. } => {
                pins(Object::Link(link.id)).collect()
            }
            Item::Program { program } => {
                let on = look.attachments.iter().filter(|it| it.program_id == program.id);
                let on = on.map(|it| {
                    format!("its attachment to {} ({})", it.cgroup.display(), it.attach_type)
                });
                let links = self.links_of(program.id).map(|id| format!("link {id}"));
                on.chain(links).chain(pins(Object::Program(program.id))).collect()
            }
            Item::Map { map } => {
                let users = self.users_of(map.id).map(|id| format!("program {id}"));
                users.chain(pins(Object::Map(map.id))).collect()
            }
            Item::Attachment { .. } | Item::Pin { .. } => Vec::new(),
        }
    }
}

fn has_program(new: &[Item], id: ProgramId) -> bool {
    new.iter().any(|item| matches!(item, Item::Program { program } if program.id == id))
}

fn has_link(new: &[Item], id: LinkId) -> bool {
    new.iter().any(|item| matches!(item, Item::Link { link, .. } if link.id == id))
}

fn has_map(new: &[Item], id: MapId) -> bool {
    new.iter().any(|item| matches!(item, Item::Map { map } if map.id == id))
}
