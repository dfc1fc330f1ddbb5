//! The auditor's program on the real kernel. These tests need root.

mod asked;
mod clean;
mod common;
mod devices;
mod findings;
mod gaps;
mod gate;
mod hierarchy;
mod listing;
mod methods;
mod names;
mod place;
mod refused;
mod rights;
mod schema;
mod signals;
mod surroundings;
mod talk;
mod unowned;
mod walk;
mod whose;
mod witness;
