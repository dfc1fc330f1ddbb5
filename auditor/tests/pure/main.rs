//! The auditor's pure parts: functions of values, tested without root on any host.

mod action;
mod attachments;
mod baseline;
mod common;
mod devices;
mod diff;
mod formats;
mod gaps;
mod gate;
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
