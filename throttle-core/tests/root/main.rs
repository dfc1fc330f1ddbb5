//! The engine on the real kernel.

mod common;
mod engine;
mod history;
mod settle;
mod tcp;
