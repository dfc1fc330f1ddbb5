//! The auditor's pure parts: functions of values, tested without root on any host.

mod attachments;
mod common;
mod devices;
mod gaps;
mod output;
mod plan;
mod programs;
mod recorded;
mod surroundings;
mod terminal;
mod verdict;
