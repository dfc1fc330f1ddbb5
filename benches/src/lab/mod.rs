//! The traffic lab: ways to limit traffic, side by side, with real traffic in one run.
//!
//! [`plan`] says what is tried, [`network`] is where, [`systems`] are what limits, [`traffic`] and [`echo`] are
//! what is limited, [`measure`] does it, [`results`] is what comes of it; [`goals`], [`markdown`] and [`plots`]
//! show that, and know nothing of how it came about.

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
