//! A host to tell stories on: systemd's programs are there, ours are added.

use auditor::classify::{Finding, Judged, classify};
use auditor::snapshot::{
    AttachmentFact, Count, DEVICE_PROGRAM, DeviceFact, DeviceLinkFact, Gap, HolderFact, LinkFact,
    Look, Object, OwnerFact, PinFact, ProgramFact, Snapshot, Subject, ThrottleFact,
};
use bpf::ledger::{Entry, RecordedAttachment, Stage};
use bpf::{AttachType, CgroupId, LinkId, Owner, ProgramId};

pub(crate) const IN: AttachType = AttachType::INET_INGRESS;
pub(crate) const EG: AttachType = AttachType::INET_EGRESS;

/// The cgroup that most stories are about.
pub(crate) const A: u64 = 9310;

/// A host with one look, and nothing of ours on it.
pub(crate) fn host() -> Snapshot {
    serde_json::from_str(include_str!("../snapshots-in/foreign.json")).unwrap()
}

/// The owner with that pid, of this boot and pid namespace.
pub(crate) fn owner(pid: u32) -> Owner {
    let host = host().host;
    Owner {
        pid,
        start_time: 81_234,
        pid_namespace: host.pid_namespace,
        boot_id: host.boot_id,
        version: "0.1.0".into(),
    }
}

/// Adds facts to the last look.
pub(crate) trait Story {
    fn look(&mut self) -> &mut Look;

    fn program(&mut self, id: u32, owner: Option<&Owner>) -> &mut ProgramFact {
        let look = self.look();
        look.programs.push(ProgramFact {
            id: ProgramId(id),
            name: "chadthrottle_in".into(),
            full_name: None,
            tag: "6b1f9c0a7e5d4321".into(),
            kind: "cgroup_skb".into(),
            loaded_at_ns: 1_000 + u64::from(id),
            loaded_at: "2026-11-23T05:26:40Z".into(),
            uid: 0,
            map_ids: vec![],
            memlock_bytes: 4096,
            owner: owner.cloned(),
        });
        look.programs.last_mut().unwrap()
    }

    fn owner_lives(&mut self, owner: &Owner, alive: Option<bool>) {
        self.look().owners.push(OwnerFact { owner: owner.clone(), alive });
    }

    fn attach(
        &mut self,
        program: u32,
        cgroup: u64,
        attach_type: AttachType,
    ) -> &mut AttachmentFact {
        let look = self.look();
        look.attachments.push(AttachmentFact {
            cgroup: format!("/cgroup-{cgroup}").into(),
            cgroup_id: CgroupId(cgroup),
            attach_type,
            program_id: ProgramId(program),
            list_flags: 2,
            program_flags: Some(2),
            slots_used: 1,
            state: None,
        });
        look.attachments.last_mut().unwrap()
    }

    fn link(&mut self, id: u32, program: u32, cgroup: u64, attach_type: AttachType) {
        self.look().links.push(LinkFact {
            id: LinkId(id),
            program_id: ProgramId(program),
            cgroup_id: CgroupId(cgroup),
            attach_type: Some(attach_type),
        });
    }

    /// A program of a queue.
    fn device_program(&mut self, id: u32, owner: &Owner) {
        let program = self.program(id, Some(owner));
        (program.name, program.kind) = ("chadthrottle_re".into(), DEVICE_PROGRAM.into());
    }

    /// A program on a network device; on none if that is 0.
    fn device_link(&mut self, id: u32, program: u32, device: u32) {
        self.look().device_links.push(DeviceLinkFact {
            id: LinkId(id),
            program_id: ProgramId(program),
            device,
            attach_type: "tcx_ingress".into(),
        });
    }

    /// The device of a queue.
    fn device(&mut self, owner: &Owner) -> &mut DeviceFact {
        let look = self.look();
        look.devices.push(DeviceFact {
            network_namespace: 4_026_531_840,
            namespace_path: None,
            index: 7,
            name: format!("chadq{}a", owner.pid),
            is_ifb: true,
            alias: Some(serde_json::to_string(owner).unwrap()),
        });
        look.devices.last_mut().unwrap()
    }

