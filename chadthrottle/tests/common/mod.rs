//! What several tests of the program ask.

#![allow(dead_code, reason = "each of the tests uses some of it")]

use std::path::Path;

use auditor::collect::{Options, collect};
use auditor::judge::{Finding, classify};
use kernel::AttachType;
use kernel::cgroup::Cgroup;
use kernel::error::Kind;
use kernel::list::{Scope, query};

/// What the audit of everything says of the programs of an owner. Other tests' programs have other owners.
pub(crate) fn audit(owner: u32) -> Vec<Finding> {
    let snapshot = collect(&Options::default()).unwrap();
    let classified = classify(&snapshot);
    let ours = classified.attachments.iter().chain(&classified.programs).filter(|judged| {
        judged.program.and_then(|it| it.owner.as_ref()).is_some_and(|it| it.pid == owner)
    });
    ours.map(|judged| judged.finding).collect()
}

/// How many programs are on a cgroup: one for each direction that is limited, and one for TCP. None is on one that is gone.
pub(crate) fn programs(cgroup: &Path) -> usize {
    let count = |at| Ok(query(&Cgroup::open(cgroup)?, at, Scope::Local, false)?.programs.len());
    let count = |at| match count(at) {
        Err(error) if kernel::Error::kind(&error) == Kind::Vanished => 0,
        counted => counted.unwrap(),
    };
    [AttachType::INET_INGRESS, AttachType::INET_EGRESS, AttachType::SOCK_OPS]
        .map(count)
        .iter()
        .sum()
}
