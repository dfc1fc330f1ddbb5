//! Stops on a signal without leaving a machine behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};

/// The exit status that a shell shows for a program ended by Ctrl-C.
pub const STATUS: u8 = 130;

/// The user's wish to stop.
#[derive(Debug, Clone)]
pub struct Stop {
    wished: Arc<AtomicBool>,
    /// Whether machines run. They have to be ended in order.
    running: Arc<AtomicBool>,
}

impl Stop {
    /// Blocks SIGINT (Ctrl-C), SIGTERM and SIGHUP, which express the wish from now on. Call it before any other thread
    /// exists.
    ///
    /// # Errors
    /// Fails if the kernel does not tell which signals are ignored, or does not block them.
    pub fn on_signals() -> Result<Self> {
        let status = std::fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
        let ignored = ignored(&status);
        let mut set = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            // A signal that was ignored at the start stays ignored (nohup, or `&` in a shell).
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

    /// Notes that machines run. From now on a signal does not end this process at once.
    pub fn machines_run(&self) {
        self.running.store(true, Ordering::Relaxed);
    }

    /// Returns the flag that machines check.
    pub fn flag(&self) -> &AtomicBool {
        &self.wished
    }
}

/// Returns the mask of ignored signals from a `/proc/PID/status` file (proc(5)).
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
