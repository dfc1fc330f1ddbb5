//! Limits with chadthrottle, in the lab's own process.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use bpf::limits::{Burst, FqDevices, Rate, Traffic};
use bpf::{LinuxBpf, Owner};
use throttle_core::files::FileSystem;
use throttle_core::ledger::LedgerDir;
use throttle_core::mode::{self, DeparturesWish, Mode, TcpWish, Wish};
use throttle_core::{Config, Engine, Spec, Started, ThrottleId, mark};

use super::super::cell::Way;
use super::super::expect::Counted;
use super::super::network::{NEAR, Network};
use super::super::setup::{Refusal, Setup};
use super::{Installed, System};

/// The variants of chadthrottle.
#[derive(Debug)]
pub(super) enum Ours {
    /// `chadthrottle limit` without any option.
    Default,
    /// The default, with `fq` as the qdisc of the interface.
    BehindFq,
    /// `--download-queue`: downloads wait in their own queue (ifb with `fq`).
    Queue,
    /// `--burst` with this length.
    Burst(Duration),
    /// `--tcp police` with this burst. It only drops packets above the limit.
    Bucket(Duration),
}

impl System for Ours {
    fn note(&self) -> &'static str {
        match self {
            Self::Default => "`chadthrottle limit` without any option. Limits the cgroup alone.",
            Self::BehindFq => "The same, with `fq` as the root qdisc of the near interface.",
            Self::Queue => {
                "`--download-queue`: what is above the limit waits in a queue of its own (ifb with `fq`). Limits \
                 the cgroup alone."
            }
            Self::Burst(_) => "`--burst` of that length. Limits the cgroup alone.",
            Self::Bucket(_) => {
                "`--tcp police --burst` of that length: drops what is above the limit, no more. Limits the \
                 cgroup alone."
            }
        }
    }

    fn counted(&self, _: Way) -> Counted {
        Counted::Ip
    }

    fn is_for_cgroups(&self) -> bool {
        true
    }

    fn install(
        &self,
        network: &Network,
        way: Way,
        rate: Rate,
    ) -> Result<Box<dyn Installed>, Refusal> {
        if matches!(self, Self::Queue) && way == Way::Up {
            return Err(Refusal::Missing("a queue is for downloads".to_owned()));
        }
        let mut qdisc = Setup::default();
        if matches!(self, Self::BehindFq) {
            let undo = format!("tc qdisc del dev {NEAR} root");
            qdisc.run(&format!("tc qdisc add dev {NEAR} root fq"), Some(&undo))?;
        }
        let departures = if matches!(self, Self::BehindFq) {
            let devices = kernel::qdisc::devices(None).context("the devices")?;
            mode::departures(DeparturesWish::Fq, &devices).context("fq")?
        } else {
            FqDevices::NONE
        };
        let burst = match self {
            Self::Burst(burst) | Self::Bucket(burst) => Burst::new(*burst).context("the burst")?,
            Self::Default | Self::BehindFq | Self::Queue => Burst::DEFAULT,
        };
        let tcp = if matches!(self, Self::Bucket(_)) { TcpWish::Police } else { TcpWish::Auto };
        let mut throttles = Throttles::start()?;
        let spec = Spec {
            departures,
            queue: matches!(self, Self::Queue),
            ..spec(network.throttled(), way, rate, burst, tcp)
        };
        throttles.add(&spec).map_err(|error| {
            // The kernel may lack what a queue needs. Any other failure is an error.
            let said = format!("{error:#}");
            let lacks =
                ["needs Linux 6.6", "this kernel has no"].iter().any(|it| said.contains(it));
            if matches!(self, Self::Queue) && lacks {
                Refusal::Missing(said)
            } else {
                Refusal::Failed(error)
            }
        })?;
        Ok(Box::new(Limited { throttles, qdisc }))
    }
}

/// Returns the limit that `chadthrottle limit` sets without options, but for one direction.
pub(crate) fn spec(cgroup: &Path, way: Way, rate: Rate, burst: Burst, tcp: TcpWish) -> Spec {
    Spec {
        cgroup: cgroup.to_owned(),
        cgroup_id: None,
        download: (way == Way::Down).then_some(rate),
        upload: (way == Way::Up).then_some(rate),
        burst,
        traffic: Traffic::All,
        attach: Wish::default(),
        tcp,
        departures: FqDevices::NONE,
        queue: false,
        displace: false,
    }
}

/// An engine with its throttles.
pub(crate) struct Throttles {
    engine: Engine<LinuxBpf>,
    added: Vec<ThrottleId>,
    told: Vec<String>,
}

impl Throttles {
    /// Starts an engine without throttles.
    pub(crate) fn start() -> Result<Self> {
        let dir = Path::new(bpf::ledger::DEFAULT_DIR);
        let bpffs = Path::new(kernel::pins::DEFAULT_BPFFS);
        let config = Config {
            ledger: LedgerDir::new(dir),
            pins: bpffs.join("chadthrottle"),
            bpffs: kernel::pins::is_on_bpffs(bpffs)?,
            owner: Owner::this_process(env!("CARGO_PKG_VERSION"))?,
            mark: mark::shared(&FileSystem, dir).context("the mark")?,
            cgroup_namespace: 0,
        };
        let (engine, _) = Engine::start(LinuxBpf::new()?, config)?;
        Ok(Self { engine, added: Vec::new(), told: Vec::new() })
    }

    /// Limits one more cgroup.
    pub(crate) fn add(&mut self, spec: &Spec) -> Result<()> {
        let started = self.engine.add(spec)?;
        self.added.push(started.id);
        self.told.push(told(spec, &started));
        Ok(())
    }

    /// Describes what was added.
    pub(crate) fn told(&self) -> &[String] {
        &self.told
    }

    /// Removes all throttles.
    pub(crate) fn remove(mut self) -> Result<()> {
        self.engine.shut_down()?;
        Ok(())
    }
}

fn told(spec: &Spec, started: &Started) -> String {
    let Started { mode, tcp, notes, .. } = started;
    let mode = if *mode == Mode::Link { String::new() } else { format!(", {mode}") };
    let limits = spec.limits();
    let limits = limits.iter().map(|(direction, limits)| format!("{direction} {}", limits.rate));
    let mut told = format!(
        "{}, burst {} ms, tcp {tcp}{mode}",
        limits.collect::<Vec<_>>().join(", "),
        spec.burst.as_duration().as_millis()
    );
    for note in notes {
        told += "; ";
        told += note;
    }
    told
}

struct Limited {
    throttles: Throttles,
    qdisc: Setup,
}

impl Installed for Limited {
    fn done(&self) -> Vec<String> {
        [self.qdisc.done(), self.throttles.told()].concat()
    }

    fn remove(self: Box<Self>) -> Result<()> {
        let (throttles, qdisc) = (self.throttles.remove(), self.qdisc.remove());
        throttles.and(qdisc)
    }
}
