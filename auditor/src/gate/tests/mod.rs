//! Tests what a command left, and whose it is.

mod left;
mod whose;
