//! The engine on the model of the kernel: no root. The gate takes any steps and looks at what is attached; these
//! look at what the engine says and writes.

mod afterwards;
mod again;
mod between;
mod common;
mod engine;
mod former;
mod mishaps;
mod names;
mod neighbours;
mod out_of_sight;
mod queue;
mod refused;
mod settle;
mod several;
