//! Which way the cgroups are gone over.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How the cgroups are enumerated and asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// `query`, or `iter` where there are so many cgroups that it is quicker, and the kernel has it
    #[default]
    Auto,
    /// Open each cgroup and ask it for each attach type: works everywhere
    Query,
    /// Have the kernel run a program on each cgroup, which reads the same lists (Linux 6.1 and newer)
    Iter,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Auto => "auto",
            Self::Query => "query",
            Self::Iter => "iter",
        })
    }
}

/// What loading the iterator takes, in microseconds. This and the rest was measured on Linux 6.18, two cores at
/// 2.1 GHz (`docs/benchmarks/audit.md`): on any machine all of them grow and shrink together.
const LOAD: u64 = 17_000;

/// What opening one cgroup takes, in nanoseconds, and asking it for one attach type.
const OPEN: u64 = 3_000;
const QUERY: u64 = 440;

/// What the iterator takes for a cgroup, in nanoseconds.
const ITERATE: u64 = 700;

/// Whether the iterator is the quicker one.
pub(super) fn iter_is_quicker(cgroups: u64, types: usize) -> bool {
    let types = u64::try_from(types).unwrap_or(u64::MAX);
    // Of the two the difference for one cgroup: so that no number of them is too large.
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
        // Where the kernel knows fewer.
        assert!(iter_is_quicker(1_600, 24));
        assert!(!iter_is_quicker(3_000, 2));
        assert!(iter_is_quicker(10_000, 2));
        assert!(iter_is_quicker(u64::MAX, 29));
    }
}
