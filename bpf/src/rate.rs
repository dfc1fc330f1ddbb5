//! Rates as people type and read them.

use std::fmt::{self, Write};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::limits::Bytes;

/// A rate in bytes per second, from 1 kB/s to 100 GB/s.
///
/// ```
/// use bpf::limits::Rate;
///
/// let rate: Rate = "10mbit".parse()?;
/// assert_eq!(rate.bytes_per_second(), 1_250_000);
/// assert_eq!(rate.to_string(), "1.25 MB/s");
/// assert!("0".parse::<Rate>().is_err());
/// assert!("10mb".parse::<Rate>().is_err(), "bits never become bytes");
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

    /// Creates a rate in bytes per second.
    ///
    /// # Errors
    /// When the rate is below [`Rate::MIN`] or above [`Rate::MAX`].
    pub fn from_bytes_per_second(rate: u64) -> Result<Self, RateError> {
        if (Self::MIN.0..=Self::MAX.0).contains(&rate) {
            Ok(Self(rate))
        } else {
            Err(RateError::OutOfRange(rate.to_string()))
        }
    }

    /// Returns the rate in bytes per second.
    pub fn bytes_per_second(self) -> u64 {
        self.0
    }

    /// Returns a table of the accepted units, for help, errors and documents.
    pub fn units() -> String {
        let mut text = String::new();
        for row in &UNITS {
            let names: Vec<_> = row.names.iter().map(|(name, _)| *name).collect();
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  {:<26} {}", names.join(" ").trim_start(), row.means);
        }
        text
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

/// The reason why a text is not a rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RateError {
    /// The text is not a number with a unit.
    #[error("\"{text}\" is not a rate: {why}. A rate is a number and one of these units, with or without /s:\n{units}", units = Rate::units().trim_end())]
    Malformed {
        /// The text.
        text: String,
        /// The reason, without a full stop.
        why: String,
    },
    /// The rate is too low or too high.
    #[error("\"{0}\" is not a rate: it lies outside of 1 kB/s (1K) to 100 GB/s (100G)")]
    OutOfRange(String),
}

/// Units with one meaning.
struct Units {
    /// The units' names (see [`is_written_as`]), each with the number of bits or bytes in one unit.
    names: &'static [(&'static str, u64)],
    means: &'static str,
    /// The number of units in a byte: 1 for bytes, 8 for bits.
    per_byte: u64,
}

const TERA: u64 = 1_000_000_000_000;

