//! A throttle's programs: their owner, state and counters.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use kernel::error::Call;
use kernel::{AttachType, CgroupId, Error, Map, Program, ProgramId, Result};
use libbpf_sys as sys;
use nix::errno::Errno;
use zerocopy::IntoBytes;

use crate::layout;
use crate::owner::Owner;
use crate::state::{Counters, ThrottleState};
use crate::throttle::types;

/// The only key of a queue's maps.
pub(crate) const QUEUE_KEY: u32 = 0;

/// The prefix of the constants that name a program's owner.
const METADATA: &str = "bpf_metadata_";

/// A loaded program, with the maps of its throttle if the program is ours.
#[derive(Debug)]
pub struct ThrottleProgram {
    program: Program,
    maps: OnceCell<Option<ThrottleMaps>>,
    /// The settings map, for a program that needs more than a throttle's state.
    settings: Option<Map>,
}

/// The maps of one of our programs.
#[derive(Debug)]
struct ThrottleMaps {
    state: Map,
    /// The counters; `None` for the program for TCP, which does not count.
    counters: Option<Map>,
    /// The state of a queue for downloads. With a queue, this map's state is the one that limits.
    queue: Option<Map>,
    /// The counters of packets dropped in the queue.
    drops: Option<Map>,
}

impl From<Program> for ThrottleProgram {
    fn from(program: Program) -> Self {
        Self { program, maps: OnceCell::new(), settings: None }
    }
}

impl Deref for ThrottleProgram {
    type Target = Program;

    fn deref(&self) -> &Program {
        &self.program
    }
}

impl AsFd for ThrottleProgram {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }
}

impl ThrottleProgram {
    /// Opens a program by its id; see [`Program::open`].
    ///
    /// # Errors
    /// `Vanished` when no program has this id.
    pub fn open(id: ProgramId) -> Result<Self> {
        Program::open(id).map(Self::from)
    }

    /// Creates the value for one of our programs with its open maps. Opening the maps by id would need `CAP_SYS_ADMIN`.
    pub(crate) fn with_maps(
        program: OwnedFd,
        state: OwnedFd,
        counters: Option<OwnedFd>,
        queue: Option<[OwnedFd; 2]>,
    ) -> Result<Self> {
        let program = Program::from_fd(program)?;
        let (queue, drops) = queue.map(|[queue, drops]| (queue, drops)).unzip();
        let maps = ThrottleMaps {
            state: Map::from_fd(state)?,
            counters: counters.map(Map::from_fd).transpose()?,
            queue: queue.map(Map::from_fd).transpose()?,
            drops: drops.map(Map::from_fd).transpose()?,
        };
        Ok(Self { maps: OnceCell::from(Some(maps)), program, settings: None })
    }

    pub(crate) fn with_settings(self, settings: Map) -> Self {
        Self { settings: Some(settings), ..self }
    }

    pub(crate) fn settings(&self) -> Option<&Map> {
        self.settings.as_ref()
    }

    /// Reads the throttle's state at one cgroup and attach type. For `SOCK_OPS`, returns the state of the limited
    /// direction.
    ///
    /// Returns `None` when this load was never attached to the cgroup, the cgroup is gone, or the program is not ours.
    /// Needs `CAP_BPF`. For a program that another process loaded, needs `CAP_SYS_ADMIN`, because opening maps by id
    /// does.
    ///
    /// # Errors
    /// When a map cannot be opened or read.
    pub fn state(
        &self,
        cgroup: CgroupId,
        attach_type: AttachType,
    ) -> Result<Option<ThrottleState>> {
        let Some(maps) = self.maps()? else { return Ok(None) };
        let values = maps.state.values(cgroup.0.as_bytes())?;
        let both = values.first().map(|value| layout::read_both(value));
        let state = both.map(|both| ThrottleState::of(&both, attach_type));
        match (&maps.queue, attach_type) {
            (Some(queue), AttachType::INET_INGRESS) if state.is_some() => {
                let waits = queue.values(QUEUE_KEY.as_bytes())?;
                Ok(waits.first().map(|value| ThrottleState(layout::read(value))).or(state))
            }
            _ => Ok(state),
        }
    }

    /// Writes the throttle's state at one cgroup and attach type, from the next packet on. The state lasts as long as
    /// the cgroup and the program, attached or not.
    ///
    /// Burst that packets of the other direction use during the write itself (microseconds) is not charged. Needs the
    /// same capabilities as [`ThrottleProgram::state`].
    ///
    /// # Errors
    /// `Vanished` when this load was never attached to the cgroup, or the cgroup is gone. `EINVAL` for an attach type
    /// without a state of its own.
    pub fn set_state(
        &self,
        cgroup: CgroupId,
        attach_type: AttachType,
        state: &ThrottleState,
    ) -> Result<()> {
        let fail = |errno| self.fail(Call::MapUpdate, errno);
        let maps = self.maps()?.ok_or_else(|| fail(Errno::EOPNOTSUPP))?;
        let values = maps.state.values(cgroup.0.as_bytes())?;
        let value = values.first().ok_or_else(|| fail(Errno::ENOENT))?;
        let mut both = layout::read_both(value);
        let put = state.put(&mut both, attach_type, maps.queue.is_some());
        put.ok_or_else(|| fail(Errno::EINVAL))?;
        let value = layout::write_both(value, &both);
        maps.state.update(cgroup.0.as_bytes(), &value)?;
        match (&maps.queue, attach_type) {
            (Some(queue), AttachType::INET_INGRESS) => {
                queue.update(QUEUE_KEY.as_bytes(), state.0.as_bytes())
            }
            _ => Ok(()),
        }
    }

