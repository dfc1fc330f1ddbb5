//! Tests the output in every format. Output is a function of values, so the tests need no root.

mod baseline;
mod ci;
mod devices;
mod diff;
mod gate;
mod generate;
mod github;
mod hostile;
mod junit;
mod output;
mod picture;
mod places;
mod prometheus;
mod recorded;
mod results;
mod sarif;
mod schema;
mod slots;
mod terminal;
mod unowned;
