//! Engines and throttles for the benches, in namespaces of their own: ledger and pins go with the process.

use std::path::{Path, PathBuf};

use anyhow::ensure;
use bpf::limits::{Burst, FqDevices, Rate, Traffic};
use bpf::{LinuxBpf, Owner};
use throttle_core::ledger::LedgerDir;
use throttle_core::mode::{TcpWish, Wish};
use throttle_core::settle::Settlement;
use throttle_core::{Config, Engine, Spec};

/// An engine on the running kernel. Call [`testkit::isolation::isolate`] first.
///
/// # Errors
/// When the kernel cannot be asked what it can do, or something is left that was to be settled.
pub fn engine() -> anyhow::Result<Engine<LinuxBpf>> {
    let bpffs = Path::new(kernel::pins::DEFAULT_BPFFS);
    let config = Config {
        ledger: LedgerDir::new(bpf::ledger::DEFAULT_DIR),
        pins: bpffs.join("chadthrottle"),
        bpffs: kernel::pins::is_on_bpffs(bpffs)?,
        owner: Owner::this_process("bench")?,
        mark: 0x6368_6164_6265_6e63,
        cgroup_namespace: 0,
    };
    let (engine, settlement) = Engine::start(LinuxBpf::new()?, config)?;
    let Settlement { removed, forgotten: _, unreadable, failed, queues: _ } = &settlement;
    let is_new = removed.is_empty() && unreadable.is_empty() && failed.is_empty();
    ensure!(is_new, "the ledger is not empty: {settlement:?}");
    Ok(engine)
}

/// A throttle on a cgroup: an upload alone that is policed (one program), or all that there is (three).
pub fn spec(cgroup: PathBuf, rate: Rate, attach: Wish, tcp: TcpWish) -> Spec {
    Spec {
        cgroup,
        cgroup_id: None,
        download: (tcp != TcpWish::Police).then_some(rate),
        upload: Some(rate),
        burst: Burst::DEFAULT,
        traffic: Traffic::All,
        attach,
        tcp,
        departures: FqDevices::NONE,
        queue: false,
        displace: false,
    }
}
