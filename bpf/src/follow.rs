//! Seeing a cgroup being made at a path, and holding its packets until it is limited.
//!
//! inotify tells of a new cgroup after mkdir(2), and attaching takes some 100 µs more: what the service sends meanwhile
//! passes any limit. Here a tracing program sees the cgroup before mkdir(2) returns, and programs on the cgroup above hold
//! what it sends and receives to one burst until then, for a second at the most.

// Generated code: neither its style nor its documentation is ours.
#[allow(warnings, clippy::all, clippy::pedantic)]
mod skeleton {
    include!(concat!(env!("OUT_DIR"), "/follow.skel.rs"));
}

use std::ffi::{OsStr, c_char};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{RingBuffer, RingBufferBuilder};
use nix::errno::Errno;

use crate::attach_type::AttachType;
use crate::cgroup::{Cgroup, ROOT_CGROUP_ID};
use crate::error::{Call, Error, Result, errno_of};
use crate::ids::CgroupId;
use crate::link::Link;
use crate::list::{AttachFlags, Query, Scope};
use crate::owner::Owner;
use crate::sys::Map;
use crate::throttle::{listen_to_libbpf, take_log, write_c_chars};

const WHAT: &str = "the programs that follow a cgroup's path";

/// The only key of both maps.
const KEY: [u8; 4] = [0; 4];

/// How the names of the programs on the cgroup above begin: what the kernel keeps of them.
pub const GUARDS: &str = "chadthrottle_ho";

/// The bytes of a burst, by which packets are held; 0 where nothing is limited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Most {
    /// Received.
    pub download: u64,
    /// Sent.
    pub upload: u64,
}

/// Packets of new cgroups at the path, until each was limited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// Received.
    pub download: u64,
    /// Sent.
    pub upload: u64,
}

/// Follows one name in one cgroup. All of it goes with this value, or with the process.
#[must_use = "dropping it lets go"]
pub struct Follower {
    parent: CgroupId,
    wish: Map,
    held: Map,
    told: OwnedFd,
    ring: RingBuffer<'static>,
    _guards: Vec<Link>,
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
    /// Needs Linux 6.1 with type information (`CONFIG_DEBUG_INFO_BTF`), `CAP_BPF`, `CAP_NET_ADMIN` and `CAP_PERFMON`.
    /// While it lives, each packet of `parent` and all below it runs one small program more in such a direction.
    ///
    /// # Errors
    /// `EOPNOTSUPP` on the hierarchy's root, whose packets are all of the host's, and where attaching would take another's
    /// program out of force. `Full` when 64 programs are attached; otherwise what the kernel or libbpf says.
    pub fn new(owner: &Owner, parent: &Cgroup, name: &OsStr, most: Most) -> Result<Self> {
        let refuse = |why: &str| Error::new(Call::Load, WHAT, Errno::EOPNOTSUPP).with_detail(why);
        if parent.id() == ROOT_CGROUP_ID {
            return Err(refuse("the cgroup above is the root: every packet of the host would pay"));
        }
        let fail = |error: libbpf_rs::Error| {
            let log = format!("{error}\n{}", take_log());
            Error::new(Call::Load, WHAT, errno_of(&error)).with_log(log.trim_end())
        };
        listen_to_libbpf();
        let mut storage = MaybeUninit::uninit();
        let mut open = skeleton::FollowSkelBuilder::default().open(&mut storage).map_err(fail)?;
        let rodata = open.maps.rodata_data.as_deref_mut();
        let rodata = rodata.ok_or_else(|| refuse("the object has no read-only data"))?;
        rodata.bpf_metadata_owner_pid = owner.pid;
        rodata.bpf_metadata_owner_start = owner.start_time;
        rodata.bpf_metadata_owner_pidns = owner.pid_namespace;
        write_c_chars(&mut rodata.bpf_metadata_owner_boot, &owner.boot_id);
        write_c_chars(&mut rodata.bpf_metadata_version, &owner.version);
        if name.len() >= rodata.name.len() {
            return Err(refuse("the cgroup's name is too long"));
        }
        for (to, from) in rodata.name.iter_mut().zip(name.as_bytes()) {
            *to = c_char::from_ne_bytes([*from]);
        }
        rodata.most = [most.download, most.upload];
        let skeleton = open.load().map_err(fail)?;

        let own = |fd: BorrowedFd<'_>| {
            fd.try_clone_to_owned().map_err(|error| Error::from_io(Call::Load, WHAT, &error))
        };
        let map = |fd| {
            let map = Map::from_fd(own(fd)?);
            map.map_err(|errno| Error::new(Call::Info, WHAT, errno))
        };
        let (wish, held) =
            (map(skeleton.maps.chad_wish.as_fd())?, map(skeleton.maps.chad_held.as_fd())?);
        let told = own(skeleton.maps.chad_made.as_fd())?;
        let mut ring = RingBufferBuilder::new();
        ring.add(&skeleton.maps.chad_made, |_| 0).map_err(fail)?;
        let ring = ring.build().map_err(fail)?;

