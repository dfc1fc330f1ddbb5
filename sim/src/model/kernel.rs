//! Models a kernel: its objects, their holders, and its system calls.

mod attaching;
pub(crate) mod devices;
mod links;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use bpf::state::{Counters, ThrottleState};
use devices::{Device, Ifindex};
use kernel::{AttachType, CgroupId, LinkId, ProgramId};
use nix::errno::Errno;

use super::Version;
use super::list::{self, Hold};
use super::tree::Tree;

/// A process id. 0 is an observer outside the model.
pub(crate) type Pid = u32;

/// A model kernel.
#[derive(Debug, Clone)]
pub struct Kernel {
    version: Version,
    clock: u64,
    pub(crate) tree: Tree,
    programs: BTreeMap<ProgramId, ProgramObject>,
    links: BTreeMap<LinkId, LinkObject>,
    pins: BTreeMap<PathBuf, LinkId>,
    folders: BTreeSet<PathBuf>,
    descriptors: BTreeMap<Descriptor, (Pid, Object)>,
    /// The attach types of a cgroup share these states.
    states: BTreeMap<(Load, CgroupId), States>,
    counters: BTreeMap<(Load, CgroupId, AttachType), Counters>,
    processes: BTreeMap<Pid, Process>,
    devices: BTreeMap<Ifindex, Device>,
    last_number: u32,
}

/// The number of an open file, unique across all processes.
pub(crate) type Descriptor = u32;
type Load = u32;

/// What an open file refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Object {
    Cgroup,
    Program(ProgramId),
    Link(LinkId),
}

/// A loaded program.
#[derive(Debug, Clone)]
pub(crate) struct ProgramObject {
    pub(crate) name: String,
    pub(crate) attach_type: AttachType,
    /// The load that the program belongs to. Programs of one load share their maps. `None` if the program has no state.
    load: Option<Load>,
    pub(crate) loaded_at: u64,
}

#[derive(Debug, Clone)]
struct LinkObject {
    program: ProgramId,
    attach_type: AttachType,
    /// The cgroup, or `None` for a defunct link.
    cgroup: Option<CgroupId>,
}

/// The states of one load on a cgroup.
#[derive(Debug, Clone, Copy, Default)]
struct States {
    download: ThrottleState,
    upload: ThrottleState,
}

/// A process.
#[derive(Debug, Clone)]
struct Process {
    /// The cgroup of the process, or `None` if that does not matter.
    cgroup: Option<CgroupId>,
}

impl Kernel {
    /// Boots a kernel with one cgroup at `root`.
    pub fn boot(version: Version, root: &Path) -> Self {
        Self {
            version,
            clock: 1_000_000_000,
            tree: Tree::new(root),
            programs: BTreeMap::new(),
            links: BTreeMap::new(),
            pins: BTreeMap::new(),
            folders: BTreeSet::new(),
            descriptors: BTreeMap::new(),
            states: BTreeMap::new(),
            counters: BTreeMap::new(),
            processes: BTreeMap::new(),
            devices: BTreeMap::new(),
            last_number: 0,
        }
    }

    /// Returns the kernel version.
    pub fn version(&self) -> Version {
        self.version
    }

    pub(crate) fn number(&mut self) -> u32 {
        self.last_number += 1;
        self.last_number
    }

    pub(crate) fn now(&mut self) -> u64 {
        self.clock += 1_000;
        self.clock
    }

    // Processes and their files.

    /// Starts a process.
    ///
    /// # Errors
    /// `ENOENT` if its cgroup does not exist.
    pub(crate) fn spawn(&mut self, cgroup: Option<&Path>) -> nix::Result<Pid> {
        let cgroup = match cgroup {
            Some(path) => Some(self.tree.find(path).ok_or(Errno::ENOENT)?),
            None => None,
        };
        if let Some(node) = cgroup.and_then(|id| self.tree.node_mut(id)) {
            node.processes += 1;
        }
        let pid = self.number();
        self.processes.insert(pid, Process { cgroup });
        Ok(pid)
    }

    pub(crate) fn is_alive(&self, pid: Pid) -> bool {
        self.processes.contains_key(&pid)
    }

    /// Ends a process, for whatever reason, and closes its files.
    pub(crate) fn end(&mut self, pid: Pid) {
        if let Some(node) =
            self.processes.remove(&pid).and_then(|it| self.tree.node_mut(it.cgroup?))
        {
            node.processes -= 1;
        }
        self.descriptors.retain(|_, (holder, _)| *holder != pid);
        self.reap();
    }

