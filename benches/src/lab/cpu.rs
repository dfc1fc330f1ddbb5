//! Measures how busy the whole machine is.

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result};
use nix::unistd::{SysconfVar, sysconf};

/// The busy time of all processors, and when it was read.
#[derive(Debug, Clone, Copy)]
pub struct Busy {
    seconds: f64,
    at: Instant,
}

impl Busy {
    /// Reads the busy time now.
    ///
    /// # Errors
    /// Fails if `/proc/stat` cannot be read.
    pub fn now() -> Result<Self> {
        let text = fs::read_to_string("/proc/stat").context("/proc/stat")?;
        let ticks = busy_ticks(&text).context("/proc/stat has no line of all processors")?;
        let a_second = sysconf(SysconfVar::CLK_TCK)?.context("how long a clock tick is")?;
        Ok(Self { seconds: ticks as f64 / a_second as f64, at: Instant::now() })
    }

    /// Returns the processor seconds and the seconds since an earlier reading.
    pub fn since(&self, earlier: &Self) -> (f64, f64) {
        (self.seconds - earlier.seconds, (self.at - earlier.at).as_secs_f64())
    }
}

/// Returns the busy time in clock ticks: all time except idle, waiting for a disk, and time that other machines took
/// (proc(5)).
fn busy_ticks(stat: &str) -> Option<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let times: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
    let &[user, nice, system, _idle, _iowait, irq, softirq, ..] = times.as_slice() else {
        return None;
    };
    Some(user + nice + system + irq + softirq)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_waiting_and_stolen_time_is_not_busy() {
        let stat =
            "cpu  1 20 300 4000 50000 600000 7000000 80000000 900000000 0\ncpu0 1 1 1 1 1 1 1\n";
        assert_eq!(busy_ticks(stat), Some(7_600_321));
        assert_eq!(busy_ticks("cpu0 1 1 1 1 1 1 1\n"), None);
        assert_eq!(busy_ticks("cpu 1 2 3\n"), None);
    }
}
