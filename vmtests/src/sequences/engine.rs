//! Runs the engine as one owner does.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

use bpf::limits::{Burst, Departures, FqDevices, Limits, Rate, Traffic};
use bpf::{CgroupBpf, Owner};
use kernel::AttachType;
use throttle_core::files::Files;
use throttle_core::ledger::LedgerDir;
use throttle_core::mode::{TcpWish, Wish};
use throttle_core::settle::remove_recorded;
use throttle_core::{
    Change, Config, Detached, Direction, DirectionStatus, Engine, Spec, ThrottleId,
};

use super::faulty::{Control, Faulty, FaultyFiles};
use super::step::How;
use super::system::{Claim, Counted, Handle, Rates, Request, Whom};

/// The engine's folders and its owner.
#[derive(Debug, Clone)]
pub struct Setting {
    /// The ledger's files.
    pub files: Rc<dyn Files>,
    /// The ledger's folder.
    pub ledger: PathBuf,
    /// The folder for pins.
    pub pins: PathBuf,
    /// The owner.
    pub owner: Owner,
}

/// Finds the cgroup of a process.
pub type Resolve = Box<dyn Fn(u32) -> Result<PathBuf, String>>;

/// An engine, with the numbers that its user gave the throttles.
pub struct EngineOwner<B: CgroupBpf> {
    engine: Engine<Faulty<B>>,
    handles: BTreeMap<ThrottleId, Handle>,
    resolve: Resolve,
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn ledger(setting: &Setting, control: &Rc<Control>) -> LedgerDir {
    let files = FaultyFiles::new(Rc::clone(&setting.files), Rc::clone(control));
    LedgerDir::on(Rc::new(files), &setting.ledger)
}

impl<B: CgroupBpf> EngineOwner<B> {
    /// Starts an engine. What it cannot settle is not an error: the engine reports it, and the next start tries again.
    ///
    /// # Errors
    /// Returns the engine's error.
    pub fn start(
        kernel: B,
        control: &Rc<Control>,
        setting: &Setting,
        resolve: Resolve,
    ) -> Result<Self, String> {
        let config = Config {
            ledger: ledger(setting, control),
            pins: setting.pins.clone(),
            bpffs: true,
            owner: setting.owner.clone(),
            mark: 7,
            cgroup_namespace: 0,
        };
        let kernel = Faulty::new(kernel, Rc::clone(control));
        let (engine, _settlement) = Engine::start(kernel, config).map_err(said)?;
        Ok(Self { engine, handles: BTreeMap::new(), resolve })
    }

    /// Adds a throttle.
    ///
    /// # Errors
    /// Returns the engine's error.
    pub fn add(&mut self, request: &Request) -> Result<(), String> {
        let cgroup = match &request.whom {
            Whom::Cgroup(path) => path.clone(),
            Whom::Process(pid) => (self.resolve)(*pid)?,
        };
        let rates = limits(&request.rates)?;
        let spec = Spec {
            cgroup,
            cgroup_id: None,
            download: rates.get(&Direction::Download).map(|limits| limits.rate),
            upload: rates.get(&Direction::Upload).map(|limits| limits.rate),
            burst: Burst::DEFAULT,
            traffic: Traffic::All,
            attach: match request.how {
                How::Link => Wish::Link,
                How::Pinned => Wish::Pinned,
                How::Legacy => Wish::Legacy,
            },
            tcp: TcpWish::Shape,
            departures: FqDevices::NONE,
            queue: false,
            displace: false,
        };
        let added = self.engine.add(&spec);
        match added {
            Ok(started) => {
                self.handles.insert(started.id, request.handle);
                Ok(())
            }
            Err(error) => {
                // A throttle that could not be undone stays in the engine's list.
                for status in self.engine.list() {
                    self.handles.entry(status.id).or_insert(request.handle);
                }
                Err(error.to_string())
            }
        }
    }

    fn id(&self, handle: Handle) -> Result<ThrottleId, String> {
        let found = self.handles.iter().find(|(_, known)| **known == handle);
        found.map(|(id, _)| *id).ok_or_else(|| format!("there is no throttle {handle}"))
    }

    /// Changes a throttle's rates.
    ///
    /// # Errors
    /// Returns the engine's error.
    pub fn change(&mut self, handle: Handle, rates: &Rates) -> Result<(), String> {
        let rates = limits(rates)?;
        let change = Change {
            download: rates.get(&Direction::Download).map(|limits| limits.rate),
            upload: rates.get(&Direction::Upload).map(|limits| limits.rate),
            ..Change::default()
        };
        let id = self.id(handle)?;
        self.engine.change(id, &change).map_err(said)
    }

    /// Removes a throttle. Returns its counters.
    ///
    /// # Errors
    /// Returns the engine's error.
    pub fn remove(&mut self, handle: Handle) -> Result<Counted, String> {
        let id = self.id(handle)?;
        let removed = self.engine.remove(id).map_err(said)?;
        self.handles.remove(&id);
        let counted = |(direction, detached): (Direction, Detached)| {
            Some((direction.attach_type(), detached.counters.ok().flatten()?))
        };
        Ok(removed.directions.into_iter().filter_map(counted).collect())
    }

    /// Lists the engine's throttles.
    pub fn claims(&self) -> Vec<Claim> {
        let counted = |direction: &DirectionStatus| {
            let counters = direction.counters.as_ref().ok().copied().flatten()?;
            Some((direction.direction.attach_type(), counters))
        };
        let rate = |direction: &DirectionStatus| {
            (direction.direction.attach_type(), direction.limits.rate.bytes_per_second())
        };
        self.engine
            .list()
            .iter()
            .filter_map(|status| {
                Some(Claim {
                    handle: *self.handles.get(&status.id)?,
                    rates: status.directions.iter().map(rate).collect(),
                    counters: status.directions.iter().filter_map(counted).collect(),
                })
            })
            .collect()
    }

    /// Removes everything.
    ///
    /// # Errors
    /// Returns the engine's error.
    pub fn shut_down(&mut self) -> Result<(), String> {
        self.engine.shut_down().map(drop).map_err(said)
    }
}

/// Removes a recorded throttle by its name, in a process that does nothing else.
///
/// # Errors
/// Returns the engine's error.
pub fn remove_by_name<B: CgroupBpf>(
    kernel: B,
    control: &Rc<Control>,
    setting: &Setting,
    name: &str,
) -> Result<(), String> {
    let kernel = Faulty::new(kernel, Rc::clone(control));
    let ledger = ledger(setting, control);
    remove_recorded(&kernel, &ledger, name, &setting.owner.boot_id).map(drop).map_err(said)
}

fn limits(rates: &Rates) -> Result<BTreeMap<Direction, Limits>, String> {
    let one = |(&attach_type, &rate): (&AttachType, &u64)| {
        let direction = Direction::of(attach_type).ok_or("no direction")?;
        let rate = Rate::from_bytes_per_second(rate).map_err(said)?;
        Ok((
            direction,
            Limits {
                rate,
                burst: Burst::DEFAULT,
                traffic: Traffic::All,
                departures: Departures::Never,
            },
        ))
    };
    rates.iter().map(one).collect()
}
