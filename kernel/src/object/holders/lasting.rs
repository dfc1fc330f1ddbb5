//! Decides which holders of a first look last.

use super::Holder;
use crate::object::pins::Held;

/// Tells whether one of its first holders still holds each object. `still` has the objects for each holder.
pub(super) fn has_all(first: &[Holder], still: &[Vec<Held>]) -> bool {
    first.iter().flat_map(|it| &it.held).all(|held| is_in(still, *held))
}

/// Returns the later holders of objects that all of their first holders have closed.
pub(super) fn heirs(first: &[Holder], still: &[Vec<Held>], later: Vec<Holder>) -> Vec<Holder> {
    let takes_over = |pid, held: &Held| {
        let mut had_it = first.iter().filter(|it| it.held.contains(held)).peekable();
        had_it.peek().is_some() && !is_in(still, *held) && had_it.all(|it| it.pid != pid)
    };
    let taken = |mut heir: Holder| {
        heir.held.retain(|held| takes_over(heir.pid, held));
        (!heir.held.is_empty()).then_some(heir)
    };
    later.into_iter().filter_map(taken).collect()
}

/// Returns the part of the first look that its holders or an heir still hold.
pub(super) fn lasting(first: Vec<Holder>, still: &[Vec<Held>], heirs: &[Holder]) -> Vec<Holder> {
    let has_heir = |held: &Held| heirs.iter().any(|heir| heir.held.contains(held));
    let lasts = |(mut holder, still): (Holder, &Vec<Held>)| {
        holder.held.retain(|held| still.contains(held) || has_heir(held));
        (!holder.held.is_empty()).then_some(holder)
    };
    first.into_iter().zip(still).filter_map(lasts).collect()
}

fn is_in(still: &[Vec<Held>], held: Held) -> bool {
    still.iter().any(|it| it.contains(&held))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::object::ids::ProgramId;

    pub(crate) fn programs(ids: &[u32]) -> Vec<Held> {
        ids.iter().map(|id| Held::Program(ProgramId(*id))).collect()
    }

    pub(crate) fn holder((pid, ids): (u32, &[u32])) -> Holder {
        Holder { pid, comm: String::new(), held: programs(ids) }
    }

    #[test]
    fn what_is_handed_from_process_to_process_is_held_all_the_while() {
        type Look<'a> = &'a [(u32, &'a [u32])];
        // The first look, what each process still holds, the later holders, and the result.
        let cases: [(Look<'_>, &[&[u32]], Look<'_>, Look<'_>); 9] = [
            (&[(7, &[1])], &[&[1]], &[], &[(7, &[1])]),
            (&[(7, &[1])], &[&[]], &[], &[]),
            // The object was handed to a process that holds more.
            (&[(7, &[1])], &[&[]], &[(8, &[1, 2])], &[(7, &[1])]),
            (&[(7, &[1, 2])], &[&[]], &[(8, &[1])], &[(7, &[1])]),
            (&[(7, &[1, 2])], &[&[2]], &[(8, &[1])], &[(7, &[1, 2])]),
            // A process that looks repeatedly does not hand the object to itself.
            (&[(7, &[1])], &[&[]], &[(7, &[1])], &[]),
            // An object is not handed on while one of its holders still has it.
            (&[(7, &[1]), (8, &[1])], &[&[1], &[]], &[(7, &[1]), (9, &[1])], &[(7, &[1])]),
            // The heir already held another object.
            (&[(7, &[1]), (8, &[2])], &[&[], &[2]], &[(8, &[1, 2])], &[(7, &[1]), (8, &[2])]),
            (&[(7, &[1]), (8, &[2])], &[&[], &[]], &[(9, &[3])], &[]),
        ];
        for case in cases {
            let (first, still, later, lasts) = case;
            let holders = |look: Look<'_>| look.iter().copied().map(holder).collect::<Vec<_>>();
            let still: Vec<_> = still.iter().map(|ids| programs(ids)).collect();
            let first = holders(first);
            let heirs = heirs(&first, &still, holders(later));
            assert_eq!(lasting(first, &still, &heirs), holders(lasts), "{case:?}");
        }
    }
}
