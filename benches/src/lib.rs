//! What the benches share: hosts to look at, contestants, and tables; and the traffic [`lab`].
//!
//! Figures drift with the machine and its load, so peers are always measured beside ours, in turns, in
//! one run: it is the ratio that counts.
#![forbid(unsafe_code)]

pub mod contest;
pub mod forest;
pub mod lab;
pub mod scan;
