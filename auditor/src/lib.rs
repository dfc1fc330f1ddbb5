//! Finds leaked cgroup BPF programs, says why they are leaked, and removes just those.
//!
//! [`collect`] takes a [`snapshot`] of the facts, [`classify`] judges them, [`report`] puts the judgement
//! into a stable shape that [`text`] renders for people and [`formats`] for CI systems, and [`plan`] says what to do about the leaks,
//! which [`clean`] does. All but `collect` and `clean` are functions of values.
#![forbid(unsafe_code)]

pub mod baseline;
pub mod classify;
pub mod clean;
pub mod cli;
pub mod collect;
pub mod commands;
pub mod diff;
pub mod escape;
pub mod exit;
pub mod explain;
pub mod formats;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod gate;
pub mod gathered;
pub mod generate;
pub mod plan;
pub mod report;
pub mod results;
pub mod schema;
pub mod snapshot;
pub mod talk;
pub mod text;
