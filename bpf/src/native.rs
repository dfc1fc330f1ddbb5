//! The packet programs, compiled for this machine, for the tests.

pub(crate) mod packets;
pub(crate) mod shape;
pub(crate) mod windows;

pub(crate) use chadthrottle_native::*;
