//! What the repository says of the auditor: an action for GitHub, and a table of surroundings.

mod action;
mod surroundings;
