//! How long programs run, as the kernel counts it.

use std::os::fd::{AsFd, OwnedFd};

use crate::error::{Call, Error, Result};
use crate::object::program::Program;
use crate::sys;

/// While one of these lives, the kernel counts how often each program on the host runs and for how long, which
/// makes all of them slower. It ends with the last one, however the process ends: what the sysctl
/// `kernel.bpf_stats_enabled` says is not touched.
#[must_use = "dropping this ends the counting"]
#[derive(Debug)]
pub struct Counting {
    _fd: OwnedFd,
}

/// Begins to count. Needs Linux 5.8 and `CAP_SYS_ADMIN`.
///
/// # Errors
/// `Denied` without the right; `EINVAL` when the kernel is older.
pub fn count() -> Result<Counting> {
    let fd = sys::count_run_time()
        .map_err(|errno| Error::new(Call::EnableStats, "the run time of programs", errno))?;
    Ok(Counting { _fd: fd })
}

/// What was counted of one program since it was loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RunTime {
    /// How often it ran.
    pub count: u64,
    /// For how long in sum, in nanoseconds, reading the clock for this once in each run included.
    pub nanos: u64,
}

impl RunTime {
    /// What a program has run for. All zero where nobody has counted.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn of(program: &Program) -> Result<Self> {
        let raw = sys::program_info(program.as_fd())
            .map_err(|errno| Error::new(Call::Info, &program.info().name, errno))?;
        Ok(Self { count: raw.run_count, nanos: raw.run_time_ns })
    }

    /// What came after `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            count: self.count.saturating_sub(earlier.count),
            nanos: self.nanos.saturating_sub(earlier.nanos),
        }
    }

    /// Nanoseconds for one run. `None` when there was none.
    pub fn mean(self) -> Option<f64> {
        (self.count > 0).then(|| self.nanos as f64 / self.count as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ran_before_is_not_in_the_mean() {
        let earlier = RunTime { count: 10, nanos: 5_000 };
        let later = RunTime { count: 14, nanos: 5_400 };
        assert_eq!(later.since(earlier).mean(), Some(100.0));
        assert_eq!(earlier.since(earlier).mean(), None);
    }
}
