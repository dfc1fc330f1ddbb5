//! Handles the user's wish to stop, so that the lab still undoes all settings.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{SigSet, Signal};

const LOOK: Duration = Duration::from_millis(20);

/// The user's wish to stop.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Blocks SIGINT (Ctrl-C), SIGTERM and SIGHUP, which express the wish from now on. Call it before any other thread
    /// exists.
    ///
    /// # Errors
    /// Fails if the kernel does not block the signals.
    pub fn on_signals() -> Result<Self> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            set.add(signal);
        }
        set.thread_block().context("cannot block signals")?;
        let stop = Self::default();
        let told = stop.clone();
        std::thread::spawn(move || {
            while let Ok(signal) = set.wait() {
                eprintln!("lab: {signal}: taking everything back");
                told.0.store(true, Ordering::Relaxed);
            }
        });
        Ok(stop)
    }

    /// Tells whether the user wants to stop.
    pub fn is_wished(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Sleeps until this time.
    ///
    /// # Errors
    /// Fails if the user wants to stop.
    pub fn sleep_until(&self, end: Instant) -> Result<()> {
        loop {
            ensure!(!self.is_wished(), "stopped");
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(LOOK));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_wishes_to_stop_does_not_wait() {
        let stop = Stop::default();
        stop.sleep_until(Instant::now()).unwrap();
        stop.0.store(true, Ordering::Relaxed);
        let long = Instant::now() + Duration::from_secs(100);
        assert_eq!(stop.sleep_until(long).unwrap_err().to_string(), "stopped");
    }
}
