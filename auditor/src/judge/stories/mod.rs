//! Tells stories about a host and checks the finding for each thing on it.

mod attachments;
mod devices;
mod gaps;
mod programs;
mod unowned;
mod verdict;
