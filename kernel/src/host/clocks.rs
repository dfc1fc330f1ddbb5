//! The kernel's clocks as the initial time namespace has them, even if this process is in another.
//!
//! A time namespace (`time_namespaces(7)`, Linux 5.6) shifts `CLOCK_MONOTONIC`, `CLOCK_BOOTTIME` and the start times in
//! `/proc/PID/stat` for its processes. BPF programs and processes outside read the unshifted clocks.

use std::fs;
use std::io::ErrorKind;

use nix::time::{ClockId, clock_gettime};
use nix::unistd::{SysconfVar, sysconf};

const NANOS: i64 = 1_000_000_000;

/// The kernel's `PROC_TIME_INIT_INO`.
const INITIAL: &str = "time:[4026531834]";

/// The offsets of this process's time namespace, in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shift {
    /// The offset added to `CLOCK_MONOTONIC`.
    pub monotonic: i64,
    /// The offset added to `CLOCK_BOOTTIME` and to start times.
    pub boottime: i64,
}

impl Shift {
    /// Returns the offsets of this process's time namespace. They are zero in the initial one, and on kernels without
    /// time namespaces.
    ///
    /// Returns `None` if `/proc` does not have them. `timens_offsets` describes the namespace for children, which may
    /// be another one after `unshare(CLONE_NEWTIME)`.
    pub fn of_this_process() -> Option<Self> {
        let namespace = |name| fs::read_link(format!("/proc/self/ns/{name}"));
        let own = match namespace("time") {
            Ok(own) => own,
            // The kernel has no time namespaces.
            Err(error) if error.kind() == ErrorKind::NotFound => return Some(Self::default()),
            Err(_) => return None,
        };
        if own.as_os_str() == INITIAL {
            return Some(Self::default());
        }
        if namespace("time_for_children").ok()? != own {
            return None;
        }
        Self::parse(&fs::read_to_string("/proc/self/timens_offsets").ok()?)
    }

    /// Parses a `/proc/PID/timens_offsets` file. Each line has a clock, seconds and nanoseconds.
    fn parse(text: &str) -> Option<Self> {
        let offset = |clock| {
            let line = text.lines().find_map(|line| line.strip_prefix(clock))?;
            let mut numbers = line.split_ascii_whitespace();
            let mut next = || numbers.next()?.parse::<i64>().ok();
            let (seconds, nanoseconds) = (next()?, next()?);
            seconds.checked_mul(NANOS)?.checked_add(nanoseconds)
        };
        Some(Self { monotonic: offset("monotonic")?, boottime: offset("boottime")? })
    }

    /// Returns the offset of start times, in clock ticks. `None` if it is not a whole number of ticks. The kernel
    /// rounds the shifted time, so two unshifted times are then possible.
    pub fn start_ticks(self) -> Option<i64> {
        let ticks_per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten()?;
        let tick = NANOS.checked_div(ticks_per_second)?;
        (self.boottime % tick == 0).then(|| self.boottime / tick)
    }
}

/// Returns `CLOCK_MONOTONIC` in nanoseconds, as `bpf_ktime_get_ns` reads it.
pub fn monotonic_ns(shift: Shift) -> u64 {
    // Every Linux has this clock, and it counts up from boot. So it cannot fail or be negative.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| {
        let shifted = time.tv_sec() * NANOS + time.tv_nsec();
        u64::try_from(shifted - shift.monotonic).unwrap_or(0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shift_of_a_time_namespace_is_read_to_the_nanosecond() {
        let text = "monotonic           5         6\nboottime       100000         7\n";
        let shift = Shift { monotonic: 5_000_000_006, boottime: 100_000_000_000_007 };
        assert_eq!(Shift::parse(text), Some(shift));
        let negative = Shift::parse("monotonic 0 0\nboottime -2 500000000\n").unwrap();
        assert_eq!(negative, Shift { monotonic: 0, boottime: -1_500_000_000 });
        for wrong in ["", "monotonic 0 0\n", "boottime 1 0\n", "monotonic 0 0\nboottime x 0\n"] {
            assert_eq!(Shift::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_shift_of_whole_ticks_is_exact_and_any_other_is_not() {
        let ticks = |boottime| Shift { monotonic: 1, boottime }.start_ticks();
        assert_eq!(ticks(0), Some(0));
        assert_eq!(ticks(-100 * NANOS), Some(-10_000));
        assert_eq!(ticks(100 * NANOS + 1), None);
    }

    #[test]
    fn the_packet_programs_clock_is_not_shifted() {
        let shift = Shift { monotonic: 1_000 * NANOS, boottime: 0 };
        let (shifted, own) = (monotonic_ns(shift), monotonic_ns(Shift::default()));
        assert!(own.saturating_sub(shifted) > 999_000_000_000, "{own} {shifted}");
    }
}
