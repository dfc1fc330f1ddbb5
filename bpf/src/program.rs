//! Loaded programs: what the kernel says of them, and what a throttle's maps say.

use std::cell::OnceCell;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use libbpf_sys as kernel;
use nix::errno::Errno;

use crate::attach_type::AttachType;
use crate::error::{Call, Error, Result};
use crate::ids::{CgroupId, MapId, ProgramId};
use crate::kernel::ProgramIdentity;
use crate::layout;
use crate::serde_path::to_hex;
use crate::state::{Counters, ThrottleState};
use crate::sys::{self, Map, ObjectKind, bytes_of};
use crate::throttle::types;

/// The only key of the maps of a queue.
pub(crate) const QUEUE_KEY: u32 = 0;

/// The kernel keeps this many characters of a name.
pub const NAME_LEN: usize = 15;

/// What the kernel says of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramInfo {
    /// Its id.
    pub id: ProgramId,
    /// Its name, at most [`NAME_LEN`] characters of what its author called it.
    pub name: String,
    /// Its tag: 16 hexadecimal digits that depend on its instructions.
    pub tag: String,
    /// Its type, as bpftool names it.
    pub kind: String,
    /// When it was loaded, in nanoseconds since boot.
    pub loaded_at_ns: u64,
    /// The user who loaded it.
    pub uid: u32,
    /// Its maps.
    pub map_ids: Vec<MapId>,
    /// Whether it came with type information, without which it has no readable metadata.
    pub has_btf: bool,
}

impl ProgramInfo {
    /// What tells it from every other program of this boot.
    pub fn identity(&self) -> ProgramIdentity {
        ProgramIdentity { id: self.id, tag: self.tag.clone(), loaded_at_ns: self.loaded_at_ns }
    }
}

/// A loaded program, held by this process.
#[derive(Debug)]
pub struct Program {
    fd: OwnedFd,
    info: ProgramInfo,
    maps: OnceCell<Option<ThrottleMaps>>,
    /// What its loader tells it by, of one that goes by more than a throttle's state.
    settings: Option<Map>,
}

/// The maps of a program of ours.
#[derive(Debug)]
struct ThrottleMaps {
    state: Map,
    /// The packet programs count, that for TCP does not.
    counters: Option<Map>,
    /// Where downloads wait in a queue, their state is here as well, and this is what counts.
    queue: Option<Map>,
    /// And here what was dropped there.
    drops: Option<Map>,
}

impl Program {
    /// Opens a program by its id. Needs `CAP_SYS_ADMIN`. While it is open, the id is its own.
    ///
    /// # Errors
    /// `Vanished` when there is none with that id.
    pub fn open(id: ProgramId) -> Result<Self> {
        let fd = sys::fd_by_id(ObjectKind::Program, id.0)
            .map_err(|errno| Error::new(Call::FdById, format!("program {id}"), errno))?;
        Self::from_fd(fd)
    }

    pub(crate) fn from_fd(fd: OwnedFd) -> Result<Self> {
        let raw = sys::program_info(fd.as_fd())
            .map_err(|errno| Error::new(Call::Info, "a program", errno))?;
        let info = ProgramInfo {
            id: ProgramId(raw.id),
            name: raw.name,
            tag: to_hex(&raw.tag),
            kind: sys::program_type_name(raw.kind),
            loaded_at_ns: raw.load_time,
            uid: raw.uid,
            map_ids: raw.map_ids.into_iter().map(MapId).collect(),
            has_btf: raw.btf_id != 0,
        };
        Ok(Self { fd, info, maps: OnceCell::new(), settings: None })
    }

    /// A program of ours with its maps at hand, which spares looking them up by id (and the
    /// `CAP_SYS_ADMIN` that this takes).
    pub(crate) fn with_maps(
        program: OwnedFd,
        state: OwnedFd,
        counters: Option<OwnedFd>,
        queue: Option<[OwnedFd; 2]>,
    ) -> Result<Self> {
        let program = Self::from_fd(program)?;
        let open = |fd| Map::from_fd(fd).map_err(|errno| program.fail(Call::Info, errno));
        let (queue, drops) = queue.map(|[queue, drops]| (queue, drops)).unzip();
        let maps = ThrottleMaps {
            state: open(state)?,
            counters: counters.map(open).transpose()?,
            queue: queue.map(open).transpose()?,
            drops: drops.map(open).transpose()?,
        };
        Ok(Self { maps: OnceCell::from(Some(maps)), ..program })
    }

    pub(crate) fn with_settings(self, settings: Map) -> Self {
        Self { settings: Some(settings), ..self }
    }

    pub(crate) fn settings(&self) -> Option<&Map> {
        self.settings.as_ref()
    }

    /// Loads the smallest program of a type, `return 1`, under a name of one's choice; it does nothing
    /// wherever it is attached. For trying out and testing what the kernel does. It goes with its last
    /// holder. Needs `CAP_BPF` and `CAP_NET_ADMIN`.
    ///
    /// # Errors
    /// `EINVAL` when the name has other characters than letters, digits, `_` and `.`.
    pub fn load_pass(name: &str, attach_type: AttachType) -> Result<Self> {
        Self::load_return(1, name, attach_type, None)
    }

