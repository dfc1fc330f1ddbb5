//! Finds evidence that a new thing is somebody else's, not the command's. Without holders and without such evidence
//! the thing counts as the command's.
//!
//! A user id is no evidence, because a command that runs as root can become any user. A folder is no evidence either,
//! because anybody who can write to a bpffs can pin there.

use bpf::Owner;
use kernel::loads::Asked;
use kernel::{LinkId, MapId, ProgramId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::makers::{Held, Holder, Origin};
use super::processes::Processes;
use crate::compare::Item;
use crate::facts::{LoadedProgram, Look, Object, Snapshot};

/// What shows it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// Only processes hold it that do not descend from the command, in two looks.
    Holders,
    /// Its program was loaded before the command was started, though after the first look.
    LoadedBefore,
    /// Its program was loaded when everything that the command had started was over.
    LoadedAfter,
    /// A process loaded its program that does not descend from the command: the kernel has written down who forks whom, and
    /// who loads what.
    Loader,
    /// The command, and what it started, has not asked the kernel for any such thing (a map, a pin, an attachment, a link).
    NotAsked,
    /// The owner lives that its program names, or a record of the ledger, and does not descend from the command.
    Owner,
}

impl Evidence {
    /// Tells whether no later look could change the evidence. (Holders can change. A process that lists programs opens
    /// each of them for an instant.)
    pub(super) fn is_certain(self) -> bool {
        self != Self::Holders
    }

    /// Words the evidence as the end of a sentence; `None` if the list of holders already says it.
    pub fn wording(self) -> Option<&'static str> {
        match self {
            Self::Holders => None,
            Self::LoadedBefore => Some("loaded before the command was started"),
            Self::LoadedAfter => Some("loaded when the command and all that it started was over"),
            Self::Loader => Some("loaded by a process that the command did not start"),
            Self::NotAsked => Some("the command has made nothing of the kind"),
            Self::Owner => Some("its owner was not started by the command"),
        }
    }
}

/// Attributes new things to the command or to somebody else.
pub(super) struct Attribution<'a> {
    pub(super) held: &'a Held<'a>,
    pub(super) processes: &'a Processes,
    pub(super) after: &'a Snapshot,
    /// All new things. A new attachment or pin of an old object may be the command's, whoever holds the object.
    pub(super) new: &'a [Item],
}

impl<'a> Attribution<'a> {
    /// Returns the evidence that the thing is somebody else's, if there is any.
    pub(super) fn of(&self, item: &Item) -> Option<Evidence> {
        let is_asked = asked_for(item).is_none_or(|asked| self.may_have_asked(asked));
        if !is_asked && !self.has_command(&self.held.keeping(item)) {
            return Some(Evidence::NotAsked);
        }
        match item {
            Item::Program { program } => self.of_program(program.id),
            Item::Map { map } => self.of_map(map.id),
            Item::Link { link, .. } => self.of_link(link.id),
            Item::Attachment { link: Some(link), .. } | Item::Pin { link: Some(link), .. } => {
                self.is_new_link(link.id).then(|| self.of_link(link.id))?
            }
            Item::Attachment { program, .. } | Item::Pin { program: Some(program), .. } => {
                self.is_new_program(program.id).then(|| self.of_program(program.id))?
            }
            Item::Pin { map: Some(map), .. } => {
                self.is_new_map(map.id).then(|| self.of_map(map.id))?
            }
            Item::Pin { .. } => None,
        }
    }

    /// Tells whether the thing may be the command's despite the evidence. The command may attach or pin what others
    /// have loaded. If a thing stays without its holders, the holders prove nothing.
    pub(super) fn is_open(&self, item: &Item, evidence: Evidence, is_kept: bool) -> bool {
        match (item, evidence) {
            (_, Evidence::Holders) => {
                is_kept || matches!(item, Item::Map { map } if self.is_used_by_command(map.id))
            }
            (_, Evidence::NotAsked | Evidence::LoadedAfter) | (Item::Program { .. }, _) => false,
            _ => is_kept || self.by_holders(&self.held.keeping(item)).is_none(),
        }
    }

    fn may_have_asked(&self, asked: Asked) -> bool {
        self.processes.asked.as_ref().is_none_or(|all| all.contains(&asked))
    }

    fn is_used_by_command(&self, map: MapId) -> bool {
        self.held.users_of(map).any(|id| self.is_the_commands(id))
    }

    fn of_program(&self, id: ProgramId) -> Option<Evidence> {
        if self.is_the_commands(id) {
            return None;
        }
        self.certainly(id).or_else(|| self.by_holders(&self.held.keeping_program(id)))
    }

    fn of_link(&self, id: LinkId) -> Option<Evidence> {
        let program = self.inventory_links().find(|(link, _)| *link == id).and_then(|(_, it)| it);
        let program = program.filter(|id| self.is_new_program(*id));
        if program.is_some_and(|id| self.is_the_commands(id)) {
            return None;
        }
        program
            .and_then(|program| self.certainly(program))
            .or_else(|| self.by_holders(&[Object::Link(id)]))
    }

