//! Implements [`CgroupBpf`] on the simulated kernel.

use std::path::Path;

use bpf::Owner;
use bpf::adopt::Adopted;
use bpf::boundary::Throttles;
use bpf::queue::Swept;
use bpf::state::{Counters, ThrottleState};
use bpf::throttle::{Loaded, Parts, Queued};
use kernel::boundary::{Cgroups, Host, Links, Pins, Programs};
use kernel::cgroup::ROOT_CGROUP_ID;
use kernel::error::{Call, Error, Result};
use kernel::lineage::Lineage;
use kernel::link::LinkInfo;
use kernel::list::{AttachFlags, ProgramList, Scope};
use kernel::probe::Support;
use kernel::{
    AttachType, CgroupId, LinkId, ProcessIdentity, ProgramId, ProgramIdentity, ProgramInfo,
};
use nix::errno::Errno;

use super::handles::{
    Model, ModelCgroup, ModelLink, ModelProgram, at, on_link, on_path, on_program,
};
use super::queue::ModelQueue;
use crate::world::{Attach, World};

/// The pid namespace of all processes of the model.
const PID_NAMESPACE: u32 = 1;

impl Host for Model {
    fn support(&self) -> Result<Support> {
        let version = self.kernel.borrow().version();
        Ok(Support {
            links: version.since(5, 7),
            program_flags: version.since(6, 0),
            expected_revision: version.has_revisions(),
            tcp: true,
        })
    }

    fn now_ns(&self) -> u64 {
        self.kernel.borrow_mut().now()
    }

    fn is_alive(&self, process: &ProcessIdentity) -> Result<Option<bool>> {
        let is_here = process.pid_namespace == PID_NAMESPACE;
        Ok(is_here.then(|| self.kernel.borrow().is_alive(process.pid)))
    }
}

impl Cgroups for Model {
    type Cgroup = ModelCgroup;

    fn open_cgroup(&self, path: &Path) -> Result<ModelCgroup> {
        let opened = self.kernel.borrow_mut().open_cgroup(self.process, path);
        let (id, descriptor) = opened.map_err(on_path(Call::OpenCgroup, path))?;
        Ok(ModelCgroup { id, path: path.to_owned(), _file: self.file(descriptor) })
    }

    fn cgroup_id(&self, cgroup: &ModelCgroup) -> CgroupId {
        cgroup.id
    }

    /// Returns the root, because the model has one mount of the whole hierarchy.
    fn cgroup_top(&self, _: &ModelCgroup) -> Option<CgroupId> {
        Some(ROOT_CGROUP_ID)
    }

    fn query(
        &self,
        cgroup: &ModelCgroup,
        attach_type: AttachType,
        scope: Scope,
    ) -> Result<ProgramList> {
        let queried = self.kernel.borrow().query(cgroup.id, attach_type, scope);
        queried.map_err(at(Call::Query, cgroup, attach_type))
    }

    fn lineages(&self, cgroup: &ModelCgroup, attach_types: &[AttachType]) -> Result<Vec<Lineage>> {
        let kernel = self.kernel.borrow();
        let lineage = |&attach_type: &AttachType| {
            let told = kernel.lineage(cgroup.id, attach_type);
            told.map_err(at(Call::Query, cgroup, attach_type))
        };
        attach_types.iter().map(lineage).collect()
    }
}

impl Programs for Model {
    type Program = ModelProgram;

    fn open_program(&self, id: ProgramId) -> Result<ModelProgram> {
        let opened = self.kernel.borrow_mut().open_program(self.process, id);
        let fail = |errno| Error::new(Call::FdById, format!("program {id}"), errno);
        Ok(self.program_from(id, opened.map_err(fail)?))
    }

    fn program_info(&self, id: ProgramId) -> Result<ProgramInfo> {
        let missing = || Error::new(Call::FdById, format!("program {id}"), Errno::ENOENT);
        self.kernel.borrow().program_info(id).ok_or_else(missing)
    }

    fn identity(&self, program: &ModelProgram) -> ProgramIdentity {
        program.identity.clone()
    }

    fn attach(
        &self,
        program: &ModelProgram,
        cgroup: &ModelCgroup,
        attach_type: AttachType,
        flags: AttachFlags,
        expected_revision: Option<u64>,
    ) -> Result<()> {
        let has_revisions = self.support()?.expected_revision;
        let expected_revision = expected_revision.filter(|_| has_revisions);
        let asked = Attach { flags, replace: None, expected_revision };
        self.attach_with(program, cgroup, attach_type, &asked)
    }

    fn detach(
        &self,
        program: &ModelProgram,
        cgroup: &ModelCgroup,
        attach_type: AttachType,
        expected_revision: Option<u64>,
    ) -> Result<()> {
        let has_revisions = self.support()?.expected_revision;
        let expected_revision = expected_revision.filter(|_| has_revisions);
        let none = AttachFlags::empty();
        self.detach_with(Some(program), cgroup, attach_type, none, expected_revision)
    }
}

impl Links for Model {
    type Link = ModelLink;

