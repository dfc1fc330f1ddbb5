//! Provides what the benches share: hosts to scan, contestants, and tables. The traffic [`lab`] is here too.
//!
//! Figures drift with the machine and its load. So each bench measures peers beside ours, in turns, in one run. Only
//! the ratio counts.
#![forbid(unsafe_code)]

pub mod attach;
pub mod baseline;
pub mod contest;
pub mod cpus;
pub mod forest;
pub mod lab;
pub mod many;
pub mod median;
pub mod object;
pub mod packet;
pub mod path;
pub mod run;
pub mod scan;
pub mod table;
pub mod tcp;
pub mod throttle;
pub mod turns;
