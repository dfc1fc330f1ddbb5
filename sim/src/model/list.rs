//! Models the list of programs of one cgroup and attach type, with the rules for attaching and detaching.

use kernel::list::{AttachFlags, MAX_PROGRAMS};
use kernel::{LinkId, ProgramId};
use nix::errno::Errno;

/// What an entry of a list refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Hold {
    /// A program attached the legacy way.
    Program(ProgramId),
    /// A link, with its current program.
    Link(LinkId),
}

/// An entry of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Entry {
    /// What the entry refers to.
    pub hold: Hold,
    /// Whether the entry was attached with `BPF_F_PREORDER`.
    pub preorder: bool,
}

/// A list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct List {
    /// The mode of the list: none, OVERRIDE or MULTI. Also none while the list is empty.
    pub flags: AttachFlags,
    /// The entries, in the order of attaching.
    pub entries: Vec<Entry>,
    /// The revision. It starts at 1 and grows with every change.
    pub revision: u64,
}

impl Default for List {
    fn default() -> Self {
        Self { flags: AttachFlags::empty(), entries: Vec::new(), revision: 1 }
    }
}

/// The flags that set the mode of a list.
const KINDS: AttachFlags = AttachFlags::OVERRIDE.union(AttachFlags::MULTI);

/// `BPF_F_BEFORE` inserts at the beginning. The model never names a neighbour.
pub(crate) const BEFORE: AttachFlags = AttachFlags::from_bits_retain(1 << 3);
/// `BPF_F_AFTER` inserts at the end, which is also the default.
pub(crate) const AFTER: AttachFlags = AttachFlags::from_bits_retain(1 << 4);
/// `BPF_F_ID` names the neighbour by its id.
pub(crate) const ID: AttachFlags = AttachFlags::from_bits_retain(1 << 5);
/// `BPF_F_LINK` means that the neighbour is a link.
pub(crate) const LINK: AttachFlags = AttachFlags::from_bits_retain(1 << 13);
/// All flags that choose the position (Linux 6.17).
pub(crate) const INSERTION: AttachFlags = BEFORE.union(AFTER).union(ID).union(LINK);

/// Checks the flags themselves, for any list.
///
/// # Errors
/// `EINVAL` if the flags contradict each other.
pub(crate) fn check_flags(flags: AttachFlags) -> nix::Result<()> {
    let both_kinds = flags.contains(KINDS);
    let replaces = flags.contains(AttachFlags::REPLACE);
    let replace_alone = replaces && !flags.contains(AttachFlags::MULTI);
    let replace_and_insert = replaces && flags.intersects(BEFORE.union(AFTER));
    if both_kinds || replace_alone || replace_and_insert {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

/// Returns the index of a new entry.
fn insertion_point(flags: AttachFlags, length: usize) -> nix::Result<usize> {
    let (before, after) = (flags.contains(BEFORE), flags.contains(AFTER));
    if flags.intersects(ID.union(LINK)) {
        if before == after || flags.contains(LINK) {
            return Err(Errno::EINVAL);
        }
        // The model gives no neighbour's id, so the id is 0, which no program has.
        return Err(Errno::ENOENT);
    }
    if before && after && length > 0 {
        return Err(Errno::EINVAL);
    }
    Ok(if before { 0 } else { length })
}

impl List {
    /// Tells whether the list runs beside the lists of ancestors and descendants instead of replacing them.
    pub(crate) fn is_multi(&self) -> bool {
        self.flags.contains(AttachFlags::MULTI)
    }

    /// Attaches a program or link. The flags must have passed [`check_flags`].
    ///
    /// # Errors
    /// `EPERM` if the list has another mode, `E2BIG` if it is full, and `EINVAL` if the entry exists already. `ENOENT`
    /// if the program to replace is not in the list.
    pub(crate) fn attach(
        &mut self,
        hold: Hold,
        flags: AttachFlags,
        replace: Option<ProgramId>,
    ) -> nix::Result<()> {
        let kind = flags & KINDS;
        if !self.entries.is_empty() && self.flags != kind {
            return Err(Errno::EPERM);
        }
        // The kernel checks this first, so a full list does not even accept a replacement.
        if self.entries.len() >= MAX_PROGRAMS {
            return Err(Errno::E2BIG);
        }
        let taken_over = self.taken_over(hold, kind, replace)?;
        let entry = Entry { hold, preorder: flags.contains(AttachFlags::PREORDER) };
        match taken_over {
            Some(at) => self.entries[at] = entry,
            None => self.entries.insert(insertion_point(flags, self.entries.len())?, entry),
        }
        self.flags = kind;
        self.revision += 1;
        Ok(())
    }

    /// Returns the index of the entry that an attachment replaces, if any.
    fn taken_over(
        &self,
        hold: Hold,
        kind: AttachFlags,
        replace: Option<ProgramId>,
    ) -> nix::Result<Option<usize>> {
        if !kind.contains(AttachFlags::MULTI) {
            return Ok((!self.entries.is_empty()).then_some(0));
        }
        let replaced = replace.map(Hold::Program);
        if replaced != Some(hold) && self.entries.iter().any(|entry| entry.hold == hold) {
            return Err(Errno::EINVAL);
        }
        match replaced {
            None => Ok(None),
            Some(old) => self.position(old).map(Some).ok_or(Errno::ENOENT),
        }
    }

    fn position(&self, hold: Hold) -> Option<usize> {
        self.entries.iter().position(|entry| entry.hold == hold)
    }

    /// Detaches the named entry. A list that is not MULTI detaches its only entry, whatever the name.
    ///
    /// # Errors
    /// `EINVAL` if the list is MULTI and no entry is named. `ENOENT` if the entry is not in the list.
    pub(crate) fn detach(&mut self, named: Option<Hold>) -> nix::Result<Entry> {
        let at = if self.is_multi() {
            self.position(named.ok_or(Errno::EINVAL)?)
        } else {
            (!self.entries.is_empty()).then_some(0)
        };
        let entry = self.entries.remove(at.ok_or(Errno::ENOENT)?);
        if self.entries.is_empty() {
            self.flags = AttachFlags::empty();
        }
        self.revision += 1;
        Ok(entry)
    }
}

/// Tells whether the ancestors' lists, nearest first, allow a list below them.
pub(crate) fn ancestors_allow<'a>(ancestors: impl IntoIterator<Item = &'a List>) -> bool {
    // Only the nearest list with entries decides. MULTI and OVERRIDE allow a list below. A list without a flag
    // forbids it.
    ancestors
        .into_iter()
        .find(|list| !list.entries.is_empty())
        .is_none_or(|list| !list.flags.is_empty())
}

/// Returns what runs, in order. `lists` are the lists of a cgroup and its ancestors, nearest first. `T` identifies the
/// owner of each list.
pub(crate) fn effective<'a, T: Copy>(
    lists: impl IntoIterator<Item = (T, &'a List)>,
) -> Vec<(T, Entry)> {
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for (whose, list) in lists {
        let nothing_yet = before.is_empty() && after.is_empty();
        if !nothing_yet && !list.is_multi() {
            continue;
        }
        let (preorder, others): (Vec<_>, Vec<_>) =
            list.entries.iter().map(|&entry| (whose, entry)).partition(|(_, entry)| entry.preorder);
        // PREORDER entries of the furthest ancestor come first. Each list keeps its own order of attaching.
        before.splice(0..0, preorder);
        after.extend(others);
    }
    before.append(&mut after);
    before
}

#[cfg(test)]
#[path = "list_tests.rs"]
mod tests;
