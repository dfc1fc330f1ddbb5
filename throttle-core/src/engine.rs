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

/// Tells an engine where to keep its records and pins, and who owns its throttles.
#[derive(Debug, Clone)]
pub struct Config {
    /// The ledger's folder; by default [`bpf::ledger::DEFAULT_DIR`].
    pub ledger: LedgerDir,
    /// The folder for pins, in a bpffs: `/sys/fs/bpf/chadthrottle`.
    pub pins: PathBuf,
    /// The folder for pins is in a bpffs (see [`kernel::pins::is_on_bpffs`]).
    pub bpffs: bool,
    /// The process that owns the throttles: this one.
    pub owner: Owner,
    /// A random number shared by every owner on the host, and kept secret from everybody else. 0 turns it off.
    ///
    /// A program uses the mark to signal that it has already dropped a packet. A limit above then does not charge for
    /// the packet. With 0, stacked limits charge for each other's dropped packets.
    pub mark: u64,
    /// The inode number of this process's cgroup namespace, for the ledger; see [`kernel::cgroup::namespace`].
    pub cgroup_namespace: u64,
}

struct Throttle<B: CgroupBpf> {
    cgroup: PathBuf,
    mode: Mode,
    tcp: Tcp,
    /// These two are the values for the ledger entry.
    cgroup_top: Option<CgroupId>,
    displace: bool,
    load: Rc<Load<B>>,
    /// The places that the throttle was added on. The throttle keeps them until its removal succeeds.
    places: Vec<Place>,
    attachments: Vec<Attachment<B>>,
    entry: Option<Entry>,
    /// The queue for downloads, if any. It closes last: without programs on the cgroup nothing is held back there.
    queue: Option<B::Queue>,
    /// The directions already detached, if removing the other direction failed.
    gone: BTreeMap<Direction, Detached>,
}

/// The throttles of one process.
///
/// A host may run any number of engines. Each throttle limits on its own. If several apply to a cgroup or its
/// ancestors, a packet must pass all of them, so the lowest rate holds.
///
/// Dropping the engine removes every throttle that is not pinned. Dropping cannot report errors. [`Engine::shut_down`]
/// reports them, and removes pinned throttles too.
pub struct Engine<B: CgroupBpf> {
    kernel: B,
    config: Config,
    loads: Vec<Rc<Load<B>>>,
    throttles: BTreeMap<ThrottleId, Throttle<B>>,
    /// The results of throttles removed by a shutdown that failed for others.
    ended: Vec<(ThrottleId, Removed)>,
    last_id: u32,
}

impl<B: CgroupBpf> Engine<B> {
    /// Starts an engine, and removes what earlier engines on this host left after a crash.
    ///
    /// # Errors
    /// When the ledger cannot be read. An entry that cannot be settled does not stop the start; see [`Settlement`].
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

    /// Decides how to attach a throttle.
    ///
    /// # Errors
    /// When this host cannot grant what the spec asks for.
    pub fn decide(&self, spec: &Spec) -> Result<Decision> {
        let facts = Facts { support: self.kernel.support()?, bpffs: self.config.bpffs };
        Ok(decide(spec.attach, spec.tcp, &facts)?)
    }

    /// Starts to shape the TCP sockets that were open before the throttle was added.
    ///
    /// # Errors
    /// When there is no such throttle, or the kernel cannot iterate over the cgroup's sockets. The throttle then
    /// polices these sockets ([`Tcp::Police`]). Nothing else has changed.
    pub fn adopt(&self, id: ThrottleId) -> Result<Adopted> {
        let throttle = self.throttles.get(&id).ok_or(Error::NoSuchThrottle(id))?;
        let Some(attachment) = throttle.attachments.iter().find(|it| it.limits().is_none()) else {
            return Ok(Adopted::default());
        };
        Ok(self.kernel.adopt(attachment.cgroup(), &throttle.cgroup)?)
    }

    /// Removes a throttle. Returns `Ok` only after queries have shown that each of its programs is gone.
    ///
    /// Removal also succeeds if the cgroup was removed before or its processes have ended. Needs `CAP_NET_ADMIN`. If
    /// this process dies half way, the next start removes what outlives it.
    ///
    /// # Errors
    /// When an attachment cannot be detached, or cannot be shown to be gone. The throttle stays in the engine and in
    /// the ledger with what is left of it. The caller can try again.
    pub fn remove(&mut self, id: ThrottleId) -> Result<Removed> {
        let throttle = self.throttles.get_mut(&id).ok_or(Error::NoSuchThrottle(id))?;
        let mut errors = Vec::new();
        let mut lock = None;
        if let Some(entry) = &mut throttle.entry {
            // If this process dies from here on, the next start must finish the removal.
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
            // Nothing is attached any more. An earlier failure to mark the entry does not matter if the entry can be
            // removed now.
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

    /// Drops loads without a throttle. A program that no throttle uses is a leak.
    fn drop_unused_lanes(&mut self) {
        self.loads.retain(|load| Rc::strong_count(load) > 1);
    }

    /// Returns the current status of every throttle of this engine.
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

    /// Gives up a pinned throttle without detaching it. The throttle stays in force until
    /// [`crate::settle::remove_recorded`] removes it by name.
    ///
    /// # Errors
    /// When there is no such throttle, or its mode is not [`Mode::Pinned`]. The throttle is then unchanged.
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

    /// Removes every throttle, including pinned ones. A failure does not stop the others.
    ///
    /// Returns the result of every removal, once the last throttle is gone.
    ///
    /// # Errors
    /// All errors together. A throttle that could not be removed stays, and the caller can try again.
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
        // Pinned throttles stay by design; everything else must go. A drop cannot report errors. Links end with their
        // descriptors, and the ledger keeps the entries of the rest.
        self.throttles.retain(|_, throttle| throttle.mode != Mode::Pinned);
        let _ = self.shut_down();
    }
}
