//! What a throttle allows: rate, burst and class of traffic.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use crate::departures::{Departures, FqDevices};

/// Bytes per second, from 1 kB/s to 100 GB/s.
///
/// ```
/// use bpf::limits::Rate;
///
/// let rate: Rate = "10mbit".parse()?;
/// assert_eq!(rate.bytes_per_second(), 1_250_000);
/// assert_eq!(rate.to_string(), "1.25 MB/s");
/// assert!("0".parse::<Rate>().is_err());
/// # Ok::<(), bpf::limits::RateError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Rate(u64);

impl Rate {
    /// 1 kB/s.
    pub const MIN: Self = Self(1_000);
    /// 100 GB/s.
    pub const MAX: Self = Self(100_000_000_000);

    /// A rate in bytes per second.
    ///
    /// # Errors
    /// When it lies outside of [`Rate::MIN`] and [`Rate::MAX`].
    pub fn from_bytes_per_second(rate: u64) -> Result<Self, RateError> {
        if (Self::MIN.0..=Self::MAX.0).contains(&rate) {
            Ok(Self(rate))
        } else {
            Err(RateError::OutOfRange)
        }
    }

    /// Bytes per second.
    pub fn bytes_per_second(self) -> u64 {
        self.0
    }
}

impl TryFrom<u64> for Rate {
    type Error = RateError;
    fn try_from(rate: u64) -> Result<Self, RateError> {
        Self::from_bytes_per_second(rate)
    }
}

impl From<Rate> for u64 {
    fn from(rate: Rate) -> u64 {
        rate.0
    }
}

/// A text that is no rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RateError {
    /// Not a number with a unit.
    #[error(
        "'{0}' is no rate: write bytes per second as 500K, 1.5M, 1G (or 500KiB, 2MiB), \
         or bits per second as tc does: 10mbit"
    )]
    Malformed(String),
    /// Too low or too high.
    #[error("a rate must lie between 1 kB/s (1K) and 100 GB/s (100G)")]
    OutOfRange,
}

/// Units: suffix in lower case, bytes per second as a fraction.
const UNITS: [(&str, u64, u64); 19] = [
    ("", 1, 1),
    ("b", 1, 1),
    ("k", 1_000, 1),
    ("kb", 1_000, 1),
    ("m", 1_000_000, 1),
    ("mb", 1_000_000, 1),
    ("g", 1_000_000_000, 1),
    ("gb", 1_000_000_000, 1),
    ("kib", 1 << 10, 1),
    ("mib", 1 << 20, 1),
    ("gib", 1 << 30, 1),
    ("bit", 1, 8),
    ("kbit", 1_000, 8),
    ("mbit", 1_000_000, 8),
    ("gbit", 1_000_000_000, 8),
    ("tbit", 1_000_000_000_000, 8),
    ("kibit", 1 << 10, 8),
    ("mibit", 1 << 20, 8),
    ("gibit", 1 << 30, 8),
];

impl FromStr for Rate {
    type Err = RateError;

    /// `500K`, `1.5M`, `1G`, `500KiB`, `10mbit`, each with or without `/s`; upper and lower case alike,
    /// except that bits are never just `b`: `10Mb` is refused as ambiguous.
    fn from_str(text: &str) -> Result<Self, RateError> {
        let malformed = || RateError::Malformed(text.to_owned());
        let trimmed = text.trim();
        let bare = trimmed.strip_suffix("/s").unwrap_or(trimmed);
        let digits = bare.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(bare.len());
        let (number, unit) = bare.split_at(digits);
        let unit = unit.trim_start();
        // "Mb" means megabits to one reader and megabytes to the next.
        if unit.len() == 2 && unit.ends_with('b') && !unit.starts_with(|c: char| c.is_lowercase()) {
            return Err(malformed());
        }
        let unit = unit.to_ascii_lowercase();
        let &(_, numerator, denominator) =
            UNITS.iter().find(|(name, ..)| *name == unit).ok_or_else(malformed)?;
        let (micros, whole_digits) = decimal_micros(number).ok_or_else(malformed)?;
        if whole_digits > 15 {
            return Err(RateError::OutOfRange);
        }
        let rate = micros * u128::from(numerator) / (1_000_000 * u128::from(denominator));
        u64::try_from(rate).map_or(Err(RateError::OutOfRange), Self::from_bytes_per_second)
    }
}

/// A decimal number in millionths, and how many digits stand before its point.
fn decimal_micros(number: &str) -> Option<(u128, usize)> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.len() > 6 || number.ends_with('.') {
        return None;
    }
    if whole.len() > 15 {
        return whole.bytes().all(|c| c.is_ascii_digit()).then_some((0, whole.len()));
    }
    let micros: u128 = format!("{whole}{fraction:0<6}").parse().ok()?;
    Some((micros, whole.len()))
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/s", Bytes(self.0)))
    }
}

/// A number of bytes for people: SI units, at most three digits after the point.
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

/// How long a throttle may let packets through at once after a pause, as time at the rate; at most an
/// hour. One packet more always passes, so a burst is never below one packet, however large.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Burst(Duration);

