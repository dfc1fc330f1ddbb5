//! Defines which kernel's rules the model follows.

use std::fmt;
use std::str::FromStr;

/// A kernel's version, as `6.17`, or as `6.12.117` for a stable release that got a newer one's rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    major: u16,
    minor: u16,
    patch: u16,
    has_strict_updates: bool,
}

impl Version {
    /// The oldest version on which the packet programs load.
    pub const OLDEST: Self = Self::new(5, 12);
    /// The newest version whose rules the model follows. Tests use it unless they ask for another.
    pub const NEWEST: Self = Self::new(6, 18);
    // Stable releases with the rules of newer kernels. 6.1.192 is the first 6.1 release where they were seen. For 6.12
    // the list of changes after 6.12.110 names them, and 6.12.117 showed them.
    const PATCHED_6_1: Self = Self::new(6, 1).patch(192);
    const PATCHED_6_12: Self = Self::new(6, 12).patch(111);

    /// Makes the version `major.minor`, as it was released first.
    pub const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor, patch: 0, has_strict_updates: false }
    }

    /// Makes a stable release of it.
    #[must_use]
    pub const fn patch(self, patch: u16) -> Self {
        Self { patch, ..self }
    }

    /// Makes a build of it whose link updates refuse programs of another attach type or with other cgroup storage. The
    /// version does not decide this: one of two builds of 6.18.44 does it. `differential::Beside` asks the kernel.
    #[must_use]
    pub const fn strict_updates(self, has_strict_updates: bool) -> Self {
        Self { has_strict_updates, ..self }
    }

    /// Tells whether a link's update refuses a program of another attach type.
    pub(crate) fn checks_attach_type_on_update(self) -> bool {
        self.has_strict_updates
    }

    /// Tells whether this kernel has what came with `major.minor`.
    pub fn since(self, major: u16, minor: u16) -> bool {
        self >= Self::new(major, minor)
    }

    /// Tells whether this kernel has what came with `major.minor`, or with a stable release of an older one.
    fn since_or_in(self, major: u16, minor: u16, stable: Self) -> bool {
        let same_line = (self.major, self.minor) == (stable.major, stable.minor);
        self.since(major, minor) || (same_line && self.patch >= stable.patch)
    }

    /// Tells whether the kernel knows `BPF_F_PREORDER`.
    pub(crate) fn has_preorder(self) -> bool {
        self.since_or_in(6, 15, Self::PATCHED_6_12)
    }

    /// Tells whether lists have revisions that a call can expect.
    pub(crate) fn has_revisions(self) -> bool {
        self.since_or_in(6, 17, Self::PATCHED_6_12)
    }

    /// Tells whether a link's update refuses a program with other cgroup storage than the old one. Without this check,
    /// a packet finds the old program's storage, or none. Most builds of 6.18.44 lack the check; 6.19 is a guess.
    pub(crate) fn checks_storage_on_update(self) -> bool {
        self.has_strict_updates
            || self.since_or_in(6, 19, Self::PATCHED_6_12)
            || self.since_or_in(6, 19, Self::PATCHED_6_1)
    }

    /// Tells whether the kernel knows `BPF_F_BEFORE` and the related flags.
    pub(crate) fn has_insertion(self) -> bool {
        self.since_or_in(6, 17, Self::PATCHED_6_12)
    }

    /// Returns the version of the running kernel.
    ///
    /// # Panics
    /// Panics if `uname` gives no version.
    pub fn running() -> Self {
        let name = nix::sys::utsname::uname().expect("the kernel has a name");
        let release = name.release().to_string_lossy().into_owned();
        let version: Self = release.parse().unwrap_or_else(|why| panic!("{release}: {why}"));
        version.patched(&name.version().to_string_lossy())
    }

    /// Adds the stable release of a Debian kernel. Debian calls every release of 6.1 `6.1.0`. Only the text about the
    /// build names the real one, such as `#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2 (2026-11-01)`.
    fn patched(self, built: &str) -> Self {
        let told = built.split_whitespace().skip_while(|word| *word != "Debian").nth(1);
        match told.and_then(|text| text.parse::<Self>().ok()) {
            Some(told) if (told.major, told.minor) == (self.major, self.minor) => told,
            _ => self,
        }
    }
}

impl FromStr for Version {
    type Err = String;

    /// Parses a release such as `6.1.0-56-cloud-amd64`.
    fn from_str(release: &str) -> Result<Self, String> {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        match (numbers.next(), numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor)), patch) => {
                Ok(Self::new(major, minor).patch(patch.and_then(Result::ok).unwrap_or(0)))
            }
            _ => Err("a release begins with two numbers, as 6.18".to_owned()),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)?;
        if self.patch == 0 { Ok(()) } else { write!(f, ".{}", self.patch) }
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

    #[test]
    fn a_stable_release_may_have_more_than_its_first_one() {
        let version = Version::new(6, 12).patch(117);
        assert_eq!("6.12.117+deb12-cloud-amd64".parse(), Ok(version));
        assert_eq!(version.to_string(), "6.12.117");
        let stable = |patch| Version::new(6, 12).patch(patch);
        assert!(version.since_or_in(6, 17, stable(100)));
        assert!(!version.since_or_in(6, 17, stable(118)));
        assert!(!Version::new(6, 13).since_or_in(6, 17, version));
        assert!(Version::new(6, 17).since_or_in(6, 17, version));
    }

    #[test]
    fn debian_tells_the_stable_release_where_it_tells_of_the_build() {
        let built = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2 (2026-11-01)";
        assert_eq!(Version::new(6, 1).patched(built), Version::new(6, 1).patch(192));
        assert_eq!(Version::new(6, 2).patched(built), Version::new(6, 2));
    }
}
