//! The engine: the throttles of one process.

mod add;
mod again;
mod change;
mod look;
mod queue;
mod rearm;

use self::rearm::remove_former;
pub use self::rearm::spec_of;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

use bpf::adopt::Adopted;
use bpf::ledger::{Entry, Stage};
use bpf::{CgroupBpf, Owner};
use kernel::CgroupId;

use crate::attachment::{Attachment, Detached};
use crate::error::{Error, Result};
use crate::id::ThrottleId;
use crate::ledger::LedgerDir;
use crate::load::{Load, Place};
use crate::mode::{Decision, Facts, Mode, Tcp, decide};
use crate::settle::{Settlement, settle};
use crate::spec::{Direction, Spec};
use crate::status::{DirectionStatus, Health, Removed, ThrottleStatus};

/// Where an engine keeps what must outlive it, and whom it works for.
#[derive(Debug, Clone)]
pub struct Config {
    /// The ledger: in [`bpf::ledger::DEFAULT_DIR`].
    pub ledger: LedgerDir,
    /// The folder for pins, on a bpffs: `/sys/fs/bpf/chadthrottle`.
    pub pins: PathBuf,
    /// That folder is on a bpffs (see [`kernel::pins::is_on_bpffs`]).
    pub bpffs: bool,
    /// This process.
    pub owner: Owner,
    /// By what programs tell each other that a packet was dropped already, so that a limit above does not
    /// charge for it: a random number that all owners on the host share, and nobody else knows. 0: limits that
    /// are stacked charge each for what another drops.
    pub mark: u64,
    /// The inode number of this process's cgroup namespace, for the ledger: see [`kernel::cgroup::namespace`].
    pub cgroup_namespace: u64,
}

struct Throttle<B: CgroupBpf> {
    cgroup: PathBuf,
    mode: Mode,
    tcp: Tcp,
    /// As an entry of the ledger has them.
    cgroup_top: Option<CgroupId>,
    displace: bool,
    load: Rc<Load<B>>,
    /// Where it was to be attached; its own until it is removed.
    places: Vec<Place>,
    attachments: Vec<Attachment<B>>,
    entry: Option<Entry>,
    /// Where its downloads wait, if they do. It goes last: without programs on the cgroup nothing is held back there.
    queue: Option<B::Queue>,
    /// Directions that are gone already, of a throttle whose removal has failed in the other.
    gone: BTreeMap<Direction, Detached>,
}

/// The throttles of one process.
///
/// Any number of engines may run on a host. Each limits on its own: where several throttles, of one engine
/// or of many, apply to a cgroup or to a parent and its child, a packet must pass all of them, so the
/// lowest rate holds.
///
/// Dropping it detaches whatever is not meant to outlive it; [`Engine::shut_down`] does the same and says
/// what went wrong.
pub struct Engine<B: CgroupBpf> {
    kernel: B,
    config: Config,
    loads: Vec<Rc<Load<B>>>,
    throttles: BTreeMap<ThrottleId, Throttle<B>>,
    /// What throttles did that were removed by a shutting down which has failed for others.
    ended: Vec<(ThrottleId, Removed)>,
    last_id: u32,
}

impl<B: CgroupBpf> Engine<B> {
    /// Starts: settles what a crash left of earlier engines on this host.
    ///
    /// # Errors
    /// When the ledger cannot be read. What could not be settled is in the [`Settlement`]; it does not
    /// keep the engine from starting.
    pub fn start(kernel: B, config: Config) -> Result<(Self, Settlement)> {
        let settlement = settle(&kernel, &config.ledger, &config.owner.boot_id)?;
        let engine = Self {
            kernel,
            config,
            loads: Vec::new(),
            throttles: BTreeMap::new(),
            ended: Vec::new(),
            last_id: 0,
        };
        Ok((engine, settlement))
    }

    /// How a throttle would be attached.
    ///
    /// # Errors
    /// When the wish cannot be granted.
    pub fn decide(&self, spec: &Spec) -> Result<Decision> {
        let facts = Facts { support: self.kernel.support()?, bpffs: self.config.bpffs };
        Ok(decide(spec.attach, spec.tcp, &facts)?)
    }

    /// Shapes the TCP sockets as well that were open before the throttle was added.
    ///
    /// # Errors
    /// When there is no such throttle, or the kernel cannot go over its sockets: they are policed, then, as
    /// [`Tcp::Police`] says, and nothing else has changed.
    pub fn adopt(&self, id: ThrottleId) -> Result<Adopted> {
        let throttle = self.throttles.get(&id).ok_or(Error::NoSuchThrottle(id))?;
        let Some(attachment) = throttle.attachments.iter().find(|it| it.limits().is_none()) else {
            return Ok(Adopted::default());
        };
        Ok(self.kernel.adopt(attachment.cgroup(), &throttle.cgroup)?)
    }