    /// Attributes a map. A map has no load time, so it counts as old as the programs that use it.
    fn of_map(&self, id: MapId) -> Option<Evidence> {
        let users: Vec<Option<Evidence>> =
            self.held.users_of(id).map(|program| self.certainly(program)).collect();
        let first = users.first().copied().flatten();
        let is_theirs = users.iter().all(|it| it.is_some_and(Evidence::is_certain));
        first
            .filter(|_| is_theirs && !self.has_command(&self.held.keeping_map(id)))
            .or_else(|| self.by_holders(&self.held.keeping_map(id)))
    }

    /// Tells whether the command loaded the program, whoever holds it now.
    fn is_the_commands(&self, id: ProgramId) -> bool {
        self.is_new_program(id) && self.processes.has_command_loaded(id) == Some(true)
    }

    /// Returns the evidence of the program's loader, load time and owner, unless a process of the command holds it.
    fn certainly(&self, id: ProgramId) -> Option<Evidence> {
        let program = self.program(id)?;
        let by_time = match (self.processes.began_ns, self.processes.over_ns) {
            (Some(began), _) if program.loaded_at_ns < began => Some(Evidence::LoadedBefore),
            (_, Some(over)) if program.loaded_at_ns > over => Some(Evidence::LoadedAfter),
            _ => None,
        };
        let is_others = self.processes.has_command_loaded(id) == Some(false);
        by_time
            .or_else(|| is_others.then_some(Evidence::Loader))
            .or_else(|| self.has_other_owner(program).then_some(Evidence::Owner))
            .filter(|_| !self.has_command(&self.held.keeping_program(id)))
    }

    /// Tells whether the program names owners who are all running and do not descend from the command. (A dead owner's
    /// start time may come from another time namespace, so it proves nothing.)
    fn has_other_owner(&self, program: &LoadedProgram) -> bool {
        let Some(look) = self.look() else { return false };
        let named = look.programs.iter().filter(|it| it.loaded.id == program.id);
        let named = named.filter_map(|it| it.owner.as_ref());
        let recorded = look
            .ledger
            .iter()
            .filter(|entry| entry.attachments.iter().any(|it| it.identity() == program.identity()));
        let owners: Vec<&Owner> = named.chain(recorded.map(|entry| &entry.owner)).collect();
        let is_other = |owner: &&Owner| {
            (&owner.boot_id, owner.pid_namespace)
                == (&self.after.host.host.boot_id, self.after.host.pid_namespace)
                && self.processes.is_another(owner.pid, owner.start_time)
        };
        !owners.is_empty() && owners.iter().all(is_other)
    }

    fn by_holders(&self, objects: &[Object]) -> Option<Evidence> {
        let holders = self.held.holders_of(objects);
        let is_others = |holder: &Holder| holder.origin.is_not_the_commands();
        (!holders.is_empty() && holders.iter().all(is_others)).then_some(Evidence::Holders)
    }

    fn has_command(&self, objects: &[Object]) -> bool {
        self.held.holders_of(objects).iter().any(|it| it.origin == Origin::Command)
    }

    fn look(&self) -> Option<&'a Look> {
        self.after.looks.last()
    }

    fn program(&self, id: ProgramId) -> Option<&'a LoadedProgram> {
        let inventory = self.look()?.inventory.as_ref()?;
        inventory.programs.iter().find(|program| program.id == id)
    }

    fn inventory_links(&self) -> impl Iterator<Item = (LinkId, Option<ProgramId>)> + 'a {
        let inventory = self.look().and_then(|look| look.inventory.as_ref());
        inventory.into_iter().flat_map(|it| &it.links).map(|link| (link.id, link.program_id))
    }

    fn is_new_program(&self, id: ProgramId) -> bool {
        self.new.iter().any(|item| matches!(item, Item::Program { program } if program.id == id))
    }

    fn is_new_link(&self, id: LinkId) -> bool {
        self.new.iter().any(|item| matches!(item, Item::Link { link, .. } if link.id == id))
    }

    fn is_new_map(&self, id: MapId) -> bool {
        self.new.iter().any(|item| matches!(item, Item::Map { map } if map.id == id))
    }
}

/// Returns the request to the kernel that makes such a thing; `None` for a program, whose loader is known directly.
fn asked_for(item: &Item) -> Option<Asked> {
    Some(match item {
        Item::Attachment { link: None, .. } => Asked::Attachment,
        Item::Attachment { .. } | Item::Link { .. } => Asked::Link,
        Item::Pin { .. } => Asked::Pin,
        Item::Map { .. } => Asked::Map,
        Item::Program { .. } => return None,
    })
}
