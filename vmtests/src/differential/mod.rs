//! The same calls to two machines, and whether they answer alike: how the model is held to the kernel.
//!
//! A [`Call`] names its operands by small numbers. An interpreter, generic over [`crate::lab::Lab`], keeps what
//! the numbers stand for on its machine, so that one list of calls runs on the model and on a kernel, and the
//! answers, with every id translated back, can be compared. After each call the machines are looked at as well:
//! lists, links, pins, which programs there are.

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
pub use search::{Budget, Found, Regression, Report, regressions, replay, search};
pub use strategy::calls;
