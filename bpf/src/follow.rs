//! Detects a new cgroup at a path, and limits its packets until its throttle is added.
//!
//! inotify reports a new cgroup only after mkdir(2), and attaching takes about 100 µs more. Packets in that time would
//! pass any limit. Here a tracing program sees the cgroup before mkdir(2) returns.
//!
//! Programs on the parent cgroup then hold the new cgroup's packets to one burst, for at most one second. Packets of
//! all other cgroups pass.

// Generated code: neither its style nor its documentation is ours.
#[allow(warnings, unsafe_code, clippy::all, clippy::pedantic)]
mod skeleton {
    include!(concat!(env!("OUT_DIR"), "/follow.skel.rs"));
}

use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use kernel::cgroup::ROOT_CGROUP_ID;
use kernel::error::Call;
use kernel::{AttachType, Cgroup, CgroupId, Error, Link, Map, ProgramId, Result, libbpf};
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{RingBuffer, RingBufferBuilder};
use nix::errno::Errno;

use crate::owner::Owner;
use crate::throttle::write_chars;

const WHAT: &str = "the programs that follow a cgroup's path";

/// The only key of both maps.
const KEY: [u8; 4] = [0; 4];

/// The prefix of the names of the programs on the parent cgroup, as the kernel has cut it.
pub const GUARDS: &str = "chadthrottle_ho";

/// The burst in bytes for each direction; 0 for a direction without a limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Most {
    /// Received bytes.
    pub download: u64,
    /// Sent bytes.
    pub upload: u64,
}

/// Counts of the new cgroups' packets, until each cgroup was limited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// Packets within the burst.
    pub passed: Packets,
    /// Packets above the burst, which did not pass.
    pub dropped: Packets,
}

/// A number of packets for each direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Packets {
    /// Received packets.
    pub download: u64,
    /// Sent packets.
    pub upload: u64,
}

/// A program attached to the parent cgroup.
struct Guard {
    link: Link,
    program: ProgramId,
}

/// Follows one name in one parent cgroup. Dropping the value, or the end of the process, ends it without a trace.
#[must_use = "dropping it lets go"]
pub struct Follower {
    parent: CgroupId,
    wish: Map,
    held: Map,
    told: OwnedFd,
    ring: RingBuffer<'static>,
    guards: Vec<Guard>,
    _trace: libbpf_rs::Link,
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follower").field("parent", &self.parent).finish_non_exhaustive()
    }
}

impl Follower {
    /// Follows `name` in the cgroup `parent`, in the directions that have a burst.
    ///
    /// While the value lives, each packet of `parent` and its descendants runs one more small program. The caller
    /// checks whether that puts somebody else's program out of force (see [`kernel::lineage`]).
    ///
    /// Needs Linux 6.1 with type information (`CONFIG_DEBUG_INFO_BTF`), `CAP_BPF`, `CAP_NET_ADMIN` and `CAP_PERFMON`.
    ///
    /// # Errors
    /// `EOPNOTSUPP` on the hierarchy's root, which has all of the host's packets. `Full` when 64 programs are attached.
    /// Otherwise the error of the kernel or libbpf.
    pub fn new(owner: &Owner, parent: &Cgroup, name: &OsStr, most: Most) -> Result<Self> {
        let refuse = |why: &str| Error::found(Call::Load, WHAT, Errno::EOPNOTSUPP).with_detail(why);
        if parent.id() == ROOT_CGROUP_ID {
            return Err(refuse("the cgroup above is the root: every packet of the host would pay"));
        }
        let fail = |error: libbpf_rs::Error| Error::of_load(Call::LoadTracing, WHAT, &error);
        libbpf::listen();
        let mut storage = MaybeUninit::uninit();
        let mut open = skeleton::FollowSkelBuilder::default().open(&mut storage).map_err(fail)?;
        let rodata = open.maps.rodata_data.as_deref_mut();
        let rodata = rodata.ok_or_else(|| refuse("the object has no read-only data"))?;
        rodata.bpf_metadata_owner_pid = owner.pid;
        rodata.bpf_metadata_owner_start = owner.start_time;
        rodata.bpf_metadata_owner_pidns = owner.pid_namespace;
        write_chars(&mut rodata.bpf_metadata_owner_boot, &owner.boot_id);
        write_chars(&mut rodata.bpf_metadata_version, &owner.version);
        if name.len() >= rodata.name.len() {
            return Err(refuse("the cgroup's name is too long"));
        }
        for (to, from) in rodata.name.iter_mut().zip(name.as_bytes()) {
            *to = from.cast_signed();
        }
        rodata.most = [most.download, most.upload];
        let skeleton = open.load().map_err(fail)?;

        let own = |fd: BorrowedFd<'_>| {
            fd.try_clone_to_owned().map_err(|error| Error::from_io(Call::Load, WHAT, &error))
        };
        let map = |fd| Map::from_fd(own(fd)?);
        let (wish, held) =
            (map(skeleton.maps.chad_wish.as_fd())?, map(skeleton.maps.chad_held.as_fd())?);
        let told = own(skeleton.maps.chad_made.as_fd())?;
        let mut ring = RingBufferBuilder::new();
        ring.add(&skeleton.maps.chad_made, |_| 0).map_err(fail)?;
        let ring = ring.build().map_err(fail)?;

