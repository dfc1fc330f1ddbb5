//! The auditor's pure parts: functions of values, tested without root on any host.

mod attachments;
mod common;
mod devices;
mod formats;
mod gaps;
mod generate;
mod github;
mod junit;
mod output;
mod picture;
mod plan;
mod programs;
mod prometheus;
mod recorded;
mod results;
mod sarif;
mod schema;
mod surroundings;
mod terminal;
mod verdict;