/// A text or a time that is no burst.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BurstError {
    /// Not a time with its units.
    #[error("'{0}' is no burst: write a time as 250ms, 1s or 1m 30s ({1})")]
    Malformed(String, humantime::DurationError),
    /// Longer than an hour.
    #[error("a burst is at most 1h")]
    TooLong,
}

impl Burst {
    /// An hour.
    pub const MAX: Self = Self(Duration::from_secs(3_600));
    /// What TCP (CUBIC) needs to come near the rate when packets above it are dropped.
    pub const DEFAULT: Self = Self(Duration::from_millis(250));

    /// A burst of that much time at the rate.
    ///
    /// # Errors
    /// When it is longer than [`Burst::MAX`].
    pub fn new(time: Duration) -> Result<Self, BurstError> {
        if time <= Self::MAX.0 { Ok(Self(time)) } else { Err(BurstError::TooLong) }
    }

    /// The time.
    pub fn as_duration(self) -> Duration {
        self.0
    }

    /// The time in nanoseconds.
    pub fn as_nanos(self) -> u64 {
        // At most an hour: 3.6e12.
        u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX)
    }
}

impl FromStr for Burst {
    type Err = BurstError;

    /// A time at the rate: `250ms`, `1s`, `1m 30s`.
    fn from_str(text: &str) -> Result<Self, BurstError> {
        let time = humantime::parse_duration(text)
            .map_err(|error| BurstError::Malformed(text.to_owned(), error))?;
        Self::new(time)
    }
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

/// Which traffic is limited, by the address of the other side.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Traffic {
    /// All of it.
    #[default]
    All,
    /// What is not [`Traffic::Local`].
    Internet,
    /// To and from private, link-local, loopback, unique-local, multicast, broadcast and unspecified
    /// addresses.
    Local,
}

impl Traffic {
    /// The name, as it is typed and printed.
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

/// What a throttle allows in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The rate.
    pub rate: Rate,
    /// The burst.
    pub burst: Burst,
    /// Whose packets.
    pub traffic: Traffic,
    /// Where packets above the rate wait for their turn.
    pub departures: Departures,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(text: &str) -> u64 {
        text.parse::<Rate>().unwrap_or_else(|error| panic!("{text}: {error}")).bytes_per_second()
    }

    #[test]
    fn rates_are_read_in_every_unit() {
        for (text, expected) in [
            ("500K", 500_000),
            ("500k/s", 500_000),
            ("1.5M", 1_500_000),
            ("1.5 MB/s", 1_500_000),
            ("1G", 1_000_000_000),
            ("100G", 100_000_000_000),
            ("512KiB", 524_288),
            ("2MiB", 2_097_152),
            ("1GiB", 1_073_741_824),
            ("10mbit", 1_250_000),
            ("0.5gbit", 62_500_000),
            ("8kbit", 1_000),
            ("8kibit", 1_024),
            ("1mibit", 131_072),
            ("1gibit", 134_217_728),
            ("000000000001000", 1_000),
            ("1000", 1_000),
            ("12.000001K", 12_000),
        ] {
            assert_eq!(rate(text), expected, "{text}");
        }
    }

    #[test]
    fn a_rate_is_a_number_of_bytes_in_json_and_stays_within_its_range() {
        let rate: Rate = serde_json::from_str("1250000").unwrap();
        assert_eq!(serde_json::to_string(&rate).unwrap(), "1250000");
        assert!(serde_json::from_str::<Rate>("999").is_err());
    }

    #[test]
    fn a_rate_and_a_class_of_traffic_are_printed_in_columns() {
        assert_eq!(format!("{:>10}|", Rate(1_250_000)), " 1.25 MB/s|");
        for (traffic, expected) in [
            (Traffic::All, "all     |"),
            (Traffic::Internet, "internet|"),
            (Traffic::Local, "local   |"),
        ] {
            assert_eq!(format!("{traffic:8}|"), expected);
        }
    }

    #[test]
    fn nonsense_is_refused_with_a_sentence() {
        for text in [
            "",
            " ",
            "M",
            "-1M",
            "1.M",
            ".5M",
            "1.2.3M",
            "1e6",
            "10Mb",
            "ten",
            "1 m m",
            "0x10K",
            "1.1234567M",
        ] {
            let error = text.parse::<Rate>().unwrap_err();
            assert_eq!(error, RateError::Malformed(text.to_owned()));
            assert!(error.to_string().contains("10mbit"), "{error}");
        }
    }

    #[test]
    fn rates_outside_of_the_range_are_refused() {
        for text in ["0", "0K", "0.0M", "999", "101G", "99999999999999999999999G", "1tbit"] {
            assert_eq!(text.parse::<Rate>(), Err(RateError::OutOfRange), "{text}");
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
        for text in ["", "250", "ms", "-1s"] {
            let error = burst(text).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("'{text}' is no burst: write a time as 250ms")),
                "{error}"
            );
        }
    }
}
