//! Finds leaked cgroup BPF programs, says why they are leaked, and removes just those.
//!
//! | module | what |
//! | --- | --- |
//! | [`facts`] | what the auditor saw of a host, and what it could not see; the contents of a snapshot file |
//! | [`judge`] | turns facts into findings: what is a leak, and why |
//! | [`collect`] | takes a snapshot of this host |
//! | [`actions`] | plans what to do about each leak |
//! | [`report`] | gives the judgement a stable shape |
//! | [`baseline`] | marks leaks that an earlier snapshot already had |
//! | [`clean`] | takes the planned actions |
//! | [`compare`] | finds what is new and what is gone between two snapshots |
//! | [`gate`] | finds what a command left behind |
//!
//! Each module uses only modules above it. [`collect`], [`clean`] and parts of [`gate`] ask the host. All other modules
//! are pure functions of their arguments. Reasons contain names exactly as the system has them, so the caller must
//! escape a reason before it prints the reason to a terminal.
#![forbid(unsafe_code)]

pub mod actions;
pub mod baseline;
pub mod clean;
pub mod collect;
pub mod compare;
pub mod facts;
pub mod gate;
pub mod judge;
pub mod report;
#[cfg(test)]
mod story;

#[cfg(test)]
extern crate self as auditor;