    /// Reads the counters at one cgroup and attach type, summed over all CPUs, since the program was first attached
    /// there.
    ///
    /// Returns `None` and needs capabilities as [`ThrottleProgram::state`] does.
    ///
    /// # Errors
    /// When a map cannot be opened or read.
    pub fn counters(&self, cgroup: CgroupId, attach_type: AttachType) -> Result<Option<Counters>> {
        let Some(map) = self.maps()?.and_then(|maps| maps.counters.as_ref()) else {
            return Ok(None);
        };
        let key = storage_key(cgroup, attach_type);
        let mut counters = map.values(key.as_bytes())?;
        if counters.is_empty() {
            return Ok(None);
        }
        if let (Some(drops), AttachType::INET_INGRESS) = (self.drops()?, attach_type) {
            counters.extend(drops.values(QUEUE_KEY.as_bytes())?);
        }
        let counters = counters.iter().map(|value| layout::read::<types::throttle_counters>(value));
        Ok(Some(counters.map(Counters::from).sum()))
    }

    fn drops(&self) -> Result<Option<&Map>> {
        Ok(self.maps()?.and_then(|maps| maps.drops.as_ref()))
    }

    /// Returns the maps, if the program is ours.
    fn maps(&self) -> Result<Option<&ThrottleMaps>> {
        if self.maps.get().is_none() {
            // No other thread can have set it first, because a OnceCell is not Sync.
            let _ = self.maps.set(self.find_maps()?);
        }
        Ok(self.maps.get().and_then(Option::as_ref))
    }

    fn find_maps(&self) -> Result<Option<ThrottleMaps>> {
        let (mut state, mut counters, mut drops) = (None, None, None);
        for id in &self.info().map_ids {
            let map = Map::open(*id)?;
            match (map.name(), map.kind()) {
                ("chad_state", sys::BPF_MAP_TYPE_CGROUP_STORAGE)
                    if layout::are_states(map.value_size()) =>
                {
                    state = Some(map);
                }
                ("chad_counters", sys::BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE)
                    if layout::are_counters(map.value_size()) =>
                {
                    counters = Some(map);
                }
                ("chad_drops", sys::BPF_MAP_TYPE_ARRAY)
                    if layout::are_counters(map.value_size()) =>
                {
                    drops = Some(map);
                }
                _ => {}
            }
        }
        Ok(state.map(|state| ThrottleMaps { state, counters, queue: None, drops }))
    }

    fn fail(&self, call: Call, errno: Errno) -> Error {
        let info = self.info();
        Error::new(call, format!("program {} ({})", info.id, info.name), errno)
    }
}

/// Returns the owner that a program's `bpf_metadata_*` constants name. `None` when a constant is missing or malformed.
///
/// # Errors
/// When the program's types or its map cannot be read. Needs `CAP_SYS_ADMIN`.
pub fn owner_of(program: &Program) -> Result<Option<Owner>> {
    Ok(program.variables(METADATA)?.and_then(|variables| parse_owner(&variables)))
}

pub(crate) fn parse_owner(variables: &BTreeMap<String, Vec<u8>>) -> Option<Owner> {
    let number = |name: &str| -> Option<u64> {
        let bytes = variables.get(name)?;
        match bytes.len() {
            4 => Some(u32::from_ne_bytes(bytes.as_slice().try_into().ok()?).into()),
            8 => Some(u64::from_ne_bytes(bytes.as_slice().try_into().ok()?)),
            _ => None,
        }
    };
    let text = |name: &str| -> Option<String> {
        let bytes = variables.get(name)?.split(|&byte| byte == 0).next()?;
        String::from_utf8(bytes.to_vec()).ok()
    };
    Some(Owner {
        pid: u32::try_from(number("owner_pid")?).ok().filter(|&pid| pid != 0)?,
        start_time: number("owner_start")?,
        pid_namespace: u32::try_from(number("owner_pidns")?).ok()?,
        boot_id: text("owner_boot")?,
        version: text("version")?,
    })
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
        assert_eq!((key.cgroup_inode_id, key.attach_type), (9_310, sys::BPF_CGROUP_INET_EGRESS));
    }

    fn variables() -> BTreeMap<String, Vec<u8>> {
        [
            ("owner_pid", 42_u32.to_ne_bytes().to_vec()),
            ("owner_start", 4_242_u64.to_ne_bytes().to_vec()),
            ("owner_pidns", 7_u32.to_ne_bytes().to_vec()),
            ("owner_boot", b"a-b\0\0\0".to_vec()),
            ("version", b"1.2.3\0".to_vec()),
        ]
        .map(|(name, bytes)| (name.to_owned(), bytes))
        .into()
    }

    #[test]
    fn an_owner_is_read_from_its_variables() {
        let owner = Owner {
            pid: 42,
            start_time: 4_242,
            pid_namespace: 7,
            boot_id: "a-b".to_owned(),
            version: "1.2.3".to_owned(),
        };
        assert_eq!(parse_owner(&variables()), Some(owner));
    }

    #[test]
    fn half_an_owner_is_none() {
        for name in variables().into_keys() {
            let mut some = variables();
            some.remove(&name);
            assert_eq!(parse_owner(&some), None, "without {name}");
        }
        let mut nobody = variables();
        nobody.insert("owner_pid".to_owned(), vec![0; 4]);
        assert_eq!(parse_owner(&nobody), None);
    }
}
