//! What several tests of the program ask.

use auditor::classify::{Finding, classify};
use auditor::collect::{Options, collect};

/// What the audit of everything says of the programs of an owner. Other tests' programs have other owners.
pub(crate) fn audit(owner: u32) -> Vec<Finding> {
    let snapshot = collect(&Options::default()).unwrap();
    let classified = classify(&snapshot);
    let ours = classified.attachments.iter().chain(&classified.programs).filter(|judged| {
        judged.program.and_then(|it| it.owner.as_ref()).is_some_and(|it| it.pid == owner)
    });
    ours.map(|judged| judged.finding).collect()
}
