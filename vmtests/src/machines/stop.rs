//! Stops on a signal without leaving a machine behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};

/// What the shell shows for a program that Ctrl-C ended.
pub const STATUS: u8 = 130;

/// The wish to stop.
#[derive(Debug, Clone)]
pub struct Stop {
    wished: Arc<AtomicBool>,
    /// Whether machines run, which are ended in order.
    running: Arc<AtomicBool>,
}

impl Stop {
    /// From now on SIGINT (Ctrl-C), SIGTERM and SIGHUP are this wish. To be called before any other
    /// thread is there.
    ///
    /// # Errors
    /// When the kernel does not tell which signals are ignored, or does not block them.
    pub fn on_signals() -> Result<Self> {
        let status = std::fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
        let ignored = ignored(&status);
        let mut set = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            // Whoever started this with a signal ignored (nohup, a shell's `&`) wants it to be.
            if ignored & (1 << (signal as u32 - 1)) == 0 {
                set.add(signal);
            }
        }
        set.thread_block().context("cannot block signals")?;
        let stop = Self { wished: Arc::default(), running: Arc::default() };
        let told = stop.clone();
        std::thread::spawn(move || {
            while let Ok(signal) = set.wait() {
                told.wished.store(true, Ordering::Relaxed);
                if !told.running.load(Ordering::Relaxed) {
                    std::process::exit(STATUS.into());
                }
                eprintln!("vmtests: {signal}: ending the virtual machines");
            }
        });
        Ok(stop)
    }

    /// Machines are being started: from now on a signal does not end this process at once.
    pub fn machines_run(&self) {
        self.running.store(true, Ordering::Relaxed);
    }

    /// What machines look at.
    pub fn flag(&self) -> &AtomicBool {
        &self.wished
    }
}

/// The mask of ignored signals in a `/proc/PID/status` file (proc(5)).
fn ignored(status: &str) -> u64 {
    let mask = |line: &str| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok();
    status.lines().find_map(mask).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_ignored_signals_is_read() {
        assert_eq!(ignored("Name:\tx\nSigIgn:\t0000000000001001\n"), 0x1001);
        assert_eq!(ignored("Name:\tx\n"), 0);
    }
}
