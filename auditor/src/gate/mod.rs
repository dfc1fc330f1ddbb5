//! Finds what a command left behind. The judgement is a function of two snapshots and of the running processes. Only
//! [`Loaders`] and [`Processes`] ask the host.
//!
//! A thing that is new after the command counts as left, unless there is evidence that it is somebody else's
//! ([`Evidence`]). One such piece of evidence is that only processes outside of the command hold the thing. Two looks
//! must show it, because any process may hold anything for an instant. A process that lists programs does.
//!
//! Holders prove nothing if an attachment or a pin keeps the thing as well. Then nobody can tell whose it is.

mod evidence;
mod gone;
mod left;
mod loaders;
mod makers;
mod processes;
#[cfg(test)]
mod tests;

use nix::sys::signal::Signal;

use self::evidence::Attribution;
pub use self::evidence::Evidence;
pub use self::left::Left;
pub use self::loaders::Loaders;
pub use self::makers::{Held, Holder, LoadedBy, Origin, held_by};
pub use self::processes::Processes;
use crate::compare::{Difference, Incomparable, Item, compare};
use crate::facts::{Gap, Snapshot, Subject};
use crate::judge::Verdict;

/// What is new and what is gone after the command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Aftermath {
    /// Things that the command left.
    pub left: Vec<Left>,
    /// Things that others made meanwhile.
    pub others: Vec<Left>,
    /// Things that others or the command may have made.
    pub unclear: Vec<Left>,
    /// Things that are gone and that no process held. Somebody made them before the command.
    pub gone: Vec<Item>,
    /// Things that are gone because processes outside of the command let go of them.
    pub gone_of_others: Vec<Item>,
    /// What could not be seen.
    pub gaps: Vec<Gap>,
}

impl Aftermath {
    /// Returns the verdict: [`Verdict::Leaks`] if something is left.
    pub fn verdict(&self) -> Verdict {
        Verdict::of(self.left.len(), self.gaps.len() + self.unclear.len())
    }

    /// Tells whether more looks cannot improve the result.
    pub fn is_settled(&self) -> bool {
        self.left.is_empty() && self.gaps.is_empty() && self.unclear.is_empty()
    }

    /// Returns what could not be seen, and what could not be attributed.
    pub fn gaps(&self) -> Vec<Gap> {
        let unclear = self.unclear.iter().map(|left| Gap {
            about: Subject::Programs,
            what: left.item.to_string(),
            why: format!(
                "the command may have made it, or others: {}; run the gate again, or choose your programs (--program)",
                left.reason
            ),
        });
        self.gaps.iter().cloned().chain(unclear).collect()
    }

    /// Returns the result for a gate that a signal ended early. A new thing might still have gone, so it becomes part
    /// of a gap, not a leak.
    #[must_use]
    pub fn interrupted(mut self, signal: Signal) -> Self {
        let left = std::mem::take(&mut self.left);
        let seen: Vec<String> =
            left.iter().filter(|it| it.seems.is_none()).map(|it| it.item.to_string()).collect();
        let mut why =
            format!("{signal} ended the gate before it had looked long enough; run it again");
        if !seen.is_empty() {
            why = format!("{why}; new, and still there: {}", seen.join("; "));
        }
        let what = "what the command left".to_owned();
        self.gaps.insert(0, Gap { about: Subject::Programs, what, why });
        self
    }

    /// Compares with the look before. Evidence from holders counts only after two looks; until then the thing counts as
    /// left. Evidence that cannot change counts at once. What two looks have shown stays, even if the holder has let
    /// go.
    #[must_use]
    pub fn confirmed_by(mut self, before: Option<&Self>) -> Self {
        let before_was = |left: &Left, list: fn(&Self) -> &Vec<Left>| {
            let known = before.into_iter().flat_map(list);
            known.filter(|other| other.seems.is_some()).find(|other| other.item == left.item)
        };
        let all =
            std::mem::take(&mut self.left).into_iter().chain(std::mem::take(&mut self.others));
        for mut left in all {
            let confirmed =
                before_was(&left, |it| &it.others).or_else(|| before_was(&left, |it| &it.unclear));
            let is_others = match left.seems {
                Some(evidence) => {
                    evidence.is_certain()
                        || confirmed.is_some()
                        || before_was(&left, |it| &it.left).is_some()
                }
                None => confirmed.is_some() && left.holders.is_empty() && !left.is_kept,
            };
            if let (true, None, Some(confirmed)) = (is_others, left.seems, confirmed) {
                left.seems = confirmed.seems;
                left.reason.clone_from(&confirmed.reason);
                left.holders.clone_from(&confirmed.holders);
            }
            left.evidence = left.seems.filter(|_| is_others);
            match left.evidence {
                None => self.left.push(left),
                Some(_) if left.is_open => self.unclear.push(left),
                Some(_) => self.others.push(left),
            }
        }
        for list in [&mut self.left, &mut self.others, &mut self.unclear] {
            list.sort_by_key(|left| left.item.kind());
        }
        self
    }
}

/// Judges what is new. Both snapshots must have an inventory ([`crate::collect::Breadth::Everything`]), and the same
/// boot and scope. Taking them needs root and Linux 5.8. Judging them needs no rights.
///
/// # Errors
/// The snapshots cannot be compared.
pub fn judge(
    before: &Snapshot,
    after: &Snapshot,
    globs: &[String],
    processes: &Processes,
) -> Result<Aftermath, Incomparable> {
    let Difference { new, gone, gaps } = compare(before, after, globs)?;
    let held = Held::new(after, processes);
    let attribution = Attribution { held: &held, processes, after, new: &new };
    let (others, left) = new
        .iter()
        .map(|item| {
            let seems = attribution.of(item);
            let is_kept = held.is_kept(item);
            let why = seems.and_then(Evidence::wording).map(|why| format!("; {why}"));
            Left {
                holders: held.holders(item),
                loader: held.loader(item),
                reason: held.reason(item) + &why.unwrap_or_default(),
                is_kept,
                is_open: seems.is_some_and(|it| attribution.is_open(item, it, is_kept)),
                evidence: None,
                seems,
                item: item.clone(),
            }
        })
        .partition(|it| it.seems.is_some());
    let (gone_of_others, gone) = gone::let_go(before, gone);
    Ok(Aftermath { left, others, unclear: Vec::new(), gone, gone_of_others, gaps })
}