    pub(crate) fn move_to(&mut self, pid: Pid, cgroup: &Path) -> nix::Result<()> {
        let new = self.tree.find(cgroup).ok_or(Errno::ENOENT)?;
        let process = self.processes.get_mut(&pid).ok_or(Errno::ESRCH)?;
        let old = process.cgroup.replace(new);
        if let Some(node) = old.and_then(|id| self.tree.node_mut(id)) {
            node.processes -= 1;
        }
        if let Some(node) = self.tree.node_mut(new) {
            node.processes += 1;
        }
        Ok(())
    }

    /// Returns the cgroup of a process.
    pub(crate) fn cgroup_of(&self, pid: Pid) -> Option<PathBuf> {
        Some(self.tree.node(self.processes.get(&pid)?.cgroup?)?.path.clone())
    }

    /// Returns the path of a cgroup, unless it was removed.
    pub(crate) fn cgroup_path(&self, id: CgroupId) -> Option<PathBuf> {
        Some(self.tree.online(id).ok()?.path.clone())
    }

    fn open(&mut self, process: Pid, object: Object) -> Descriptor {
        let descriptor = self.number();
        self.descriptors.insert(descriptor, (process, object));
        descriptor
    }

    pub(crate) fn close(&mut self, descriptor: Descriptor) {
        match self.descriptors.remove(&descriptor) {
            // An open cgroup file keeps no removed cgroup alive.
            None | Some((_, Object::Cgroup)) => {}
            Some(_) => self.reap(),
        }
    }

    /// Returns the number of files that a process has open.
    pub(crate) fn open_files(&self, pid: Pid) -> usize {
        self.descriptors.values().filter(|(holder, _)| *holder == pid).count()
    }

    /// Releases every object that has no holder any more.
    fn reap(&mut self) {
        while let Some((cgroup, lists)) = self.tree.take_released() {
            for entry in lists.values().flat_map(|list| &list.entries) {
                if let Hold::Link(id) = entry.hold {
                    self.links.entry(id).and_modify(|link| link.cgroup = None);
                }
            }
            self.states.retain(|(_, id), _| *id != cgroup);
            self.counters.retain(|(_, id, _), _| *id != cgroup);
        }
        let held = |object: Object| self.descriptors.values().any(|(_, held)| *held == object);
        let released: Vec<LinkId> = self
            .links
            .keys()
            .copied()
            .filter(|&id| !held(Object::Link(id)) && !self.pins.values().any(|pin| *pin == id))
            .collect();
        for id in released {
            self.leave_list(id);
            self.links.remove(&id);
        }
        let mut needed: BTreeSet<ProgramId> = self.links.values().map(|it| it.program).collect();
        needed.extend(self.descriptors.values().filter_map(|(_, object)| match object {
            Object::Program(id) => Some(*id),
            _ => None,
        }));
        needed.extend(self.tree.all_lists().flat_map(|(_, _, list)| &list.entries).filter_map(
            |entry| match entry.hold {
                Hold::Program(id) => Some(id),
                Hold::Link(_) => None,
            },
        ));
        self.programs.retain(|id, _| needed.contains(id));
        let loads: BTreeSet<_> = self.programs.values().filter_map(|it| it.load).collect();
        self.states.retain(|(load, _), _| loads.contains(load));
        self.counters.retain(|(load, _, _), _| loads.contains(load));
    }

    fn leave_list(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let Some(cgroup) = link.cgroup.take() else { return };
        let attach_type = link.attach_type;
        if let Ok(list) = self.tree.list_mut(cgroup, attach_type) {
            // The entry exists, because a link only knows its cgroup while the list has the entry.
            let _ = list.detach(Some(Hold::Link(id)));
        }
    }

    // Cgroups and sockets.

    pub(crate) fn remove_cgroup(&mut self, path: &Path) -> nix::Result<()> {
        self.tree.remove(path)?;
        self.reap();
        Ok(())
    }

    /// Opens a socket. It belongs to the cgroup for good.
    pub(crate) fn open_socket(&mut self, cgroup: &Path) -> nix::Result<CgroupId> {
        let id = self.tree.find(cgroup).ok_or(Errno::ENOENT)?;
        let node = self.tree.node_mut(id).ok_or(Errno::ENOENT)?;
        node.sockets += 1;
        Ok(id)
    }

    pub(crate) fn close_socket(&mut self, cgroup: CgroupId) {
        if let Some(node) = self.tree.node_mut(cgroup) {
            node.sockets -= 1;
        }
        self.reap();
    }

    /// Passes a packet to or from a socket of the cgroup.
    pub(crate) fn packet(&mut self, cgroup: CgroupId, attach_type: AttachType) {
        for (whose, entry) in list::effective(self.tree.lists(cgroup, attach_type)) {
            let Some(load) =
                self.program_of(entry.hold).and_then(|id| self.programs.get(&id)?.load)
            else {
                continue;
            };
            let armed = self.state_at(load, whose, attach_type).is_some_and(|it| it.is_armed());
            let counters = self.counters.entry((load, whose, attach_type)).or_default();
            // The model never sends enough to exceed a limit.
            let count = if armed { &mut counters.passed } else { &mut counters.exempt };
            count.packets += 1;
            count.bytes += 100;
        }
    }

