//! Network namespaces, their devices and queueing disciplines, and the sockets of processes.

pub mod device_programs;
pub mod links;
pub mod netns;
pub mod offered;
pub mod qdisc;
pub mod rtnetlink;
pub mod sockets;
