//! The gate: random and exhaustive sequences of what can happen to a throttle system, on the model of the
//! kernel and on real ones, and the proof that it can fail.
//!
//! A [`step::Step`] is one thing that happens. A [`trial::Trial`] takes steps on a machine ([`crate::lab::Lab`])
//! and a throttle system ([`system::System`]), and compares after each what is there with what ought to be
//! ([`expected::Expected`]).

pub mod agent;
pub mod binaries;
pub mod commands;
pub mod engine;
pub mod exhaustive;
pub mod expected;
pub mod faulty;
pub mod historical;
pub mod in_model;
mod lines;
pub mod memory;
pub mod on_kernel;
pub mod on_model;
pub mod plan;
pub mod program;
pub mod proved;
pub mod random;
mod records;
pub mod regressions;
pub mod report;
pub mod step;
pub mod system;
pub mod trial;
pub mod witness;