        let mut guards = Vec::new();
        let guarded = [
            (most.download, AttachType::INET_INGRESS, &skeleton.progs.chadthrottle_hold_in),
            (most.upload, AttachType::INET_EGRESS, &skeleton.progs.chadthrottle_hold_out),
        ];
        for (most, attach_type, program) in guarded {
            if most > 0 {
                if displaces(parent, attach_type)? {
                    return Err(refuse(
                        "a program above yields to any other below it (BPF_F_ALLOW_OVERRIDE)",
                    ));
                }
                guards.push(Link::create(program.as_fd(), parent, attach_type)?);
            }
        }
        let trace = skeleton.progs.chadthrottle_await.attach().map_err(fail)?;
        let parent = parent.id();
        let follower = Self { parent, wish, held, told, ring, _guards: guards, _trace: trace };
        follower.armed(CgroupId(0))?;
        Ok(follower)
    }

    /// The cgroup above.
    pub fn parent(&self) -> CgroupId {
        self.parent
    }

    /// Lets that cgroup's packets pass, because it is limited now.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn armed(&self, cgroup: CgroupId) -> Result<()> {
        let wish = [self.parent.0.to_ne_bytes(), cgroup.0.to_ne_bytes()].concat();
        let fail = |errno| Error::new(Call::MapUpdate, WHAT, errno);
        self.wish.update(&KEY, &wish).map_err(fail)
    }

    /// How much was held so far.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn held(&self) -> Result<Held> {
        let fail = |errno| Error::new(Call::MapLookup, WHAT, errno);
        let value = self.held.lookup(&KEY).map_err(fail)?.ok_or_else(|| fail(Errno::ENOENT))?;
        let number = |at: usize| {
            let bytes = value.get(at * 8..at * 8 + 8)?.try_into().ok()?;
            Some(u64::from_ne_bytes(bytes))
        };
        let read = || Some(Held { download: number(5)?, upload: number(6)? });
        read().ok_or_else(|| fail(Errno::EIO))
    }

    /// Takes note of what was told: then it can be waited for again.
    pub fn heard(&self) {
        // What it says does not matter: who was woken looks.
        let _ = self.ring.consume();
    }
}

/// Can be read when a cgroup was made at the path.
impl AsFd for Follower {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.told.as_fd()
    }
}

/// Whether a program on the cgroup or above it yields to what is attached to the cgroup.
fn displaces(cgroup: &Cgroup, attach_type: AttachType) -> Result<bool> {
    let mut query = Query::new(false);
    for path in cgroup.path().ancestors() {
        // Above the mount.
        let Ok(above) = Cgroup::open(path) else { break };
        let list = query.ask(above.as_fd(), attach_type, Scope::Local);
        let list = list.map_err(|errno| Error::new(Call::Query, WHAT, errno))?;
        if !list.programs.is_empty() {
            return Ok(list.flags.contains(AttachFlags::OVERRIDE));
        }
    }
    Ok(false)
}
