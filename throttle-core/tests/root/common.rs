//! What the engine's tests on the real kernel share.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bpf::limits::{Burst, FqDevices, Rate, Traffic};
use bpf::{LinuxBpf, Owner};
use kernel::cgroup::Cgroup;
use kernel::list::{self, AttachFlags, Scope};
use kernel::{AttachType, Program, ProgramId};
use throttle_core::ledger::LedgerDir;
use throttle_core::mode::{TcpWish, Wish};
use throttle_core::settle::Settlement;
use throttle_core::{Config, Engine, Spec};

pub(crate) const INGRESS: AttachType = AttachType::INET_INGRESS;
pub(crate) const EGRESS: AttachType = AttachType::INET_EGRESS;
pub(crate) const TCP: AttachType = AttachType::SOCK_OPS;
/// Where a throttle of both directions has its programs.
pub(crate) const PLACES: [AttachType; 3] = [INGRESS, EGRESS, TCP];
pub(crate) const BURST: Duration = Duration::from_millis(20);
pub(crate) const EVERY_MODE: [Wish; 3] = [Wish::Link, Wish::Pinned, Wish::Legacy];

pub(crate) fn rate(bytes_per_second: u64) -> Rate {
    Rate::from_bytes_per_second(bytes_per_second).unwrap()
}

/// Both directions, 1 MB/s, with TCP shaped: three programs.
pub(crate) fn spec(cgroup: &Path, attach: Wish) -> Spec {
    Spec {
        cgroup: cgroup.to_owned(),
        cgroup_id: None,
        download: Some(rate(1_000_000)),
        upload: Some(rate(1_000_000)),
        burst: Burst::new(BURST).unwrap(),
        traffic: Traffic::All,
        attach,
        tcp: TcpWish::Shape,
        departures: FqDevices::NONE,
        queue: false,
        displace: false,
    }
}

pub(crate) fn config() -> Config {
    Config {
        ledger: LedgerDir::new("/run/chadthrottle"),
        pins: "/sys/fs/bpf/chadthrottle".into(),
        bpffs: true,
        owner: Owner::this_process("test").unwrap(),
        mark: 0x7e57_0001,
        cgroup_namespace: kernel::cgroup::namespace().unwrap(),
    }
}

pub(crate) fn start() -> Engine<LinuxBpf> {
    let (engine, settlement) = start_and_settle();
    assert!(settlement.removed.is_empty() && settlement.failed.is_empty(), "{settlement:?}");
    engine
}

pub(crate) fn start_and_settle() -> (Engine<LinuxBpf>, Settlement) {
    Engine::start(LinuxBpf::new().unwrap(), config()).unwrap()
}

/// An owner that died: this process's pid, but another start time.
pub(crate) fn dead_owner() -> Owner {
    let owner = Owner::this_process("test").unwrap();
    Owner { start_time: owner.start_time - 1, ..owner }
}

/// Ids and names of the programs on a cgroup, in order.
pub(crate) fn attached(cgroup: &Path, attach_type: AttachType) -> Vec<(ProgramId, String)> {
    let list = list::query(&Cgroup::open(cgroup).unwrap(), attach_type, Scope::Local, false);
    list.unwrap()
        .programs
        .iter()
        .map(|program| (program.id, Program::open(program.id).unwrap().info().name.clone()))
        .collect()
}

/// The names alone, for both directions and TCP.
pub(crate) fn names(cgroup: &Path) -> Vec<String> {
    PLACES.iter().flat_map(|at| attached(cgroup, *at)).map(|(_, name)| name).collect()
}

/// A program of somebody else's.
pub(crate) fn plant_foreign(cgroup: &Path, attach_type: AttachType, name: &str) -> ProgramId {
    testkit::leak::plant_named(name, cgroup, attach_type, AttachFlags::MULTI).unwrap()
}

/// Detaches a program, as somebody else would.
pub(crate) fn detach(cgroup: &Path, attach_type: AttachType, id: ProgramId) {
    let program = Program::open(id).unwrap();
    list::detach(program.as_fd(), &Cgroup::open(cgroup).unwrap(), attach_type, None).unwrap();
}

/// The entries of the ledger.
pub(crate) fn ledger_files() -> Vec<PathBuf> {
    let ledger = bpf::ledger::read(Path::new("/run/chadthrottle")).unwrap();
    assert!(ledger.unreadable.is_empty(), "{ledger:?}");
    ledger.entries.into_iter().map(|(path, _)| path).collect()
}

/// The pins on the bpffs of this test; others may be mounted elsewhere.
pub(crate) fn pins() -> Vec<PathBuf> {
    let pins = kernel::pins::pins(kernel::pins::Sought::MapsToo).unwrap();
    assert!(pins.unreadable.is_empty(), "{pins:?}");
    let paths = pins.pins.into_iter().map(|pin| pin.path);
    paths.filter(|path| path.starts_with(kernel::pins::DEFAULT_BPFFS)).collect()
}
