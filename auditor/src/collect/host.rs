//! Describes the host and its clocks.

use std::time::{Duration, SystemTime};

use anyhow::Context;
use nix::sys::utsname::uname;
use nix::time::{ClockId, clock_gettime};

use crate::facts::{Host, Vantage};

/// Identifies the host and its current boot.
pub(super) fn host() -> anyhow::Result<Vantage> {
    let names = uname().context("uname failed")?;
    let host = Host {
        kernel: names.release().to_string_lossy().into_owned(),
        hostname: names.nodename().to_string_lossy().into_owned(),
        boot_id: kernel::process::boot_id()?,
    };
    Ok(Vantage { host, pid_namespace: kernel::process::pid_namespace()? })
}

/// Tells whether capabilities let this process inspect other processes' open files.
pub(super) fn may_look_into_processes() -> bool {
    use kernel::rights::Capability::{DacReadSearch, SysPtrace};
    kernel::rights::Rights::of_this_thread()
        .is_some_and(|rights| rights.has(SysPtrace) && rights.has(DacReadSearch))
}

/// Converts the kernel's times since boot to wall-clock times.
pub(super) struct Clock {
    boot: SystemTime,
}

impl Clock {
    /// Reads the clocks. Somebody may set the wall clock while the host runs; this assumes that the current setting
    /// holds for the whole boot. `offset` is the shift of `CLOCK_BOOTTIME` in this process's time namespace, in
    /// nanoseconds. The load times of programs have no such shift.
    pub(super) fn now(offset: i64) -> anyhow::Result<Self> {
        let since_boot =
            clock_gettime(ClockId::CLOCK_BOOTTIME).context("CLOCK_BOOTTIME cannot be read")?;
        let shift = Duration::from_nanos(offset.unsigned_abs());
        let now = SystemTime::now();
        let now = if offset < 0 { now.checked_sub(shift) } else { now.checked_add(shift) };
        let boot = now
            .and_then(|now| now.checked_sub(since_boot.into()))
            .context("the wall clock is set to a time before this boot")?;
        Ok(Self { boot })
    }

    /// Formats a time as RFC 3339, UTC. The two clocks cannot be read at one instant, so this rounds to the second.
    pub(super) fn wall_time(&self, nanoseconds_since_boot: u64) -> String {
        let half = Duration::from_millis(500);
        let time = self.boot + Duration::from_nanos(nanoseconds_since_boot) + half;
        humantime::format_rfc3339_seconds(time).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_since_boot_is_rounded_to_the_nearest_second() {
        let clock = Clock { boot: SystemTime::UNIX_EPOCH + Duration::from_millis(250) };
        assert_eq!(clock.wall_time(0), "1970-01-01T00:00:00Z");
        assert_eq!(clock.wall_time(1_249_000_000), "1970-01-01T00:00:01Z");
        assert_eq!(clock.wall_time(1_250_000_000), "1970-01-01T00:00:02Z");
    }
}