/// Every accepted unit. The parser, the help and the documents all use this table.
const UNITS: [Units; 4] = [
    Units {
        names: &[
            ("", 1),
            ("B", 1),
            ("K", 1_000),
            ("kB", 1_000),
            ("M", 1_000_000),
            ("MB", 1_000_000),
            ("G", 1_000_000_000),
            ("GB", 1_000_000_000),
            ("T", TERA),
            ("TB", TERA),
        ],
        means: "bytes per second, as without a unit; powers of 1000",
        per_byte: 1,
    },
    Units {
        names: &[("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)],
        means: "bytes per second; powers of 1024",
        per_byte: 1,
    },
    Units {
        names: &[
            ("bit", 1),
            ("kbit", 1_000),
            ("mbit", 1_000_000),
            ("gbit", 1_000_000_000),
            ("tbit", TERA),
        ],
        means: "bits per second; powers of 1000",
        per_byte: 8,
    },
    Units {
        names: &[("kibit", 1 << 10), ("mibit", 1 << 20), ("gibit", 1 << 30), ("tibit", 1 << 40)],
        means: "bits per second; powers of 1024",
        per_byte: 8,
    },
];

/// Tells whether a unit matches a name. Case does not matter, except for the B of bytes: many people read a small b as
/// bits.
fn is_written_as(unit: &str, name: &str) -> bool {
    unit.eq_ignore_ascii_case(name) && unit.ends_with('B') == name.ends_with('B')
}

impl FromStr for Rate {
    type Err = RateError;

    /// Parses a decimal number with one of [`Rate::units`], with or without `/s`. Refuses a unit that may mean bits or
    /// bytes, such as `10Mb` or `10mbps`.
    fn from_str(text: &str) -> Result<Self, RateError> {
        let malformed = |why: String| RateError::Malformed { text: text.to_owned(), why };
        let out_of_range = || RateError::OutOfRange(text.to_owned());
        let trimmed = text.trim();
        let bare = trimmed.strip_suffix("/s").unwrap_or(trimmed);
        let digits = bare.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(bare.len());
        let (number, unit) = bare.split_at(digits);
        let (micros, whole_digits) =
            decimal_micros(number).map_err(|why| malformed(why_no_number(bare, why)))?;
        let unit = unit.trim_start();
        let known = UNITS
            .iter()
            .flat_map(|row| row.names.iter().map(move |&(name, size)| (name, size, row.per_byte)));
        let (_, size, per_byte) = known
            .into_iter()
            .find(|(name, ..)| is_written_as(unit, name))
            .ok_or_else(|| malformed(why_no_unit(number, unit)))?;
        if whole_digits > LONGEST {
            return Err(out_of_range());
        }
        let rate = micros * u128::from(size) / (1_000_000 * u128::from(per_byte));
        u64::try_from(rate)
            .ok()
            .and_then(|rate| Self::from_bytes_per_second(rate).ok())
            .ok_or_else(out_of_range)
    }
}

/// The most digits before the point that are parsed. A longer number is out of range in any unit.
const LONGEST: usize = 15;

/// Parses a decimal number. Returns it in millionths, with the number of digits before its point.
fn decimal_micros(number: &str) -> Result<(u128, usize), &'static str> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if number.is_empty() {
        return Err("it does not begin with a number");
    }
    if whole.is_empty() || number.ends_with('.') {
        return Err("a decimal point has digits on both sides, as in 0.5M");
    }
    if fraction.contains('.') {
        return Err("a number has one decimal point");
    }
    if fraction.len() > 6 {
        return Err("at most six digits may follow the decimal point");
    }
    let whole_digits = whole.trim_start_matches('0').len();
    if whole_digits > LONGEST {
        return Ok((0, whole_digits));
    }
    let micros = format!("{whole}{fraction:0<6}").parse().map_err(|_| "the number is too long")?;
    Ok((micros, whole_digits))
}

/// Explains why a text does not begin with a number, and guesses what the user meant.
fn why_no_number(bare: &str, why: &str) -> String {
    match bare.to_ascii_lowercase().as_str() {
        "unlimited" | "infinite" | "infinity" | "inf" | "none" | "max" | "off" => {
            "for no limit, leave the option out".to_owned()
        }
        option if option.starts_with("--") => {
            "it looks like the next option, so the rate is missing".to_owned()
        }
        signed if signed.starts_with(['-', '+']) => "a rate has no sign".to_owned(),
        _ => why.to_owned(),
    }
}

fn why_no_unit(number: &str, unit: &str) -> String {
    if unit.starts_with(',') {
        return "the decimal point is a point, as in 1.5M".to_owned();
    }
    let lower = unit.to_ascii_lowercase();
    // `kbps` means bytes in tc, but bits everywhere else.
    let stem = lower.strip_suffix("ps").unwrap_or(&lower);
    let prefix = stem.strip_suffix("bit").or_else(|| stem.strip_suffix('b'));
    let prefix =
        prefix.filter(|it| matches!(*it, "" | "k" | "m" | "g" | "t" | "ki" | "mi" | "gi" | "ti"));
    match prefix {
        Some(prefix) => {
            let upper = if prefix == "k" { "k".to_owned() } else { capitalised(prefix) };
            format!(
                "{unit} may mean bits or bytes, so write {number}{upper}B for bytes or {number}{prefix}bit for bits"
            )
        }
        None => format!("there is no unit {unit}"),
    }
}

fn capitalised(prefix: &str) -> String {
    let (first, rest) = prefix.split_at(prefix.len().min(1));
    first.to_ascii_uppercase() + rest
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/s", Bytes(self.0)))
    }
}

#[cfg(test)]
#[path = "rate_tests.rs"]
mod tests;
