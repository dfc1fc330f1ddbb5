//! chadthrottle's BPF programs and their data formats: limits, state, owner and ledger entries. The crate also loads
//! the programs.
//!
//! The engine writes these formats and the auditor reads them. Engine and auditor share nothing else.
//!
//! | module | has |
//! | --- | --- |
//! | [`boundary`] | the kernel calls of the engine as traits, so that a simulated kernel can take its place |
//! | [`throttle`], [`program`] | load the packet programs; read a loaded program's owner, state and counters |
//! | [`limits`], [`state`] | rates, bursts and classes of traffic, and their encoding in the kernel |
//! | [`ledger`] | records of throttles that outlive their process |
//! | [`queue`], [`devices`] | queues for downloads, and their network devices |
//! | [`adopt`], [`follow`] | handle sockets that are already open, and cgroups that are created later |
//! | [`advice`] | explain in words why the kernel refused, and what to do |

// Only the skeletons that libbpf-cargo generates contain unsafe code.
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
