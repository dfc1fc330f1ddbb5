//! Reads from the environment how much to try.

/// Returns the number that a variable holds; `None` if it is not set.
///
/// # Panics
/// Panics if it is set to something else. A typing error must not turn a long run into the usual one.
pub fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}: not a number")))
}
