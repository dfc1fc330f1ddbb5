//! Runs the engine on the running kernel, with a real process for each owner. The agent takes requests on standard input, and
//! the trial really kills it.

mod child;
mod protocol;
mod serve;
mod system;

pub(in crate::sequences) use child::is_killed;
pub use serve::serve;
pub use system::AgentSystem;
