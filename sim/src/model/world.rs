//! The model as a [`World`].

use std::path::Path;
use std::rc::Rc;

use kernel::error::{Call, Error, Result};
use kernel::list::AttachFlags;
use kernel::{AttachType, LinkId, MapId, ProgramId};
use nix::errno::Errno;

use super::handles::{
    Model, ModelCgroup, ModelLink, ModelProcess, ModelProgram, ModelSocket, at, on_link,
};
use crate::world::{Attach, Census, World};

impl World for Model {
    type Process = ModelProcess;
    type Socket = ModelSocket;

    fn create_cgroup(&self, path: &Path) -> nix::Result<()> {
        self.kernel.borrow_mut().tree.create(path)
    }

    fn remove_cgroup(&self, path: &Path) -> nix::Result<()> {
        self.kernel.borrow_mut().remove_cgroup(path)
    }

    fn spawn(&self, cgroup: &Path) -> nix::Result<ModelProcess> {
        let socket = self.open_socket(cgroup)?;
        let pid = self.kernel.borrow_mut().spawn(Some(cgroup))?;
        Ok(ModelProcess { pid, socket, kernel: Rc::clone(&self.kernel) })
    }

    fn pid(&self, process: &ModelProcess) -> u32 {
        process.pid
    }

    fn move_to(&self, process: &ModelProcess, cgroup: &Path) -> nix::Result<()> {
        self.kernel.borrow_mut().move_to(process.pid, cgroup)
    }

    fn send(&self, process: &ModelProcess) -> nix::Result<()> {
        let mut kernel = self.kernel.borrow_mut();
        kernel.packet(process.socket.cgroup, AttachType::INET_EGRESS);
        kernel.packet(process.socket.cgroup, AttachType::INET_INGRESS);
        Ok(())
    }

    fn open_socket(&self, cgroup: &Path) -> nix::Result<ModelSocket> {
        let cgroup = self.kernel.borrow_mut().open_socket(cgroup)?;
        Ok(ModelSocket { cgroup, kernel: Rc::clone(&self.kernel) })
    }

    fn load_pass(&self, name: &str, attach_type: AttachType) -> Result<ModelProgram> {
        let program = Model::load(self, &[(name, attach_type)], false).next();
        program.ok_or_else(|| Error::new(Call::Load, name, Errno::ENOMEM))
    }

    fn attach_with(
        &self,
        program: &ModelProgram,
        cgroup: &ModelCgroup,
        attach_type: AttachType,
        asked: &Attach<'_, ModelProgram>,
    ) -> Result<()> {
        let attached = self.kernel.borrow_mut().attach(
            program.identity.id,
            cgroup.id,
            attach_type,
            asked.flags,
            asked.replace.map(|program| program.identity.id),
            asked.expected_revision,
        );
        attached.map_err(at(Call::Attach, cgroup, attach_type))
    }

    fn detach_with(
        &self,
        program: Option<&ModelProgram>,
        cgroup: &ModelCgroup,
        attach_type: AttachType,
        flags: AttachFlags,
        expected_revision: Option<u64>,
    ) -> Result<()> {
        let program = program.map(|program| program.identity.id);
        let detached = self.kernel.borrow_mut().detach(
            program,
            cgroup.id,
            attach_type,
            flags,
            expected_revision,
        );
        detached.map_err(at(Call::Detach, cgroup, attach_type))
    }

    fn link_update(
        &self,
        link: &ModelLink,
        new: &ModelProgram,
        old: Option<&ModelProgram>,
    ) -> Result<()> {
        let old = old.map(|old| old.identity.id);
        let updated = self.kernel.borrow_mut().link_update(link.id, new.identity.id, old);
        updated.map_err(on_link(Call::LinkUpdate, link))
    }

    fn program_name(&self, id: ProgramId) -> Result<Option<String>> {
        Ok(self.kernel.borrow().program(id).map(|program| program.name.clone()))
    }
}

impl Model {
    /// Lists the throttles' programs, recognised by their names, and what belongs to them.
    pub fn census(&self) -> Census {
        let kernel = self.kernel.borrow();
        let programs: Vec<_> = kernel
            .programs()
            .filter(|(_, name)| name.starts_with("chadthrottle"))
            .map(|(id, _)| id)
            .collect();
        let is_ours = |id: &LinkId| {
            kernel.link_info(*id).is_ok_and(|info| programs.contains(&info.program_id))
        };
        Census {
            links: kernel.links().filter(is_ours).collect(),
            pins: kernel
                .pins()
                .filter(|path| path.starts_with(&self.pins))
                .map(|path| path.display().to_string())
                .collect(),
            maps: kernel.loads().into_iter().map(MapId).collect(),
            programs,
        }
    }
}