        // Programs limit from the moment they are attached, so the tracing program comes last.
        let trace = skeleton.progs.chadthrottle_await.attach().map_err(fail)?;
        let (id, guards) = (parent.id(), Vec::new());
        let mut follower = Self { parent: id, wish, held, told, ring, guards, _trace: trace };
        follower.armed(CgroupId(0))?;
        let guarded = [
            (most.download, AttachType::INET_INGRESS, &skeleton.progs.chadthrottle_hold_in),
            (most.upload, AttachType::INET_EGRESS, &skeleton.progs.chadthrottle_hold_out),
        ];
        for (most, attach_type, program) in guarded {
            if most > 0 {
                let link = Link::create(program.as_fd(), parent, attach_type)?;
                follower.guards.push(Guard { program: link.info()?.program_id, link });
            }
        }
        Ok(follower)
    }

    /// Returns the id of the parent cgroup.
    pub fn parent(&self) -> CgroupId {
        self.parent
    }

    /// Returns the ids of the programs on the parent cgroup.
    pub fn programs(&self) -> impl Iterator<Item = ProgramId> {
        self.guards.iter().map(|guard| guard.program)
    }

    /// Detaches the programs from the parent cgroup, and stops following.
    ///
    /// # Errors
    /// When the kernel refuses. The programs still end with this value, unless somebody else holds their links.
    pub fn detach(self) -> Result<()> {
        self.guards.iter().try_for_each(|guard| guard.link.detach())
    }

    /// Lets a new cgroup's packets pass, because its own throttle limits it now.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn armed(&self, cgroup: CgroupId) -> Result<()> {
        let wish = [self.parent.0.to_ne_bytes(), cgroup.0.to_ne_bytes()].concat();
        self.wish.update(&KEY, &wish)
    }

    /// Reads the counts so far.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn held(&self) -> Result<Held> {
        let fail = |errno| Error::new(Call::MapLookup, WHAT, errno);
        let value = self.held.lookup(&KEY)?.ok_or_else(|| fail(Errno::ENOENT))?;
        let number = |at: usize| {
            let bytes = value.get(at * 8..at * 8 + 8)?.try_into().ok()?;
            Some(u64::from_ne_bytes(bytes))
        };
        let packets = |at: usize| Some(Packets { download: number(at)?, upload: number(at + 1)? });
        let read = || Some(Held { passed: packets(5)?, dropped: packets(7)? });
        read().ok_or_else(|| Error::found(Call::MapLookup, WHAT, Errno::EIO))
    }

    /// Consumes the pending events, so that the caller can wait again.
    pub fn heard(&self) {
        // The event's content does not matter. A woken caller looks for itself.
        let _ = self.ring.consume();
    }
}

/// The descriptor becomes readable when a cgroup is created at the path.
impl AsFd for Follower {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.told.as_fd()
    }
}
