//! Builds a host for stories. It has systemd's programs, and each story adds ours.
//!
//! The program's tests include this file as well, so the file refers to the library by name.
#![allow(dead_code, unused_imports, reason = "each crate's tests use a part of it")]

mod command;
mod stock;

use std::path::Path;

use auditor::baseline::Baseline;
use auditor::facts::{
    AttachmentFact, Count, DEVICE_PROGRAM, DeviceFact, DeviceLinkFact, Gap, HolderFact, LinkFact,
    LoadedProgram, Look, Object, OwnerFact, PinFact, Process, ProgramFact, Snapshot, Subject,
    ThrottleFact,
};
use auditor::judge::{Finding, Judged, classify};
use auditor::report::{Report, report};
use bpf::Owner;
use bpf::ledger::{Entry, RecordedAttachment, Stage};
use kernel::{AttachType, CgroupId, LinkId, ProgramId};

pub(crate) use self::command::*;
pub(crate) use self::stock::*;

pub(crate) const IN: AttachType = AttachType::INET_INGRESS;
pub(crate) const EG: AttachType = AttachType::INET_EGRESS;

/// The cgroup of most stories.
pub(crate) const A: u64 = 9310;

/// Returns a host with one look and no program of ours.
pub(crate) fn host() -> Snapshot {
    serde_json::from_str(include_str!("../../tests/snapshots-in/foreign.json")).unwrap()
}

/// Returns the owner with that pid, of this boot and pid namespace.
pub(crate) fn owner(pid: u32) -> Owner {
    let host = host().host;
    Owner {
        pid,
        start_time: 81_234,
        pid_namespace: host.pid_namespace,
        boot_id: host.host.boot_id,
        version: "0.1.0".into(),
    }
}

/// Returns the process with that pid.
pub(crate) fn somebody(pid: u32) -> Process {
    Process { pid, comm: "somebody".into() }
}

/// Adds facts to the last look.
pub(crate) trait Story {
    fn look(&mut self) -> &mut Look;

    fn program(&mut self, id: u32, owner: Option<&Owner>) -> &mut ProgramFact {
        let look = self.look();
        let loaded = LoadedProgram {
            id: ProgramId(id),
            name: "chadthrottle_in".into(),
            full_name: None,
            tag: "6b1f9c0a7e5d4321".into(),
            kind: "cgroup_skb".into(),
            loaded_at_ns: 1_000 + u64::from(id),
            loaded_at: "2026-11-23T05:26:40Z".into(),
            uid: 0,
            map_ids: vec![],
        };
        look.programs.push(ProgramFact { loaded, memlock_bytes: 4096, owner: owner.cloned() });
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

    /// Adds a program of a queue.
    fn device_program(&mut self, id: u32, owner: &Owner) {
        let program = self.program(id, Some(owner));
        (program.loaded.name, program.loaded.kind) =
            ("chadthrottle_re".into(), DEVICE_PROGRAM.into());
    }

    /// Adds a tcx link on a network device; device 0 means that the link is defunct.
    fn device_link(&mut self, id: u32, program: u32, device: u32) {
        self.look().device_links.push(DeviceLinkFact {
            id: LinkId(id),
            program_id: ProgramId(program),
            device,
            attach_type: "tcx_ingress".into(),
        });
    }

    /// Adds a queue's device.
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
        self.look().holders.push(HolderFact { process: somebody(pid), objects });
    }

    fn gap(&mut self, about: Subject) {
        let gap = Gap { about, what: "/x".into(), why: "denied".into() };
        self.look().coverage.gaps.push(gap);
    }

