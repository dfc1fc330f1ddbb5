//! Tests what is new, what is gone, and what is unknown.

mod moments;
mod same;
