//! Models links and their pins.

use std::path::{Path, PathBuf};

use kernel::link::LinkInfo;
use kernel::list::AttachFlags;
use kernel::{AttachType, CgroupId, LinkId, ProgramId};
use nix::errno::Errno;

use super::{Descriptor, Kernel, LinkObject, Object, Pid};
use crate::model::list::Hold;

impl Kernel {
    /// Models `BPF_LINK_CREATE`.
    pub(crate) fn link_create(
        &mut self,
        process: Pid,
        program: ProgramId,
        cgroup: CgroupId,
        attach_type: AttachType,
    ) -> nix::Result<(LinkId, Descriptor)> {
        self.check_type(program, attach_type)?;
        self.tree.online(cgroup)?;
        let id = LinkId(self.number());
        self.join(Hold::Link(id), cgroup, attach_type, AttachFlags::MULTI, None, None)?;
        self.ensure_storage(program, cgroup, attach_type);
        self.links.insert(id, LinkObject { program, attach_type, cgroup: Some(cgroup) });
        Ok((id, self.open(process, Object::Link(id))))
    }

    /// Models `BPF_LINK_GET_FD_BY_ID`.
    pub(crate) fn open_link(&mut self, process: Pid, id: LinkId) -> nix::Result<Descriptor> {
        self.links.get(&id).ok_or(Errno::ENOENT)?;
        Ok(self.open(process, Object::Link(id)))
    }

    pub(crate) fn link_info(&self, id: LinkId) -> nix::Result<LinkInfo> {
        let link = self.links.get(&id).ok_or(Errno::EBADF)?;
        Ok(LinkInfo {
            id,
            program_id: link.program,
            cgroup_id: link.cgroup,
            attach_type: Some(link.attach_type),
        })
    }

    /// Models `BPF_LINK_UPDATE`.
    pub(crate) fn link_update(
        &mut self,
        id: LinkId,
        new: ProgramId,
        old: Option<ProgramId>,
    ) -> nix::Result<()> {
        let link = self.links.get(&id).ok_or(Errno::EBADF)?;
        let cgroup = link.cgroup.ok_or(Errno::ENOLINK)?;
        if old.is_some_and(|old| old != link.program) {
            return Err(Errno::EPERM);
        }
        let attach_type = link.attach_type;
        let program_type = self.programs.get(&new).ok_or(Errno::EBADF)?.attach_type.program_type();
        if program_type != attach_type.program_type() {
            return Err(Errno::EINVAL);
        }
        if self.version.checks_attach_type_on_update() {
            self.check_type(new, attach_type)?;
        }
        let storage = |id| self.programs.get(&id).and_then(|program| program.load);
        if self.version.checks_storage_on_update() && storage(new) != storage(link.program) {
            return Err(Errno::EINVAL);
        }
        self.links.entry(id).and_modify(|link| link.program = new);
        self.tree.list_mut(cgroup, attach_type)?.revision += 1;
        self.reap();
        Ok(())
    }

    /// Models `BPF_LINK_DETACH`. It also succeeds on a defunct link.
    pub(crate) fn link_detach(&mut self, id: LinkId) -> nix::Result<()> {
        self.links.get(&id).ok_or(Errno::EBADF)?;
        self.leave_list(id);
        Ok(())
    }

    /// Returns every link.
    pub(crate) fn links(&self) -> impl Iterator<Item = LinkId> {
        self.links.keys().copied()
    }

    /// Models `BPF_OBJ_PIN`, and creates the folder for the pin.
    pub(crate) fn pin(&mut self, id: LinkId, path: &Path) -> nix::Result<()> {
        // `bpf_lookup()` reserves names with dots for the kernel's own files.
        if path.file_name().is_some_and(|name| name.as_encoded_bytes().contains(&b'.')) {
            return Err(Errno::EPERM);
        }
        self.folders.extend(path.parent().map(Path::to_owned));
        if self.pins.contains_key(path) {
            return Err(Errno::EEXIST);
        }
        self.pins.insert(path.to_owned(), id);
        Ok(())
    }

    pub(crate) fn open_pinned(
        &mut self,
        process: Pid,
        path: &Path,
    ) -> nix::Result<(LinkId, Descriptor)> {
        let id = *self.pins.get(path).ok_or(Errno::ENOENT)?;
        Ok((id, self.open(process, Object::Link(id))))
    }

    pub(crate) fn unpin(&mut self, path: &Path) {
        self.pins.remove(path);
        self.remove_empty_folder_of(path);
        self.reap();
    }

    pub(crate) fn remove_empty_folder_of(&mut self, pin: &Path) {
        if let Some(folder) = pin.parent()
            && !self.pins.keys().any(|pin| pin.parent() == Some(folder))
        {
            self.folders.remove(folder);
        }
    }

    pub(crate) fn pin_exists(&self, path: &Path) -> bool {
        self.pins.contains_key(path) || self.folders.contains(path)
    }

    /// Returns every pin and every folder that was made for a pin.
    pub(crate) fn pins(&self) -> impl Iterator<Item = &Path> {
        self.pins.keys().chain(&self.folders).map(PathBuf::as_path)
    }
}