    /// Removes a throttle. Ok means that a query showed every program of it to be gone.
    ///
    /// That the cgroup was removed before, or its processes have ended, is a normal case. Needs
    /// `CAP_NET_ADMIN`. If the process dies half way, the next start removes the rest of what outlives it.
    ///
    /// # Errors
    /// When something could not be detached or shown to be gone. What is gone is gone; the rest stays in
    /// the engine and in the ledger, and removing can be tried again.
    pub fn remove(&mut self, id: ThrottleId) -> Result<Removed> {
        let throttle = self.throttles.get_mut(&id).ok_or(Error::NoSuchThrottle(id))?;
        let mut errors = Vec::new();
        let mut lock = None;
        if let Some(entry) = &mut throttle.entry {
            // From here on it is not meant to persist, should this process die half way.
            entry.stage = Stage::Removing;
            let marked = self.config.ledger.lock().and_then(|held| {
                let held = lock.insert(held);
                if self.config.ledger.has(held, entry)? {
                    self.config.ledger.write(held, entry)
                } else {
                    Ok(())
                }
            });
            errors.extend(marked.err());
        }
        for attachment in std::mem::take(&mut throttle.attachments) {
            let direction = Direction::of(attachment.attach_type());
            match attachment.detach(&self.kernel) {
                Ok(detached) => {
                    throttle.gone.extend(direction.map(|direction| (direction, detached)));
                }
                Err(stuck) => {
                    throttle.attachments.push(stuck.attachment);
                    errors.push(stuck.error);
                }
            }
        }
        if throttle.attachments.is_empty() {
            errors.extend(throttle.close_queue(&self.kernel).err());
        }
        if throttle.attachments.is_empty() && throttle.queue.is_none() {
            // All is off the kernel: that the entry could not be marked before does not matter, if only
            // it can be removed now.
            if let (Some(entry), Some(lock)) = (&throttle.entry, &lock) {
                errors.clear();
                let ledger = &self.config.ledger;
                let removed = ledger.has(lock, entry).and_then(|is_ours| {
                    if !is_ours {
                        return Ok(());
                    }
                    remove_former(&self.kernel, entry)?;
                    ledger.remove(&ledger.path(&entry.throttle))
                });
                errors.extend(removed.err());
            }
        }
        drop(lock);
        Error::collect(errors)?;
        let gone = self.throttles.remove(&id).map(|throttle| throttle.gone).unwrap_or_default();
        self.drop_unused_lanes();
        Ok(Removed { directions: gone })
    }

    /// A load that nothing runs any more is not kept: a program without a throttle is a leak.
    fn drop_unused_lanes(&mut self) {
        self.loads.retain(|load| Rc::strong_count(load) > 1);
    }

    /// Every throttle of this engine, as it is now.
    pub fn list(&self) -> Vec<ThrottleStatus> {
        self.throttles.iter().map(|(id, throttle)| self.status(*id, throttle)).collect()
    }

    fn status(&self, id: ThrottleId, throttle: &Throttle<B>) -> ThrottleStatus {
        let health = |attachment: &Attachment<B>| match attachment.is_attached(&self.kernel) {
            Ok(Some(true)) => Health::Attached,
            Ok(Some(false)) => Health::DetachedByOthers,
            Ok(None) => match attachment.lingers(&self.kernel) {
                Ok(true) => Health::SocketsRemain,
                Ok(false) => Health::CgroupVanished,
                Err(error) => Health::Unknown(error),
            },
            Err(error) => Health::Unknown(error),
        };
        let direction_status = |attachment: &Attachment<B>| {
            Some(DirectionStatus {
                direction: Direction::of(attachment.attach_type())?,
                limits: *attachment.limits()?,
                health: health(attachment),
                counters: attachment.counters(&self.kernel),
            })
        };
        ThrottleStatus {
            id,
            name: throttle.entry.as_ref().map(|entry| entry.throttle.clone()),
            cgroup: throttle.cgroup.clone(),
            mode: throttle.mode,
            tcp: throttle.tcp,
            tcp_health: throttle.attachments.iter().find(|it| it.limits().is_none()).map(health),
            directions: throttle.attachments.iter().filter_map(direction_status).collect(),
        }
    }

    /// Lets go of a pinned throttle: from now on it is the kernel's, until it is removed by its name
    /// ([`crate::settle::remove_recorded`]). Only for a throttle in mode [`Mode::Pinned`].
    ///
    /// # Errors
    /// When there is no such throttle, or it is not pinned (it stays as it is then).
    pub fn release(&mut self, id: ThrottleId) -> Result<()> {
        match self.throttles.get(&id) {
            Some(throttle) if throttle.mode == Mode::Pinned => {
                self.throttles.remove(&id);
                self.drop_unused_lanes();
                Ok(())
            }
            _ => Err(Error::NoSuchThrottle(id)),
        }
    }

    /// Removes every throttle, pinned ones too, going on past failures.
    ///
    /// # Errors
    /// All that went wrong; what could not be removed is still there, and this can be called again: what the
    /// others did is told when the last is gone.
    pub fn shut_down(&mut self) -> Result<Vec<(ThrottleId, Removed)>> {
        let ids: Vec<_> = self.throttles.keys().copied().collect();
        let mut errors = Vec::new();
        for id in ids {
            match self.remove(id) {
                Ok(removed) => self.ended.push((id, removed)),
                Err(error) => errors.push(error),
            }
        }
        Error::collect(errors)?;
        Ok(std::mem::take(&mut self.ended))
    }
}

impl<B: CgroupBpf> Drop for Engine<B> {
    fn drop(&mut self) {
        // What is left of pinned throttles is meant to stay; everything else is not. An error cannot be
        // told from here: links go with their descriptors, and of the rest the ledger keeps the entries.
        self.throttles.retain(|_, throttle| throttle.mode != Mode::Pinned);
        let _ = self.shut_down();
    }
}
