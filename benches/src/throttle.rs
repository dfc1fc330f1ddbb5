//! Provides engines and throttles in their own namespaces, so ledger and pins disappear with the process.

use std::path::{Path, PathBuf};

use anyhow::ensure;
use bpf::limits::{Burst, FqDevices, Rate, Traffic};
use bpf::{LinuxBpf, Owner};
use throttle_core::ledger::LedgerDir;
use throttle_core::mode::{TcpWish, Wish};
use throttle_core::settle::Settlement;
use throttle_core::{Config, Engine, Spec};

/// Starts an engine on the running kernel. Call [`testkit::isolation::isolate`] first.
///
/// # Errors
/// Fails if the kernel's features cannot be determined, or if old throttles could not be removed.
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

/// Returns the spec of a throttle: one policed upload (one program), or everything (three programs).
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
