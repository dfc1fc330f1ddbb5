//! Separates things that other processes let go of from things that somebody may have taken from them.

use super::makers::Held;
use super::processes::Processes;
use crate::compare::Item;
use crate::facts::{Object, Snapshot};

/// Splits the things that are gone: first those that processes held before the command, then the rest. The command did
/// not start processes that ran before it.
///
/// A detached program or a removed pin may not be its holder's doing. Such a thing counts as let go of only if its
/// object is gone as well.
pub(super) fn let_go(before: &Snapshot, gone: Vec<Item>) -> (Vec<Item>, Vec<Item>) {
    let processes = Processes::default();
    let held = Held::new(before, &processes);
    // An object that nothing kept was going already, so its end is not the command's doing. (An object that only
    // a hidden process kept looks the same here.)
    let was_kept = |item: &Item| itself(item).is_none_or(|object| held.stays(object));
    let gone: Vec<Item> = gone.into_iter().filter(was_kept).collect();
    let is_gone = |wanted: &dyn Fn(&Item) -> bool| gone.iter().any(wanted);
    let was_let_go: Vec<bool> = gone
        .iter()
        .map(|item| {
            let is_whole = match item {
                Item::Program { .. } | Item::Link { .. } | Item::Map { .. } => true,
                Item::Attachment { link: Some(link), .. } | Item::Pin { link: Some(link), .. } => {
                    is_gone(&|it| matches!(it, Item::Link { link: gone, .. } if gone.id == link.id))
                }
                Item::Attachment { program, .. } | Item::Pin { program: Some(program), .. } => {
                    is_gone(
                        &|it| matches!(it, Item::Program { program: gone } if gone.id == program.id),
                    )
                }
                Item::Pin { map: Some(map), .. } => {
                    is_gone(&|it| matches!(it, Item::Map { map: gone } if gone.id == map.id))
                }
                Item::Pin { .. } => false,
            };
            let keeping = itself(item).map(|object| held.all_keeping(object));
            is_whole && !held.holders_of(&keeping.unwrap_or_else(|| held.keeping(item))).is_empty()
        })
        .collect();
    let (mut by_others, mut rest) = (Vec::new(), Vec::new());
    for (item, was_let_go) in gone.into_iter().zip(was_let_go) {
        if was_let_go { by_others.push(item) } else { rest.push(item) }
    }
    (by_others, rest)
}

/// Returns the object that the item is; `None` for an attachment or a pin.
fn itself(item: &Item) -> Option<Object> {
    match item {
        Item::Program { program } => Some(Object::Program(program.id)),
        Item::Link { link, .. } => Some(Object::Link(link.id)),
        Item::Map { map } => Some(Object::Map(map.id)),
        Item::Attachment { .. } | Item::Pin { .. } => None,
    }
}
