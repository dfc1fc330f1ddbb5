//! Which kernel is modelled.

use std::fmt;
use std::str::FromStr;

/// A kernel's version, as far as it matters: `6.17`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    major: u16,
    minor: u16,
}

impl Version {
    /// The oldest that the packet programs load on.
    pub const OLDEST: Self = Self::new(5, 12);
    /// The newest whose rules are modelled.
    pub const NEWEST: Self = Self::new(6, 18);

    /// `major.minor`.
    pub const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor }
    }

    /// Whether this kernel has what came with `major.minor`.
    pub fn since(self, major: u16, minor: u16) -> bool {
        self >= Self::new(major, minor)
    }

    /// The running kernel's.
    ///
    /// # Panics
    /// When `uname` says no version.
    pub fn running() -> Self {
        let name = nix::sys::utsname::uname().expect("the kernel has a name");
        let release = name.release().to_string_lossy().into_owned();
        release.parse().unwrap_or_else(|why| panic!("{release}: {why}"))
    }
}

impl FromStr for Version {
    type Err = String;

    /// From a release: `6.1.0-56-cloud-amd64`.
    fn from_str(release: &str) -> Result<Self, String> {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => Ok(Self { major, minor }),
            _ => Err("a release begins with two numbers, as 6.18".to_owned()),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_read_and_compared_as_numbers() {
        let version: Version = "6.1.0-56-cloud-amd64".parse().unwrap();
        assert_eq!(version, Version::new(6, 1));
        assert!(version.since(5, 19) && version.since(6, 1) && !version.since(6, 12));
        assert!("linux".parse::<Version>().is_err());
    }
}