    /// The same with `return 0`: it refuses whatever it is asked about, a packet say. For testing what becomes of
    /// other people's firewalls.
    ///
    /// # Errors
    /// As [`Program::load_pass`].
    pub fn load_refuse(name: &str, attach_type: AttachType) -> Result<Self> {
        Self::load_return(0, name, attach_type, None)
    }

    /// The same for [`AttachType::LSM`], on one of the hooks of security modules, such as `socket_bind`. Needs
    /// type information (`CONFIG_DEBUG_INFO_BTF`), `CONFIG_BPF_LSM`, and `CAP_PERFMON`.
    ///
    /// # Errors
    /// `ESRCH` or `ENOENT` when there is no such hook.
    pub fn load_pass_on_hook(name: &str, hook: &str) -> Result<Self> {
        Self::load_return(1, name, AttachType::LSM, Some(hook))
    }

    fn load_return(
        value: i32,
        name: &str,
        attach_type: AttachType,
        hook: Option<&str>,
    ) -> Result<Self> {
        let fail = |errno| Error::new(Call::Load, format!("{name} ({attach_type})"), errno);
        let cut: String = name.chars().take(NAME_LEN).collect();
        let refuse = |errno, why: &str| {
            Error::found(Call::Load, format!("{name} ({attach_type})"), errno).with_detail(why)
        };
        let c_string = |text: &str| {
            CString::new(text).map_err(|_| refuse(Errno::EINVAL, "a name has no NUL in it"))
        };
        let (c_name, c_hook) = (c_string(&cut)?, hook.map(c_string).transpose()?);
        let kind = match attach_type.program_type() {
            "cgroup_skb" => kernel::BPF_PROG_TYPE_CGROUP_SKB,
            "cgroup_sock" => kernel::BPF_PROG_TYPE_CGROUP_SOCK,
            "sock_ops" => kernel::BPF_PROG_TYPE_SOCK_OPS,
            "cgroup_device" => kernel::BPF_PROG_TYPE_CGROUP_DEVICE,
            "cgroup_sock_addr" => kernel::BPF_PROG_TYPE_CGROUP_SOCK_ADDR,
            "cgroup_sysctl" => kernel::BPF_PROG_TYPE_CGROUP_SYSCTL,
            "cgroup_sockopt" => kernel::BPF_PROG_TYPE_CGROUP_SOCKOPT,
            "lsm" if hook.is_some() => kernel::BPF_PROG_TYPE_LSM,
            _ => return Err(refuse(Errno::EOPNOTSUPP, "no such program is made here")),
        };
        let hook = c_hook.as_deref();
        let fd =
            sys::load_return(value, kind, attach_type.kernel(), &c_name, hook).map_err(fail)?;
        Self::from_fd(fd)
    }

    /// What the kernel said of it when it was opened.
    pub fn info(&self) -> &ProgramInfo {
        &self.info
    }

