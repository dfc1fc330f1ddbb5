//! Run times of programs, as the kernel counts them.

use std::os::fd::{AsFd, OwnedFd};

use crate::error::{Call, Error, Result};
use crate::object::program::Program;
use crate::sys;

/// Turns on the kernel's run time statistics while at least one value lives. The kernel then counts the runs and the
/// run time of every program on the host, which slows all of them.
///
/// Counting ends with the last value, however the process ends. The sysctl `kernel.bpf_stats_enabled` stays as it is.
#[must_use = "dropping this ends the counting"]
#[derive(Debug)]
pub struct Counting {
    _fd: OwnedFd,
}

/// Starts counting. Needs Linux 5.8 and `CAP_SYS_ADMIN`.
///
/// # Errors
/// `Denied` without the capability; `EINVAL` on an older kernel.
pub fn count() -> Result<Counting> {
    let fd = sys::count_run_time()
        .map_err(|errno| Error::new(Call::EnableStats, "the run time of programs", errno))?;
    Ok(Counting { _fd: fd })
}

/// The statistics of one program since it was loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RunTime {
    /// The number of runs.
    pub count: u64,
    /// The total run time in nanoseconds. It includes reading the clock once in each run.
    pub nanos: u64,
}

impl RunTime {
    /// Reads a program's statistics. All are zero if nobody has counted.
    ///
    /// # Errors
    /// When the kernel cannot be queried.
    pub fn of(program: &Program) -> Result<Self> {
        let raw = sys::program_info(program.as_fd())
            .map_err(|errno| Error::new(Call::Info, &program.info().name, errno))?;
        Ok(Self { count: raw.run_count, nanos: raw.run_time_ns })
    }

    /// Returns the difference to `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            count: self.count.saturating_sub(earlier.count),
            nanos: self.nanos.saturating_sub(earlier.nanos),
        }
    }

    /// Returns the nanoseconds for one run. `None` without any run.
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
