//! The traffic lab compares ways to limit traffic, side by side, with real traffic in one run.
//!
//! [`plan`] selects the measurements, and [`network`] sets up the place. [`systems`] limit what [`traffic`] and
//! [`echo`] send. [`measure`] runs it all and produces [`results`]. [`goals`], [`markdown`] and [`plots`] show the
//! results and know nothing about how they were measured.

pub mod cell;
pub mod cli;
pub mod commands;
pub mod compare;
pub mod cpu;
pub mod echo;
pub mod expect;
pub mod goals;
pub mod guest;
pub mod machine;
pub mod markdown;
pub mod measure;
pub mod needed;
pub mod nested;
pub mod network;
pub mod plan;
pub mod planned;
pub mod plots;
pub mod presets;
pub mod report_of_iperf;
pub mod results;
#[cfg(test)]
mod samples;
pub mod setup;
pub mod stats;
pub mod stop;
pub mod summary;
pub mod systems;
pub mod table;
pub mod traffic;