    /// What it takes of locked memory in bytes, as bpftool's `bytes_memlock`: the program alone, not its
    /// maps.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn memlock_bytes(&self) -> Result<u64> {
        let path = format!("/proc/self/fdinfo/{}", self.fd.as_raw_fd());
        let text = std::fs::read_to_string(&path)
            .map_err(|error| Error::from_io(Call::ReadProc, &path, &error))?;
        text.lines()
            .find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok())
            .ok_or_else(|| Error::found(Call::ReadProc, path, Errno::ENODATA))
    }

    /// The throttle's state at one place; for TCP's place that of whichever direction is limited. `None` when
    /// no program of this load was ever attached to the cgroup, or it is gone, or the program is not one of
    /// ours. Needs `CAP_SYS_ADMIN` for a program that this process has not loaded itself (its maps are opened
    /// by id), `CAP_BPF` otherwise.
    ///
    /// # Errors
    /// When a map cannot be opened or read.
    pub fn state(
        &self,
        cgroup: CgroupId,
        attach_type: AttachType,
    ) -> Result<Option<ThrottleState>> {
        let Some(maps) = self.maps()? else { return Ok(None) };
        let values = self.lookup(&maps.state, bytes_of(&cgroup.0))?;
        let both = values.first().map(|value| layout::read_both(value));
        let state = both.map(|both| ThrottleState::of(&both, attach_type));
        match (&maps.queue, attach_type) {
            (Some(queue), AttachType::INET_INGRESS) if state.is_some() => {
                let waits = self.lookup(queue, bytes_of(&QUEUE_KEY))?;
                Ok(waits.first().map(|value| ThrottleState(layout::read(value))).or(state))
            }
            _ => Ok(state),
        }
    }

    /// Writes the throttle's state at one place; takes effect with the next packet, and stays for as long as
    /// the cgroup and the program live, attached or not. (What the other direction's packets use up of their
    /// burst during the write itself, microseconds, is not charged.) Rights as for [`Program::state`].
    ///
    /// # Errors
    /// `Vanished` when no program of this load was ever attached to the cgroup, or it is gone; `EINVAL` for
    /// a place that has no state of its own.
    pub fn set_state(
        &self,
        cgroup: CgroupId,
        attach_type: AttachType,
        state: &ThrottleState,
    ) -> Result<()> {
        let fail = |errno| self.fail(Call::MapUpdate, errno);
        let maps = self.maps()?.ok_or_else(|| fail(Errno::EOPNOTSUPP))?;
        let values = self.lookup(&maps.state, bytes_of(&cgroup.0))?;
        let value = values.first().ok_or_else(|| fail(Errno::ENOENT))?;
        let mut both = layout::read_both(value);
        let put = state.put(&mut both, attach_type, maps.queue.is_some());
        put.ok_or_else(|| fail(Errno::EINVAL))?;
        let value = layout::write_both(value, &both);
        maps.state.update(bytes_of(&cgroup.0), &value).map_err(fail)?;
        match (&maps.queue, attach_type) {
            (Some(queue), AttachType::INET_INGRESS) => {
                queue.update(bytes_of(&QUEUE_KEY), bytes_of(&state.0)).map_err(fail)
            }
            _ => Ok(()),
        }
    }

    /// What the throttle did at one place, summed over all CPUs, since the program was first attached there.
    /// `None` and rights as for [`Program::state`].
    ///
    /// # Errors
    /// When a map cannot be opened or read.
    pub fn counters(&self, cgroup: CgroupId, attach_type: AttachType) -> Result<Option<Counters>> {
        let Some(map) = self.maps()?.and_then(|maps| maps.counters.as_ref()) else {
            return Ok(None);
        };
        let key = storage_key(cgroup, attach_type);
        let mut counters = self.lookup(map, bytes_of(&key))?;
        if counters.is_empty() {
            return Ok(None);
        }
        if let (Some(drops), AttachType::INET_INGRESS) = (self.drops()?, attach_type) {
            counters.extend(self.lookup(drops, bytes_of(&QUEUE_KEY))?);
        }
        let counters = counters.iter().map(|value| layout::read::<types::throttle_counters>(value));
        Ok(Some(counters.map(Counters::from).sum()))
    }

    fn drops(&self) -> Result<Option<&Map>> {
        Ok(self.maps()?.and_then(|maps| maps.drops.as_ref()))
    }

    /// Every value under a key: one, or one for each CPU; none when there is nothing.
    fn lookup(&self, map: &Map, key: &[u8]) -> Result<Vec<Vec<u8>>> {
        let bytes =
            map.lookup(key).map_err(|errno| self.fail(Call::MapLookup, errno))?.unwrap_or_default();
        Ok(bytes.chunks_exact(map.value_size.max(1)).map(<[u8]>::to_vec).collect())
    }

    /// The maps, if they are those of a program of ours.
    fn maps(&self) -> Result<Option<&ThrottleMaps>> {
        if self.maps.get().is_none() {
            // Another thread cannot have come first: a OnceCell is not Sync.
            let _ = self.maps.set(self.find_maps()?);
        }
        Ok(self.maps.get().and_then(Option::as_ref))
    }

    fn find_maps(&self) -> Result<Option<ThrottleMaps>> {
        let (mut state, mut counters, mut drops) = (None, None, None);
        for id in &self.info.map_ids {
            let map = open_map(*id)?;
            match (map.name.as_str(), map.kind) {
                ("chad_state", kernel::BPF_MAP_TYPE_CGROUP_STORAGE)
                    if layout::are_states(map.value_size) =>
                {
                    state = Some(map);
                }
                ("chad_counters", kernel::BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE)
                    if layout::are_counters(map.value_size) =>
                {
                    counters = Some(map);
                }
                ("chad_drops", kernel::BPF_MAP_TYPE_ARRAY)
                    if layout::are_counters(map.value_size) =>
                {
                    drops = Some(map);
                }
                _ => {}
            }
        }
        Ok(state.map(|state| ThrottleMaps { state, counters, queue: None, drops }))
    }

    fn fail(&self, call: Call, errno: Errno) -> Error {
        Error::new(call, format!("program {} ({})", self.info.id, self.info.name), errno)
    }
}

impl AsFd for Program {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Opens a map by its id.
pub(crate) fn open_map(id: MapId) -> Result<Map> {
    let fail = |call| move |errno| Error::new(call, format!("map {id}"), errno);
    let fd = sys::fd_by_id(ObjectKind::Map, id.0).map_err(fail(Call::FdById))?;
    Map::from_fd(fd).map_err(fail(Call::Info))
}

fn storage_key(cgroup: CgroupId, attach_type: AttachType) -> types::bpf_cgroup_storage_key {
    types::bpf_cgroup_storage_key {
        cgroup_inode_id: cgroup.0,
        attach_type: attach_type.kernel(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_throttles_storage_lies_under_its_cgroup_and_its_attach_type() {
        let key = storage_key(CgroupId(9_310), AttachType::INET_EGRESS);
        assert_eq!((key.cgroup_inode_id, key.attach_type), (9_310, kernel::BPF_CGROUP_INET_EGRESS));
    }
}
