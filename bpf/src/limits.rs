//! The limits of a throttle: rate, burst and class of traffic.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use crate::departures::{Departures, FqDevices};
pub use crate::rate::{Rate, RateError};

/// A number of bytes, printed for people in SI units with at most three decimals.
#[derive(Debug, Clone, Copy)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, name) = match self.0 {
            0..1_000 => return f.pad(&format!("{} B", self.0)),
            1_000..1_000_000 => (1_000, "kB"),
            1_000_000..1_000_000_000 => (1_000_000, "MB"),
            1_000_000_000..1_000_000_000_000 => (1_000_000_000, "GB"),
            _ => (1_000_000_000_000, "TB"),
        };
        let fraction = format!("{:03}", self.0 % unit * 1_000 / unit);
        let fraction = fraction.trim_end_matches('0');
        let point = if fraction.is_empty() { "" } else { "." };
        f.pad(&format!("{}{point}{fraction} {name}", self.0 / unit))
    }
}

/// The burst: how much a throttle may pass at once after a pause, as time at the rate. At most one hour.
///
/// One more packet always passes. So even the shortest burst passes one packet of any size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Burst(Duration);

/// The reason why a text or a time is not a burst.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BurstError {
    /// The text is not a time with units.
    #[error("'{0}' is no burst: write a time as 250ms, 1s or 1m 30s ({1})")]
    Malformed(String, humantime::DurationError),
    /// The time has a sign.
    #[error("'{0}' is no burst: a time has no sign; write it as 250ms, 1s or 1m 30s")]
    Signed(String),
    /// The time is longer than an hour.
    #[error("a burst is at most 1h")]
    TooLong,
}

impl Burst {
    /// One hour.
    pub const MAX: Self = Self(Duration::from_secs(3_600));
    /// 250 ms: TCP (CUBIC) needs this burst to come near the rate when packets above it are dropped.
    pub const DEFAULT: Self = Self(Duration::from_millis(250));

    /// Creates a burst of this much time at the rate.
    ///
    /// # Errors
    /// When the time is longer than [`Burst::MAX`].
    pub fn new(time: Duration) -> Result<Self, BurstError> {
        if time <= Self::MAX.0 { Ok(Self(time)) } else { Err(BurstError::TooLong) }
    }

    /// Returns the time at the rate.
    pub fn as_duration(self) -> Duration {
        self.0
    }

    /// Returns the time at the rate, in nanoseconds.
    pub fn as_nanos(self) -> u64 {
        // At most an hour, which is 3.6e12 ns.
        u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX)
    }
}

impl FromStr for Burst {
    type Err = BurstError;

    /// Parses a time at the rate: `250ms`, `1s`, `1m 30s`.
    fn from_str(text: &str) -> Result<Self, BurstError> {
        if has_sign(text) {
            return Err(BurstError::Signed(text.to_owned()));
        }
        let time = humantime::parse_duration(text)
            .map_err(|error| BurstError::Malformed(text.to_owned(), error))?;
        Self::new(time)
    }
}

/// Tells whether a text is a number with a sign. An option such as `--upload` is not a number.
pub fn has_sign(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']);
    unsigned.is_some_and(|it| it.starts_with(|first: char| first.is_ascii_digit() || first == '.'))
}

impl fmt::Display for Burst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&humantime::format_duration(self.0).to_string())
    }
}

impl Default for Burst {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The class of traffic to limit, by the address of the other side.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Traffic {
    /// All traffic.
    #[default]
    All,
    /// Traffic that is not [`Traffic::Local`].
    Internet,
    /// Traffic with private, link-local, loopback, unique-local, multicast, broadcast and unspecified addresses.
    Local,
}

impl Traffic {
    /// Returns the name that people type and read.
    pub fn name(self) -> &'static str {
        match self {
            Traffic::All => "all",
            Traffic::Internet => "internet",
            Traffic::Local => "local",
        }
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The limits of a throttle in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The rate.
    pub rate: Rate,
    /// The burst.
    pub burst: Burst,
    /// The class of traffic to limit.
    pub traffic: Traffic,
    /// Where packets above the rate wait.
    pub departures: Departures,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_of_traffic_is_printed_in_columns() {
        for (traffic, expected) in [
            (Traffic::All, "all     |"),
            (Traffic::Internet, "internet|"),
            (Traffic::Local, "local   |"),
        ] {
            assert_eq!(format!("{traffic:8}|"), expected);
        }
    }

    #[test]
    fn bytes_are_printed_as_people_write_them() {
        for (bytes, expected) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1 kB"),
            (1_500_000, "1.5 MB"),
            (1_250_000, "1.25 MB"),
            (62_500_000, "62.5 MB"),
            (1_048_576, "1.048 MB"),
            (100_000_000_000, "100 GB"),
            (2_000_000_000_000, "2 TB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), expected);
        }
    }

    #[test]
    fn a_burst_is_at_most_an_hour() {
        assert_eq!(Burst::new(Duration::from_secs(3_600)), Ok(Burst::MAX));
        assert_eq!(Burst::new(Duration::from_millis(3_600_001)), Err(BurstError::TooLong));
        assert_eq!(Burst::default().as_duration(), Duration::from_millis(250));
    }

    #[test]
    fn a_burst_is_typed_and_printed_as_a_time() {
        let burst = |text: &str| text.parse::<Burst>();
        let seconds = Burst::new(Duration::from_secs(90)).unwrap();
        assert_eq!(burst("1m 30s"), Ok(seconds));
        assert_eq!(seconds.to_string(), "1m 30s");
        assert_eq!(burst("61m"), Err(BurstError::TooLong));
        for text in ["", "250", "ms", "--once", "-s"] {
            let error = burst(text).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("'{text}' is no burst: write a time as 250ms")),
                "{error}"
            );
        }
        for text in ["-1s", "+1s", "-.5s"] {
            assert_eq!(burst(text), Err(BurstError::Signed(text.to_owned())));
        }
    }
}
