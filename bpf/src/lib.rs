//! chadthrottle's BPF programs and their format: limits, state, owner, ledger record, and loading.
//!
//! The engine writes what this crate describes, and the auditor reads it. They share nothing else.
//!
//! | module | has |
//! | --- | --- |
//! | [`boundary`] | what the engine needs of the kernel, as traits, so that a simulated kernel can take its place |
//! | [`throttle`], [`program`] | loading the packet programs; a loaded program's owner, state and counters |
//! | [`limits`], [`state`] | rates, bursts and classes of traffic, and how they lie in the kernel |
//! | [`ledger`] | the records of throttles that outlive their process |
//! | [`queue`], [`devices`] | queues for downloads, and the network devices that they are made of |
//! | [`adopt`], [`follow`] | sockets that are open already; cgroups that are made later |
//! | [`advice`] | what to do when the kernel refuses, in words |

// Only the skeletons that libbpf-cargo generates have any.
#![deny(unsafe_code)]

pub mod adopt;
pub mod advice;
pub mod boundary;
mod departures;
pub mod devices;
#[cfg(test)]
mod exact;
#[cfg(test)]
mod flow_exact_tests;
#[cfg(test)]
mod flow_tests;
pub mod follow;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod layout;
pub mod ledger;
pub mod limits;
#[cfg(test)]
mod mark_tests;
#[cfg(test)]
mod native;
mod owner;
#[cfg(test)]
mod packet_tests;
pub mod program;
pub mod queue;
#[cfg(test)]
mod queue_packet_tests;
mod rate;
pub mod serde_path;
#[cfg(test)]
mod sockops_tests;
pub mod state;
pub mod throttle;
#[cfg(test)]
mod verdict_tests;
#[cfg(test)]
mod window_tests;

pub use boundary::{CgroupBpf, LinuxBpf};
pub use departures::with_fq;
pub use owner::Owner;
pub use program::{ThrottleProgram, owner_of};
