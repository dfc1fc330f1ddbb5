//! Makes the same calls on two worlds and compares the answers. This holds the model to real kernels.
//!
//! A [`Call`] names its operands by small numbers. An interpreter, generic over [`crate::World`], keeps the objects behind the
//! numbers. So one list of calls runs on the model and on a kernel. The interpreter translates every id back to its number, so
//! that answers can be compared. After each call it also compares lists, links, pins and the programs that exist.

mod answer;
mod beside;
mod call;
mod compare;
mod interpreter;
mod objects;
mod search;
mod strategy;

pub use answer::{Answer, LinkView, ListView, View, Which};
pub use beside::{Beside, Outcome, models};
pub use call::{Call, Flags, Named, On, Place, Revision};
pub use compare::{Compared, Difference, LATER, compare};
pub use search::{AGAIN, Budget, Found, Regression, Report, folder, regressions, replay, search};
pub use strategy::calls;
