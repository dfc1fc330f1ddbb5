//! What the host cannot show: other kernels, queueing disciplines, several processors, a layout with
//! cgroup2 alone, rights taken away. `vmtests vm` runs these in its machines and nowhere else, because
//! their names begin with `vm_`.
#![forbid(unsafe_code)]

mod common;
mod cpus;
mod departures;
mod interrupted;
mod kernel;
mod layout;
mod module;
mod qdiscs;
mod queue;
mod rights;
mod round_trips;
