//! What the environment says of how much is to be tried.

/// The number that a variable holds; `None` where it is not set.
///
/// # Panics
/// When it is set to something else: who wants a long run shall not get the usual one.
pub fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}: not a number")))
}
