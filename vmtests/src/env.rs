//! What the environment says of how much is to be tried, and what can be.

/// The number that a variable holds; `None` where it is not set.
///
/// # Panics
/// When it is set to something else: who wants a long run shall not get the usual one.
pub fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}: not a number")))
}

/// Whether programs can be attached to network devices through links (6.6).
///
/// # Panics
/// When the kernel does not tell its release.
pub fn has_tcx() -> bool {
    let release = nix::sys::utsname::uname().unwrap().release().to_str().unwrap().to_owned();
    let mut numbers = release.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(6))
}
