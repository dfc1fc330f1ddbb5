//! The harness: proves that throttles leave nothing behind.
//!
//! [`sequences`] attaches and detaches in every order, on the simulated kernel (crate `sim`) and on real ones.
//! [`machines`] boots other kernels in virtual machines and runs the tests there. [`proved`] adds up what all of them
//! have done. What tests on a real kernel stand on is the crate `testkit`.
//!
//! A test on a real kernel needs root and carries `root_` in its name. It runs in a process of its own, as cargo-nextest
//! starts it, so it may enter namespaces and cgroups.
#![forbid(unsafe_code)]

pub mod machines;
pub mod proved;
pub mod sequences;