    fn pin(&mut self, path: &str, object: Object) {
        self.look().pins.push(PinFact { path: path.into(), object });
    }

    fn hold(&mut self, pid: u32, objects: &[Object]) {
        let objects = objects.to_vec();
        self.look().holders.push(HolderFact { pid, comm: "somebody".into(), objects });
    }

    fn gap(&mut self, about: Subject) {
        let gap = Gap { about, what: "/x".into(), why: "denied".into() };
        self.look().coverage.gaps.push(gap);
    }

    /// An entry of the ledger: persisting, and attached.
    fn record(&mut self, owner: &Owner, program: u32, cgroup: u64) -> &mut Entry {
        let look = self.look();
        let recorded = RecordedAttachment {
            attach_type: IN,
            program_id: ProgramId(program),
            tag: "6b1f9c0a7e5d4321".into(),
            loaded_at_ns: 1_000 + u64::from(program),
            link_id: None,
            pin: None,
            limits: None,
            former_cgroup: None,
        };
        look.ledger.push(Entry {
            schema_version: 1,
            throttle: "backup".into(),
            owner: owner.clone(),
            stage: Stage::Attached,
            persist: true,
            cgroup_path: format!("/sys/fs/cgroup/cgroup-{cgroup}").into(),
            cgroup_id: CgroupId(cgroup),
            attachments: vec![recorded],
            waiting: false,
            cgroup_namespace: 0,
            cgroup_top: None,
            displace: false,
        });
        look.ledger.last_mut().unwrap()
    }
}

impl Story for Snapshot {
    fn look(&mut self) -> &mut Look {
        self.looks.last_mut().unwrap()
    }
}

pub(crate) fn program(id: u32) -> Object {
    Object::Program(ProgramId(id))
}

pub(crate) fn link(id: u32) -> Object {
    Object::Link(LinkId(id))
}

pub(crate) fn state(armed: bool) -> ThrottleFact {
    ThrottleFact {
        armed,
        rate: 125_000,
        burst_ns: 20_000_000,
        traffic: "all".into(),
        departures: false,
        fq_devices: Vec::new(),
        passed: Count::default(),
        dropped: Count::default(),
        held_back: Count::default(),
    }
}

/// A dead owner's program 41 on cgroup A, attached the legacy way.
pub(crate) fn orphan() -> Snapshot {
    let mut host = host();
    let owner = owner(4711);
    host.program(41, Some(&owner));
    host.owner_lives(&owner, Some(false));
    host.attach(41, A, IN);
    host
}

/// Somebody's program 41, asked for by its name, on cgroup A, attached the legacy way.
pub(crate) fn unowned() -> Snapshot {
    let mut host = host();
    host.scope.programs = vec!["acme_*".into()];
    host.program(41, None).name = "acme_fw".into();
    host.attach(41, A, IN);
    host
}

fn is_ours(judged: &Judged<'_>) -> bool {
    judged.program.is_none_or(|program| !program.name.starts_with("sd_"))
}

/// What our attachments were found to be, in order.
pub(crate) fn attachments(host: &Snapshot) -> Vec<Finding> {
    let classified = classify(host);
    classified
        .attachments
        .iter()
        .filter(|judged| is_ours(judged))
        .map(|judged| judged.finding)
        .collect()
}

/// What our programs without an attachment were found to be, in order.
pub(crate) fn programs(host: &Snapshot) -> Vec<Finding> {
    classify(host).programs.iter().map(|judged| judged.finding).collect()
}

/// The reason of the first leak.
pub(crate) fn reason(host: &Snapshot) -> String {
    let classified = classify(host);
    classified.leaks().next().expect("a leak").reason.clone()
}

/// The host, with everything asked for.
pub(crate) fn whole(mut host: Snapshot) -> Snapshot {
    host.scope.attach_types = AttachType::all().collect();
    host
}
