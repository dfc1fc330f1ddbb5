//! The numbers of an engine's throttles.

use std::fmt;

/// The number of a throttle, unique in one engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ThrottleId(pub u32);

impl fmt::Display for ThrottleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