    // Programs.

    /// Loads programs that share their maps, or programs without maps.
    pub(crate) fn load(
        &mut self,
        process: Pid,
        programs: &[(&str, AttachType)],
        with_state: bool,
    ) -> Vec<(ProgramId, Descriptor)> {
        let load = with_state.then(|| self.number());
        let load_one = |&(name, attach_type): &(&str, AttachType)| {
            let id = ProgramId(self.number());
            let name = name.chars().take(15).collect();
            let loaded_at = self.now();
            self.programs.insert(id, ProgramObject { name, attach_type, load, loaded_at });
            (id, self.open(process, Object::Program(id)))
        };
        programs.iter().map(load_one).collect()
    }

    pub(crate) fn open_program(&mut self, process: Pid, id: ProgramId) -> nix::Result<Descriptor> {
        self.programs.get(&id).ok_or(Errno::ENOENT)?;
        Ok(self.open(process, Object::Program(id)))
    }

    pub(crate) fn program(&self, id: ProgramId) -> Option<&ProgramObject> {
        self.programs.get(&id)
    }

    /// Returns every loaded program.
    pub fn programs(&self) -> impl Iterator<Item = (ProgramId, &str)> {
        self.programs.iter().map(|(&id, program)| (id, program.name.as_str()))
    }

    /// Returns the loads that have maps. A load stands for its own maps.
    pub(crate) fn loads(&self) -> BTreeSet<Load> {
        self.programs.values().filter_map(|program| program.load).collect()
    }

    fn program_of(&self, hold: Hold) -> Option<ProgramId> {
        match hold {
            Hold::Program(id) => Some(id),
            Hold::Link(id) => self.links.get(&id).map(|link| link.program),
        }
    }

    /// Checks whether the kernel accepts a program for an attach type at all. A `cgroup_skb` program that returns only
    /// 0 and 1 fits either direction. Any other program fits only the direction it was loaded for.
    fn check_type(&self, id: ProgramId, attach_type: AttachType) -> nix::Result<()> {
        let program = self.programs.get(&id).ok_or(Errno::EBADF)?;
        let same_type = program.attach_type.program_type() == attach_type.program_type();
        let either_way = program.attach_type.program_type() == "cgroup_skb"
            && !(program.load.is_some() && program.attach_type == AttachType::INET_EGRESS);
        if same_type && (either_way || program.attach_type == attach_type) {
            Ok(())
        } else {
            Err(Errno::EINVAL)
        }
    }

    // State.

    fn load_of(&self, program: ProgramId) -> Option<Load> {
        self.programs.get(&program)?.load
    }

    fn state_at(&self, load: Load, cgroup: CgroupId, at: AttachType) -> Option<ThrottleState> {
        let states = self.states.get(&(load, cgroup))?;
        Some(match at {
            AttachType::INET_INGRESS => states.download,
            AttachType::SOCK_OPS if !states.upload.is_armed() => states.download,
            _ => states.upload,
        })
    }

    pub(crate) fn state(
        &self,
        program: ProgramId,
        cgroup: CgroupId,
        attach_type: AttachType,
    ) -> Option<ThrottleState> {
        self.state_at(self.load_of(program)?, cgroup, attach_type)
    }

    pub(crate) fn counters(
        &self,
        program: ProgramId,
        cgroup: CgroupId,
        attach_type: AttachType,
    ) -> Option<Counters> {
        self.counters.get(&(self.load_of(program)?, cgroup, attach_type)).copied()
    }

    pub(crate) fn set_state(
        &mut self,
        program: ProgramId,
        cgroup: CgroupId,
        attach_type: AttachType,
        state: ThrottleState,
    ) -> nix::Result<()> {
        let load = self.load_of(program).ok_or(Errno::EOPNOTSUPP)?;
        let states = self.states.get_mut(&(load, cgroup)).ok_or(Errno::ENOENT)?;
        match attach_type {
            AttachType::INET_INGRESS => states.download = state,
            AttachType::INET_EGRESS => states.upload = state,
            _ => return Err(Errno::EINVAL),
        }
        Ok(())
    }

    pub(crate) fn open_cgroup(
        &mut self,
        process: Pid,
        path: &Path,
    ) -> nix::Result<(CgroupId, Descriptor)> {
        let id = self.tree.find(path).ok_or(Errno::ENOENT)?;
        Ok((id, self.open(process, Object::Cgroup)))
    }
}
