//! What a command left behind. The judgement is a function of two snapshots and of who was running; nothing here asks
//! the host anything but `children` and `processes`.
//!
//! What is new after the command counts as left, unless it can be shown to be somebody else's: only processes hold it
//! that were running before the command. An earlier process may hold anything for an instant (whoever lists programs
//! does), so that has to be so in two looks.

pub(crate) mod children;
mod makers;
pub(crate) mod processes;
mod report;
mod text;

use nix::sys::signal::Signal;

pub use self::makers::{Held, Holder, Origin};
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
    /// What is there no more; whoever made it did so before the command.
    pub gone: Vec<Item>,
    /// What could not be seen.
    pub gaps: Vec<Gap>,
}

impl Aftermath {
    /// What it comes to: [`Verdict::Leaks`] where something is left.
    pub fn verdict(&self) -> Verdict {
        Verdict::of(self.left.len(), self.gaps.len())
    }

    /// There is nothing that time could change for the better.
    pub fn is_settled(&self) -> bool {
        self.left.is_empty() && self.gaps.is_empty()
    }

    /// What it is when a signal ends the gate before it has looked long enough. What is left could still have gone: it
    /// is told, and is no leak yet.
    #[must_use]
    pub fn interrupted(mut self, signal: Signal) -> Self {
        let left = std::mem::take(&mut self.left);
        let seen: Vec<String> =
            left.iter().filter(|it| !it.is_others).map(|it| it.item.to_string()).collect();
        let mut why =
            format!("{signal} ended the gate before it had looked long enough; run it again");
        if !seen.is_empty() {
            why = format!("{why}; new, and still there: {}", seen.join("; "));
        }
        let what = "what the command left".to_owned();
        self.gaps.insert(0, Gap { about: Subject::Programs, what, why });
        self
    }

    /// What looks like somebody else's for the first time counts as left, until another look says the same.
    #[must_use]
    pub fn confirmed_by(mut self, before: Option<&Self>) -> Self {
        let is_known = |it: &Left| {
            let ever =
                before.into_iter().flat_map(|before| before.left.iter().chain(&before.others));
            ever.filter(|other| other.is_others).any(|other| other.item == it.item)
        };
        let (others, more) = self.others.into_iter().partition(is_known);
        self.others = others;
        self.left.extend(more);
        self.left.sort_by_key(|left| left.item.kind());
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
    let (others, left) = new
        .iter()
        .map(|item| Left {
            holders: held.holders(item),
            reason: held.reason(item),
            remedy: remedy(item),
            is_others: held.is_others(item, &new),
            item: item.clone(),
        })
        .partition(|it| it.is_others);
    Ok(Aftermath { left, others, gone, gaps })
}
