//! What can be asked of the Linux kernel about cgroup BPF, and told to it.
//!
//! Programs, maps, links, lists, pins and their holders; cgroups and their mounts; network devices and namespaces;
//! processes and capabilities. All system calls go through the module `sys`, the only `unsafe` one. Each function is one
//! question or one act, its errors keep the call, the target and the errno, and a failure is never an empty answer.
//!
//! | module | has |
//! | --- | --- |
//! | [`program`], [`link`], [`map`], [`objects`] | open objects, and all that there are |
//! | [`pins`], [`holders`] | who keeps an object: files in a bpffs, processes |
//! | [`cgroup`], [`list`], [`lineage`], [`walk`] | cgroups, what is attached to one, to its ancestors, to a whole tree |
//! | [`netns`], [`links`], [`qdisc`], [`device_programs`], [`sockets`] | network namespaces, their devices, and sockets |
//! | [`process`], [`rights`], [`clocks`], [`release`] | processes of one boot, capabilities, clocks, the kernel's version |
//! | [`loads`] | which process loads and attaches what |
//! | [`probe`] | what this kernel can do |
//! | [`boundary`] | the same as traits, for whoever wants to put something else in the kernel's place |
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
