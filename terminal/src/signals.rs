//! Tells which signals this process ignores.

use std::fs;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

/// The signals that this process ignored when somebody asked.
///
/// A program that takes signals leaves those alone that its parent had it ignore (`nohup`, or `&` in a shell).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ignored(u64);

impl Ignored {
    /// Reads the ignored signals of this process.
    ///
    /// # Errors
    /// When `/proc/self/status` cannot be read, or does not tell.
    pub fn now() -> Result<Self> {
        let path = "/proc/self/status";
        let status = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
        Self::parse(&status)
            .with_context(|| format!("{path} does not tell which signals are ignored"))
    }

    /// Parses a `/proc/PID/status` file (proc(5)). Bit 0 of its mask is signal 1.
    pub fn parse(status: &str) -> Option<Self> {
        let digits = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
        u64::from_str_radix(digits.trim(), 16).ok().map(Self)
    }

    /// Tells whether a signal is among them.
    pub fn has(self, signal: Signal) -> bool {
        self.0 >> (signal as i32 - 1) & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_ignored_signals_is_read() {
        let parsed = Ignored::parse("Name:\tx\nSigIgn:\t0000000000001001\nSigCgt:\t0\n");
        assert_eq!(parsed, Some(Ignored(0x1001)));
        assert_eq!(Ignored::parse("Name:\tx\n"), None);
        assert_eq!(Ignored::parse("SigIgn:\tx\n"), None);
    }

    #[test]
    fn a_set_of_signals_is_read_from_its_lowest_bit() {
        let has = |digits: &str, signal| {
            Ignored::parse(&format!("SigIgn:\t{digits}\n")).unwrap().has(signal)
        };
        assert!(has("0000000000010000", Signal::SIGCHLD));
        assert!(!has("0000000000008000", Signal::SIGCHLD));
        assert!(has("1", Signal::SIGHUP));
    }
}
