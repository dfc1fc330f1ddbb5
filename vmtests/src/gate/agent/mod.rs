//! The engine on the running kernel, each owner a real process: an agent, which does what it is asked over its
//! standard input, and is really killed.

mod child;
mod protocol;
mod serve;
mod system;

pub(in crate::gate) use child::is_killed;
pub use serve::serve;
pub use system::AgentSystem;
