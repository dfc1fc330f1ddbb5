//! Provides the tools for tests on a real kernel.
//!
//! | for | modules |
//! | --- | --- |
//! | a place of the test's own | [`cgroup`], [`isolation`] |
//! | processes and programs | [`process`], [`tun`], [`bystander`], [`binaries`] |
//! | leaks to find | [`leak`] |
//! | packets | [`traffic`] |
//! | what this kernel can do | [`iterator`], [`tcx`] |
//! | inputs and sequences that failed once | [`corpus`], [`replay`] |
//! | what tests report | [`results`] |
//! | the rest | [`completion`], [`env`](mod@env), [`shell`] |
//!
//! Most of it needs root. cargo-nextest gives each test its own process, so a test may enter namespaces and cgroups.
#![forbid(unsafe_code)]

pub mod binaries;
pub mod bystander;
pub mod cgroup;
pub mod completion;
pub mod corpus;
pub mod env;
pub mod isolation;
pub mod iterator;
pub mod leak;
pub mod process;
pub mod replay;
pub mod results;
pub mod shell;
pub mod tcx;
pub mod traffic;
pub mod tun;
