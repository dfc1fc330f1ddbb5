//! Queries and changes the cgroup BPF state of a Linux kernel.
//!
//! The crate covers programs, maps, links, attach lists, pins and their holders. It also covers cgroups, network
//! devices, network namespaces, processes and capabilities.
//!
//! Every system call goes through the module `sys`, the only module with `unsafe` code. Each public function asks one
//! question or makes one change. An error names the call, the target and the errno. A failed query returns an error,
//! never an empty list.
//!
//! | module | has |
//! | --- | --- |
//! | [`program`], [`link`], [`map`], [`objects`] | open one object, or list every object of the kernel |
//! | [`pins`], [`holders`] | find what keeps an object alive: pins in a bpffs, and processes |
//! | [`cgroup`], [`list`] | open cgroups; query, attach and detach programs |
//! | [`lineage`], [`walk`] | query a cgroup with its ancestors, or a whole tree at one moment |
//! | [`netns`], [`links`], [`qdisc`], [`device_programs`], [`sockets`] | read network namespaces, their devices, and
//! sockets |
//! | [`process`], [`rights`], [`clocks`], [`release`] | read processes, capabilities, clocks and the kernel release |
//! | [`loads`] | trace which process loads and attaches programs |
//! | [`probe`] | find out what the running kernel supports |
//! | [`boundary`] | traits for the above, so that a simulated kernel can take the real one's place |
//!
//! ```no_run
//! use cgroup_bpf::list::{self, Scope};
//! use cgroup_bpf::{AttachType, Cgroup};
//!
//! let cgroup = Cgroup::open("/sys/fs/cgroup/system.slice".as_ref())?;
//! let egress = list::query(&cgroup, AttachType::INET_EGRESS, Scope::Local, false)?;
//! for program in egress.programs {
//!     println!("program {}", program.id);
//! }
//! # Ok::<(), cgroup_bpf::Error>(())
//! ```

mod attach;
pub mod boundary;
pub mod cgroup;
pub mod error;
#[cfg(test)]
mod folder;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod host;
mod network;
mod object;
mod sys;
mod trace;

pub use attach::attach_type::{AttachType, UnknownAttachType};
pub use attach::{lineage, list, probe, walk};
pub use cgroup::Cgroup;
pub use error::{Error, Result};
pub use host::process::ProcessIdentity;
pub use host::{clocks, process, release, rights};
pub use network::{device_programs, links, netns, offered, qdisc, rtnetlink, sockets};
pub use object::ids::{CgroupId, LinkId, MapId, ProgramId};
pub use object::link::{DeviceLinkInfo, Link, LinkInfo, Way};
pub use object::map::Map;
pub use object::program::{Program, ProgramIdentity, ProgramInfo};
pub use object::{holders, iterator, link, map, objects, pins, program, run_time};
pub use sys::libbpf;
pub use trace::loads;
