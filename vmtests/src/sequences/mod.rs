//! Runs sequences of events around a throttle system. The system attaches and detaches, gets killed and meets errors,
//! and other people do the same beside it. Sequences run on the simulated kernel and on real ones. `historical` proves
//! that they find bugs.
//!
//! A [`step::Step`] is one event. A [`trial::Trial`] takes steps on a machine ([`sim::World`]) with a throttle system
//! ([`system::System`]). After each step it compares the actual state with the expected one ([`expected::Expected`]).

pub mod agent;
pub mod census;
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
pub mod owners;
pub mod plan;
pub mod program;
pub mod random;
mod records;
pub mod regressions;
pub mod step;
pub mod system;
pub mod trial;
pub mod witness;