    fn link_create(
        &self,
        program: &ModelProgram,
        cgroup: &ModelCgroup,
        attach_type: AttachType,
    ) -> Result<ModelLink> {
        let created = self.kernel.borrow_mut().link_create(
            self.process,
            program.identity.id,
            cgroup.id,
            attach_type,
        );
        let (id, descriptor) = created.map_err(at(Call::LinkCreate, cgroup, attach_type))?;
        Ok(ModelLink { id, _file: self.file(descriptor) })
    }

    fn link_open(&self, id: LinkId) -> Result<ModelLink> {
        let opened = self.kernel.borrow_mut().open_link(self.process, id);
        let fail = |errno| Error::new(Call::FdById, format!("link {id}"), errno);
        Ok(ModelLink { id, _file: self.file(opened.map_err(fail)?) })
    }

    fn link_id(&self, link: &ModelLink) -> LinkId {
        link.id
    }

    fn link_info(&self, link: &ModelLink) -> Result<LinkInfo> {
        self.kernel.borrow().link_info(link.id).map_err(on_link(Call::Info, link))
    }

    fn link_detach(&self, link: &ModelLink) -> Result<()> {
        let detached = self.kernel.borrow_mut().link_detach(link.id);
        detached.map_err(on_link(Call::LinkDetach, link))
    }
}

impl Pins for Model {
    fn link_pin(&self, link: &ModelLink, path: &Path) -> Result<()> {
        self.kernel.borrow_mut().pin(link.id, path).map_err(on_path(Call::ObjPin, path))
    }

    fn link_open_pinned(&self, path: &Path) -> Result<ModelLink> {
        let opened = self.kernel.borrow_mut().open_pinned(self.process, path);
        let (id, descriptor) = opened.map_err(on_path(Call::ObjGet, path))?;
        Ok(ModelLink { id, _file: self.file(descriptor) })
    }

    fn pin_exists(&self, path: &Path) -> bool {
        self.kernel.borrow().pin_exists(path)
    }

    fn unpin(&self, path: &Path) -> Result<()> {
        self.kernel.borrow_mut().unpin(path);
        Ok(())
    }

    fn remove_empty_folder_of(&self, pin: &Path) -> Result<()> {
        self.kernel.borrow_mut().remove_empty_folder_of(pin);
        Ok(())
    }
}

impl Throttles for Model {
    /// No packet goes through the model's queues. `vm_` tests have real ones.
    type Queue = ModelQueue;

    fn load(&self, _owner: &Owner, _mark: u64, parts: Parts) -> Result<Loaded<ModelProgram>> {
        let mut wanted = vec![
            ("chadthrottle_ingress", AttachType::INET_INGRESS),
            ("chadthrottle_egress", AttachType::INET_EGRESS),
        ];
        if parts.tcp {
            wanted.push(("chadthrottle_sockops", AttachType::SOCK_OPS));
        }
        if parts.queue {
            // These programs belong on network devices, and nobody attaches them to a cgroup.
            let place = AttachType::INET_INGRESS;
            wanted.extend([("chadthrottle_redirect", place), ("chadthrottle_queue", place)]);
        }
        let mut programs = Model::load(self, &wanted, true);
        let mut next = || {
            let missing = || Error::new(Call::Load, "the packet programs", Errno::ENOMEM);
            programs.next().ok_or_else(missing)
        };
        Ok(Loaded {
            ingress: next()?,
            egress: next()?,
            sockops: parts.tcp.then(&mut next).transpose()?,
            queue: if parts.queue {
                Some(Queued { redirect: next()?, depart: next()? })
            } else {
                None
            },
        })
    }

    fn state(
        &self,
        program: &ModelProgram,
        cgroup: CgroupId,
        attach_type: AttachType,
    ) -> Result<Option<ThrottleState>> {
        Ok(self.kernel.borrow().state(program.identity.id, cgroup, attach_type))
    }

    fn set_state(
        &self,
        program: &ModelProgram,
        cgroup: CgroupId,
        attach_type: AttachType,
        state: &ThrottleState,
    ) -> Result<()> {
        let set =
            self.kernel.borrow_mut().set_state(program.identity.id, cgroup, attach_type, *state);
        set.map_err(on_program(Call::MapUpdate, program))
    }

    fn counters(
        &self,
        program: &ModelProgram,
        cgroup: CgroupId,
        attach_type: AttachType,
    ) -> Result<Option<Counters>> {
        Ok(self.kernel.borrow().counters(program.identity.id, cgroup, attach_type))
    }

    /// Returns nothing, because the model's sockets have no connections.
    fn adopt(&self, _cgroup: &ModelCgroup, _path: &Path) -> Result<Adopted> {
        Ok(Adopted::default())
    }

    fn queue_open(
        &self,
        programs: &Loaded<ModelProgram>,
        cgroup: &Path,
        owner: &Owner,
    ) -> Result<ModelQueue> {
        self.open_queue(programs, cgroup, owner)
    }

    fn queue_works(&self, queue: &ModelQueue) -> Result<bool> {
        Ok(queue.works())
    }

    fn queue_close(&self, queue: &mut ModelQueue) -> Result<()> {
        queue.close()
    }

    fn sweep_queues(&self) -> Result<Swept> {
        Ok(self.sweep())
    }
}
