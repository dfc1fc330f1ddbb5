//! What the engine's tests on the model share.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use bpf::Owner;
use bpf::ledger::Entry;
use bpf::limits::{Burst, FqDevices, Rate, Traffic};
use kernel::boundary::Cgroups as _;
use kernel::list::Scope;
use kernel::{AttachType, ProgramId};
use sim::World;
use sim::{Model, Version};
use throttle_core::files::Files;
use throttle_core::ledger::LedgerDir;
use throttle_core::mode::{TcpWish, Wish};
use throttle_core::settle::{RemovedRecord, Settlement, remove_recorded};
use throttle_core::{Config, Engine, Result, Spec};
use vmtests::sequences::faulty::{Control, Faulty, FaultyFiles};
use vmtests::sequences::memory::MemoryFiles;

/// Where a throttle of both directions has its programs.
pub(crate) const PLACES: [AttachType; 3] =
    [AttachType::INET_INGRESS, AttachType::INET_EGRESS, AttachType::SOCK_OPS];
pub(crate) const EVERY_MODE: [Wish; 3] = [Wish::Link, Wish::Pinned, Wish::Legacy];
pub(crate) const BOOT: &str = "this boot";
const TOP: &str = "/sys/fs/cgroup/test";
const PINS: &str = "/sys/fs/bpf/chadthrottle";
const LEDGER: &str = "/run/chadthrottle";

pub(crate) type ModelEngine = Engine<Faulty<Model>>;

/// A machine, seen from outside.
pub(crate) struct Host {
    pub(crate) kernel: Model,
    files: Rc<dyn Files>,
}

/// A process of an owner.
pub(crate) struct Process {
    pub(crate) kernel: Model,
    pub(crate) control: Rc<Control>,
    pub(crate) config: Config,
}

impl Host {
    pub(crate) fn boot() -> Self {
        Self::boot_as(Version::NEWEST)
    }

    pub(crate) fn boot_as(version: Version) -> Self {
        let kernel = Model::boot(version, Path::new(TOP), Path::new(PINS));
        Self { kernel, files: Rc::new(MemoryFiles::default()) }
    }

    pub(crate) fn cgroup(&self, name: &str) -> PathBuf {
        let path = Path::new(TOP).join(name);
        self.kernel.create_cgroup(&path).unwrap();
        path
    }

    pub(crate) fn process(&self) -> Process {
        self.process_with(|| unreachable!("nothing happens at a call"))
    }

    /// A process at one of whose calls something else can happen: it is planned as that of its death.
    pub(crate) fn process_with(&self, happens: impl Fn() + 'static) -> Process {
        let kernel = self.kernel.new_process();
        let control = Control::new(Box::new(happens));
        let files = FaultyFiles::new(Rc::clone(&self.files), Rc::clone(&control));
        let owner = Owner {
            pid: kernel.process(),
            start_time: 1,
            pid_namespace: 1,
            boot_id: BOOT.to_owned(),
            version: "test".to_owned(),
        };
        let ledger = LedgerDir::on(Rc::new(files), LEDGER);
        let config =
            Config { ledger, pins: PINS.into(), bpffs: true, owner, mark: 7, cgroup_namespace: 7 };
        Process { kernel, control, config }
    }

    /// Adds a throttle whose owner is then killed.
    pub(crate) fn crash(&self, cgroup: &Path, wish: Wish) {
        self.crash_with(&[spec(cgroup, wish)]);
    }

    /// Adds throttles of one load, whose owner is then killed.
    pub(crate) fn crash_with(&self, specs: &[Spec]) {
        let process = self.process();
        let mut engine = process.start();
        for spec in specs {
            engine.add(spec).unwrap();
        }
        process.kill(engine);
    }

    /// What a new owner settles.
    pub(crate) fn settle(&self) -> Settlement {
        self.process().try_start().unwrap().1
    }

    pub(crate) fn ledger(&self) -> LedgerDir {
        LedgerDir::on(Rc::clone(&self.files), LEDGER)
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.ledger().read().unwrap().entries.into_iter().map(|(_, entry)| entry).collect()
    }

    /// Rewrites the first entry of the ledger.
    pub(crate) fn edit(&self, edit: impl FnOnce(&mut Entry)) {
        let mut entry = self.entries().swap_remove(0);
        edit(&mut entry);
        let ledger = self.ledger();
        let lock = ledger.lock().unwrap();
        ledger.write(&lock, &entry).unwrap();
    }

    /// How many programs are on a cgroup: of both directions and for TCP together.
    pub(crate) fn attached(&self, cgroup: &Path) -> usize {
        PLACES.iter().map(|at| self.programs(cgroup, *at).len()).sum()
    }

    pub(crate) fn programs(&self, cgroup: &Path, attach_type: AttachType) -> Vec<ProgramId> {
        let cgroup = self.kernel.open_cgroup(cgroup).unwrap();
        let list = self.kernel.query(&cgroup, attach_type, Scope::Local).unwrap();
        list.programs.iter().map(|program| program.id).collect()
    }

    /// How many programs of ours are loaded.
    pub(crate) fn loaded(&self) -> usize {
        self.kernel.census().programs.len()
    }

    pub(crate) fn is_clean(&self) -> bool {
        let devices = self.kernel.queue_devices();
        self.kernel.census().is_empty() && self.entries().is_empty() && devices.is_empty()
    }

    pub(crate) fn remove_recorded(&self, name: &str) -> Result<RemovedRecord> {
        let process = self.process();
        remove_recorded(&process.kernel, &process.config.ledger, name, BOOT)
    }
}

impl Process {
    pub(crate) fn faulty(&self) -> Faulty<Model> {
        Faulty::new(self.kernel.clone(), Rc::clone(&self.control))
    }

    pub(crate) fn try_start(&self) -> Result<(ModelEngine, Settlement)> {
        Engine::start(self.faulty(), self.config.clone())
    }

    pub(crate) fn start(&self) -> ModelEngine {
        self.try_start().unwrap().0
    }

    pub(crate) fn kill(self, engine: ModelEngine) {
        self.kernel.kill();
        self.control.is_dead();
        drop(engine);
    }
}

pub(crate) fn rate(bytes_per_second: u64) -> Rate {
    Rate::from_bytes_per_second(bytes_per_second).unwrap()
}

/// Both directions, with TCP shaped: three programs.
pub(crate) fn spec(cgroup: &Path, attach: Wish) -> Spec {
    Spec {
        cgroup: cgroup.to_owned(),
        cgroup_id: None,
        download: Some(rate(1_000_000)),
        upload: Some(rate(2_000_000)),
        burst: Burst::DEFAULT,
        traffic: Traffic::All,
        attach,
        tcp: TcpWish::Shape,
        departures: FqDevices::NONE,
        queue: false,
        displace: false,
    }
}

#[track_caller]
pub(crate) fn assert_removed(settlement: &Settlement, names: &[&str]) {
    let removed: Vec<_> = settlement.removed.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(removed, names, "{settlement:?}");
    assert!(settlement.failed.is_empty() && settlement.unreadable.is_empty(), "{settlement:?}");
}

/// Nothing was left of them.
#[track_caller]
pub(crate) fn assert_forgotten(settlement: &Settlement, names: &[&str]) {
    let forgotten: Vec<_> = settlement.forgotten.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(forgotten, names, "{settlement:?}");
    assert!(settlement.removed.is_empty() && settlement.failed.is_empty(), "{settlement:?}");
}

#[track_caller]
pub(crate) fn assert_failed(settlement: &Settlement) {
    assert!(settlement.removed.is_empty() && settlement.failed.len() == 1, "{settlement:?}");
}
