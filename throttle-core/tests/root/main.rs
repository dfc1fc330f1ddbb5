//! The engine on the real kernel.

mod common;
mod engine;
mod history;
mod neighbours;
mod settle;
mod tcp;
