//! What shows that something new is somebody else's, and not the command's. What nobody holds is the command's, unless
//! one of these says otherwise.
//!
//! A user id is no evidence: a command that runs as root can become any user. Nor is a folder: whoever may write to a
//! bpffs may pin wherever others have.

use bpf::loads::Asked;
use bpf::{LinkId, MapId, Owner, ProgramId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::makers::{Held, Holder, Origin};
use super::processes::Processes;
use crate::diff::Item;
use crate::snapshot::{LoadedProgram, Look, Object, Snapshot};

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
    /// No other look could show anything else. (A process may open anything for an instant: whoever lists programs does.)
    pub(super) fn is_certain(self) -> bool {
        self != Self::Holders
    }

    /// The end of a sentence; nothing where the holders say it.
    pub(super) fn wording(self) -> Option<&'static str> {
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

/// Attributes what is new.
pub(super) struct Attribution<'a> {
    pub(super) held: &'a Held<'a>,
    pub(super) processes: &'a Processes,
    pub(super) after: &'a Snapshot,
    /// Everything that is new. What is new of something old may be the command's, whoever holds the old thing.
    pub(super) new: &'a [Item],
}

impl<'a> Attribution<'a> {
    /// Whether it seems to be somebody else's.
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

    /// Whether it may be the command's all the same. The command may attach or pin what others have loaded. And where a
    /// thing stays without those who hold it, that they hold it shows nothing.
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

    /// A map without a load time of its own is as old as the programs that use it.
    fn of_map(&self, id: MapId) -> Option<Evidence> {
        let users: Vec<Option<Evidence>> =
            self.held.users_of(id).map(|program| self.certainly(program)).collect();
        let first = users.first().copied().flatten();
        let is_theirs = users.iter().all(|it| it.is_some_and(Evidence::is_certain));
        first
            .filter(|_| is_theirs && !self.has_command(&self.held.keeping_map(id)))
            .or_else(|| self.by_holders(&self.held.keeping_map(id)))
    }

    /// The command has loaded it, whoever holds it now.
    fn is_the_commands(&self, id: ProgramId) -> bool {
        self.is_new_program(id) && self.processes.has_command_loaded(id) == Some(true)
    }

    /// What its loader, its time and the name of its owner say of a program, unless a process of the command holds it.
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

    /// It names owners, and all of them live and do not descend from the command. (The start time of a dead one may be of
    /// another time namespace, so that it says nothing.)
    fn has_other_owner(&self, program: &LoadedProgram) -> bool {
        let Some(look) = self.look() else { return false };
        let named = look.programs.iter().filter(|it| it.id == program.id);
        let named = named.filter_map(|it| it.owner.as_ref());
        let recorded = look.ledger.iter().filter(|entry| {
            entry.attachments.iter().any(|it| {
                (it.program_id, it.loaded_at_ns) == (program.id, program.loaded_at_ns)
                    && it.tag == program.tag
            })
        });
        let owners: Vec<&Owner> = named.chain(recorded.map(|entry| &entry.owner)).collect();
        let is_other = |owner: &&Owner| {
            (&owner.boot_id, owner.pid_namespace)
                == (&self.after.host.boot_id, self.after.host.pid_namespace)
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

/// What the kernel was asked for that made it. A program is not made so: who loads it is known itself.
fn asked_for(item: &Item) -> Option<Asked> {
    Some(match item {
        Item::Attachment { link: None, .. } => Asked::Attachment,
        Item::Attachment { .. } | Item::Link { .. } => Asked::Link,
        Item::Pin { .. } => Asked::Pin,
        Item::Map { .. } => Asked::Map,
        Item::Program { .. } => return None,
    })
}
