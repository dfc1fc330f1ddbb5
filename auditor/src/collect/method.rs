//! Chooses the method for querying cgroups.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The method for finding cgroups and querying them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Uses `iter` if the kernel has it and the number of cgroups makes it quicker; otherwise `query`.
    #[default]
    Auto,
    /// Opens each cgroup and queries it for each attach type. Works on every kernel.
    Query,
    /// Has the kernel run a program on each cgroup, which reads the same lists. Needs Linux 6.1 or newer.
    Iter,
}

impl Method {
    /// Every method.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Query, Self::Iter];

    /// Returns the method's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Query => "query",
            Self::Iter => "iter",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The time to load the iterator, in microseconds. This constant and those below were measured on Linux 6.18 with two
/// cores at 2.1 GHz (`docs/benchmarks/audit.md`). On another machine they should scale together.
const LOAD: u64 = 17_000;

/// The time to open one cgroup, and below it the time to query it for one attach type, in nanoseconds.
const OPEN: u64 = 3_000;
const QUERY: u64 = 440;

/// The iterator's time per cgroup, in nanoseconds.
const ITERATE: u64 = 700;

/// Tells whether the iterator is quicker.
pub(super) fn iter_is_quicker(cgroups: u64, types: usize) -> bool {
    let types = u64::try_from(types).unwrap_or(u64::MAX);
    // Subtracting per cgroup first avoids an overflow for any number of cgroups.
    let saved = OPEN.saturating_add(QUERY.saturating_mul(types)).saturating_sub(ITERATE);
    cgroups.saturating_mul(saved) > LOAD * 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_iterator_is_for_many_cgroups() {
        assert!(!iter_is_quicker(0, 29));
        assert!(!iter_is_quicker(1_000, 29));
        assert!(iter_is_quicker(1_300, 29));
        // A kernel may know fewer attach types.
        assert!(iter_is_quicker(1_600, 24));
        assert!(!iter_is_quicker(3_000, 2));
        assert!(iter_is_quicker(10_000, 2));
        assert!(iter_is_quicker(u64::MAX, 29));
    }
}
