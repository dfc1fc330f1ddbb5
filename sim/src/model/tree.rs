//! Models the cgroup hierarchy.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kernel::{AttachType, CgroupId};
use nix::errno::Errno;

use super::list::List;

/// A cgroup. A removed one stays here as long as something holds it.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) parent: Option<CgroupId>,
    pub(crate) path: PathBuf,
    /// The cgroup was not removed.
    pub(crate) online: bool,
    pub(crate) processes: usize,
    pub(crate) sockets: usize,
    lists: BTreeMap<AttachType, List>,
}

/// The hierarchy.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    nodes: BTreeMap<CgroupId, Node>,
    last: u64,
}

impl Tree {
    /// Creates a hierarchy with one cgroup, the root, at this path.
    pub(crate) fn new(root: &Path) -> Self {
        let mut tree = Self { nodes: BTreeMap::new(), last: 0 };
        tree.insert(None, root);
        tree
    }

    fn insert(&mut self, parent: Option<CgroupId>, path: &Path) {
        self.last += 1;
        let path = path.to_owned();
        let node =
            Node { parent, path, online: true, processes: 0, sockets: 0, lists: BTreeMap::new() };
        self.nodes.insert(CgroupId(self.last), node);
    }

    /// Returns the cgroup at a path.
    pub(crate) fn find(&self, path: &Path) -> Option<CgroupId> {
        self.nodes.iter().find(|(_, node)| node.online && node.path == path).map(|(&id, _)| id)
    }

    /// Returns a cgroup that was not removed.
    pub(crate) fn online(&self, id: CgroupId) -> nix::Result<&Node> {
        self.nodes.get(&id).filter(|node| node.online).ok_or(Errno::ENOENT)
    }

    pub(crate) fn node(&self, id: CgroupId) -> Option<&Node> {
        self.nodes.get(&id)
    }

    pub(crate) fn node_mut(&mut self, id: CgroupId) -> Option<&mut Node> {
        self.nodes.get_mut(&id)
    }

    pub(crate) fn create(&mut self, path: &Path) -> nix::Result<()> {
        if self.find(path).is_some() {
            return Err(Errno::EEXIST);
        }
        let parent = path.parent().and_then(|path| self.find(path)).ok_or(Errno::ENOENT)?;
        self.insert(Some(parent), path);
        Ok(())
    }

    /// Removes a cgroup from the hierarchy. It lives on as long as something holds it.
    pub(crate) fn remove(&mut self, path: &Path) -> nix::Result<()> {
        let id = self.find(path).ok_or(Errno::ENOENT)?;
        let has_children = self.nodes.values().any(|node| node.online && node.parent == Some(id));
        let node = self.node_mut(id).ok_or(Errno::ENOENT)?;
        if has_children || node.processes > 0 {
            return Err(Errno::EBUSY);
        }
        node.online = false;
        Ok(())
    }

    /// Deletes one removed cgroup that has no holder and returns its lists. Sockets made in a cgroup hold it, and so do
    /// cgroups below it that are held.
    pub(crate) fn take_released(&mut self) -> Option<(CgroupId, BTreeMap<AttachType, List>)> {
        let id = *self
            .nodes
            .iter()
            .find(|(id, node)| {
                !node.online
                    && node.sockets == 0
                    && !self.nodes.values().any(|other| other.parent == Some(**id))
            })?
            .0;
        self.nodes.remove(&id).map(|node| (id, node.lists))
    }

    /// Returns a cgroup and its ancestors, nearest first.
    pub(crate) fn upwards(&self, id: CgroupId) -> impl Iterator<Item = (CgroupId, &Node)> {
        let mut next = Some(id);
        std::iter::from_fn(move || {
            let id = next?;
            let node = self.nodes.get(&id)?;
            next = node.parent;
            Some((id, node))
        })
    }

    /// Returns the lists of a cgroup and its ancestors, nearest first.
    pub(crate) fn lists(
        &self,
        id: CgroupId,
        attach_type: AttachType,
    ) -> impl Iterator<Item = (CgroupId, &List)> {
        self.upwards(id).filter_map(move |(id, node)| Some((id, node.lists.get(&attach_type)?)))
    }

    /// Returns a cgroup's own list, if it ever had an entry.
    pub(crate) fn list(&self, id: CgroupId, attach_type: AttachType) -> Option<&List> {
        self.nodes.get(&id)?.lists.get(&attach_type)
    }

    pub(crate) fn list_mut(
        &mut self,
        id: CgroupId,
        attach_type: AttachType,
    ) -> nix::Result<&mut List> {
        let node = self.nodes.get_mut(&id).ok_or(Errno::ENOENT)?;
        Ok(node.lists.entry(attach_type).or_default())
    }

    /// Returns every list.
    pub(crate) fn all_lists(&self) -> impl Iterator<Item = (CgroupId, AttachType, &List)> {
        self.nodes.iter().flat_map(|(&id, node)| {
            node.lists.iter().map(move |(&attach_type, list)| (id, attach_type, list))
        })
    }
}
