//! What the benches share: hosts to look at, contestants, and tables; and the traffic [`lab`].
//!
//! Figures drift with the machine and its load, so peers are always measured beside ours, in turns, in
//! one run: it is the ratio that counts.
#![forbid(unsafe_code)]

pub mod attach;
pub mod baseline;
pub mod contest;
pub mod cpus;
pub mod forest;
pub mod lab;
pub mod many;
pub mod object;
pub mod packet;
pub mod path;
pub mod run;
pub mod scan;
pub mod table;
pub mod tcp;
pub mod throttle;
pub mod turns;
