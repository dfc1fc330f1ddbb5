//! What a command left behind. The judgement is a function of two snapshots and of who was running; nothing here asks
//! the host anything but `children`, `loaders` and `processes`.
//!
//! What is new after the command counts as left, unless it can be shown to be somebody else's ([`Evidence`]). That only
//! processes hold it that do not descend from the command has to be so in two looks, for any process may hold anything
//! for an instant (whoever lists programs does). Where an attachment or a pin keeps it as well, they show nothing: then
//! nobody can tell whose it is.

pub(crate) mod children;
mod evidence;
mod gone;
pub(crate) mod loaders;
mod makers;
pub(crate) mod processes;
mod report;
pub(crate) mod slate;
mod text;

use nix::sys::signal::Signal;

use self::evidence::Attribution;
pub use self::evidence::Evidence;
pub use self::makers::{Held, Holder, LoadedBy, Origin};
pub use self::processes::Processes;
pub use self::report::{CommandInfo, Ended, GateReport, Left, SCHEMA_VERSION};
use crate::classify::Verdict;
use crate::diff::{Difference, Incomparable, Item, compare, remedy};
use crate::snapshot::{Gap, Snapshot, Subject};

/// What is new and what is gone after the command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Aftermath {
    /// What it left.
    pub left: Vec<Left>,
    /// What others have made meanwhile.
    pub others: Vec<Left>,
    /// What may be others', and may as well be what the command left.
    pub unclear: Vec<Left>,
    /// What is there no more and no process held before; whoever made it did so before the command.
    pub gone: Vec<Item>,
    /// What is there no more because the processes that held it, which are not of the command, let go of it.
    pub gone_of_others: Vec<Item>,
    /// What could not be seen.
    pub gaps: Vec<Gap>,
}

impl Aftermath {
    /// What it comes to: [`Verdict::Leaks`] where something is left.
    pub fn verdict(&self) -> Verdict {
        Verdict::of(self.left.len(), self.gaps.len() + self.unclear.len())
    }

    /// There is nothing that time could change for the better.
    pub fn is_settled(&self) -> bool {
        self.left.is_empty() && self.gaps.is_empty() && self.unclear.is_empty()
    }

    /// What could not be seen, or told.
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

    /// What it is when a signal ends the gate before it has looked long enough. What is left could still have gone: it
    /// is told, and is no leak yet.
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

    /// What looks like somebody else's for the first time counts as left, until another look says the same, unless it
    /// cannot be otherwise. What two looks have said stays so, also where its holder has let go of it since.
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

/// Judges what is new. Snapshots with an inventory are needed ([`crate::collect::Breadth::Everything`]), of one boot and
/// scope; taking them needs root and Linux 5.8, judging them nothing.
///
/// # Errors
/// When they cannot be compared.
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
                remedy: remedy(item),
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