    /// Adds a ledger entry that is persistent and attached.
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

/// Returns a host with program 41 of a dead owner on cgroup A, attached the legacy way.
pub(crate) fn orphan() -> Snapshot {
    let mut host = host();
    let owner = owner(4711);
    host.program(41, Some(&owner));
    host.owner_lives(&owner, Some(false));
    host.attach(41, A, IN);
    host
}

/// Returns a host with somebody's program 41 on cgroup A, attached the legacy way. The globs name the program.
pub(crate) fn unowned() -> Snapshot {
    let mut host = host();
    host.scope.programs = vec!["acme_*".into()];
    host.program(41, None).loaded.name = "acme_fw".into();
    host.attach(41, A, IN);
    host
}

fn is_ours(judged: &Judged<'_>) -> bool {
    judged.program.is_none_or(|program| !program.loaded.name.starts_with("sd_"))
}

/// Returns the findings for our attachments, in order.
pub(crate) fn attachments(host: &Snapshot) -> Vec<Finding> {
    let classified = classify(host);
    classified
        .attachments
        .iter()
        .filter(|judged| is_ours(judged))
        .map(|judged| judged.finding)
        .collect()
}

/// Returns the findings for our unattached programs, in order.
pub(crate) fn programs(host: &Snapshot) -> Vec<Finding> {
    classify(host).programs.iter().map(|judged| judged.finding).collect()
}

/// Returns the reason of the first leak.
pub(crate) fn reason(host: &Snapshot) -> String {
    let classified = classify(host);
    classified.leaks().next().expect("a leak").reason.clone()
}

/// Returns the host with a scope that covers everything.
pub(crate) fn whole(mut host: Snapshot) -> Snapshot {
    host.scope.attach_types = AttachType::all().collect();
    host
}

/// Returns a recorded snapshot by its name.
pub(crate) fn recorded(name: &str) -> Snapshot {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../auditor/tests/snapshots-in");
    let path = folder.join(format!("{name}.json"));
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn made(host: &Snapshot) -> Report {
    report(host, &classify(host), false)
}

/// Returns a host with a queue's device. Its owner is running, dead, or in an unknown state.
pub(crate) fn queue(alive: Option<bool>) -> Snapshot {
    let mut host = host();
    host.owner_lives(&owner(4711), alive);
    host.device(&owner(4711));
    host
}

/// Returns a host with a queue's program on device 2, and its owner's device.
pub(crate) fn on_device(alive: bool) -> Snapshot {
    let mut host = queue(Some(alive));
    host.device_program(41, &owner(4711));
    host.device_link(31, 41, 2);
    host
}

/// Returns every situation that would be a leak if the program were ours.
pub(crate) fn situations() -> Vec<(&'static str, Snapshot)> {
    let mut linked = unowned();
    linked.link(11, 41, A, IN);
    let mut pinned = linked.clone();
    pinned.pin("/sys/fs/bpf/acme/fw", link(11));
    let mut held = linked.clone();
    held.hold(99, &[link(11)]);
    let mut twice = unowned();
    twice.attach(41, A, IN);
    twice.hold(99, &[program(41)]);
    let mut older = unowned();
    older.program(42, None).loaded.name = "acme_fw".into();
    older.attach(42, A, IN);
    older.hold(99, &[program(41), program(42)]);
    let mut loose = whole(unowned());
    loose.look().attachments.pop();
    let mut defunct = loose.clone();
    defunct.link(11, 41, 0, IN);
    defunct.pin("/sys/fs/bpf/acme/fw", link(11));
    let mut idle = loose.clone();
    idle.hold(99, &[program(41)]);
    vec![
        ("legacy", unowned()),
        ("linked", linked),
        ("pinned", pinned),
        ("held", held),
        ("twice", twice),
        ("older", older),
        ("loose", loose),
        ("defunct", defunct),
        ("idle", idle),
    ]
}

pub(crate) fn against(before: &Snapshot, now: &Snapshot) -> Report {
    let classified = classify(now);
    let mut report = report(now, &classified, false);
    let baseline = Baseline::new(before, "old.json".to_owned());
    baseline.apply(&mut report, now, &classified);
    report
}

/// Returns a host with the orphan and a second one on another cgroup.
pub(crate) fn two_orphans() -> Snapshot {
    let mut host = orphan();
    let owner = owner(4711);
    host.program(42, Some(&owner));
    host.attach(42, A + 1, IN);
    host
}

pub(crate) fn known(report: &Report) -> Vec<bool> {
    report.leaks.iter().map(|leak| leak.known).collect()
}
