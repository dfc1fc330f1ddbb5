//! Proves that throttles leave nothing behind.
//!
//! [`sequences`] attaches and detaches in every order, on the simulated kernel (crate `sim`) and on real ones.
//! [`machines`] boots other kernels in virtual machines and runs the tests there. [`proved`] adds up the results. The
//! crate `testkit` has the tools for tests on a real kernel.
//!
//! A test on a real kernel needs root and has `root_` in its name. cargo-nextest gives each test its own process, so a
//! test may enter namespaces and cgroups.
#![forbid(unsafe_code)]

pub mod machines;
pub mod proved;
pub mod sequences;
