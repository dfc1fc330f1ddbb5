//! The engine: the throttles of one process.

mod queue;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

use bpf::adopt::Adopted;
use bpf::error::Kind;
use bpf::ledger::{self, Entry, RecordedAttachment, Stage};
use bpf::limits::Limits;
use bpf::throttle::Parts;
use bpf::{AttachType, CgroupBpf, LinkId, Owner};
use nix::errno::Errno;

use crate::attachment::{Attachment, Detached, identity, prepare};
use crate::error::{Error, Result};
use crate::lane::{Lane, Place, find_free};
use crate::ledger::{LedgerDir, Locked};
use crate::mode::{Decision, Facts, Mode, Tcp, TcpWish, decide};
use crate::settle::{Settlement, settle};
use crate::spec::{Change, Direction, Spec};
use crate::status::{DirectionStatus, Health, Removed, Started, ThrottleId, ThrottleStatus};

/// Where an engine keeps what must outlive it, and whom it works for.
#[derive(Debug, Clone)]
pub struct Config {
    /// The ledger: in [`bpf::ledger::DEFAULT_DIR`].
    pub ledger: LedgerDir,
    /// The folder for pins, on a bpffs: `/sys/fs/bpf/chadthrottle`.
    pub pins: PathBuf,
    /// That folder is on a bpffs (see [`bpf::pins::is_on_bpffs`]).
    pub bpffs: bool,
    /// This process.
    pub owner: Owner,
    /// By what programs tell each other that a packet was dropped already, so that a limit above does not
    /// charge for it: a random number that all owners on the host share, and nobody else knows. 0: limits that
    /// are stacked charge each for what another drops.
    pub mark: u64,
}

/// A program to be attached: where, and what it allows. The one for TCP allows nothing by itself.
type Part = (AttachType, Option<Limits>);

/// What a throttle consists of, in the order in which it is attached and detached: first what limits, so that
/// the program for TCP has nothing left to do when it goes.
fn parts(limits: &[(Direction, Limits)], tcp: Tcp) -> Vec<Part> {
    let directions =
        limits.iter().map(|(direction, limits)| (direction.attach_type(), Some(*limits)));
    directions.chain((tcp == Tcp::Shape).then_some((AttachType::SOCK_OPS, None))).collect()
}

/// What the pin of a program is called.
fn pin_name(attach_type: AttachType) -> String {
    Direction::of(attach_type).map_or_else(|| "tcp".to_owned(), |direction| direction.to_string())
}

struct Throttle<B: CgroupBpf> {
    cgroup: PathBuf,
    mode: Mode,
    tcp: Tcp,
    lane: Rc<Lane<B>>,
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
    lanes: Vec<Rc<Lane<B>>>,
    throttles: BTreeMap<ThrottleId, Throttle<B>>,
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
        let engine =
            Self { kernel, config, lanes: Vec::new(), throttles: BTreeMap::new(), last_id: 0 };
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

    /// Adds a throttle: all of its directions, or none.
    ///
    /// Needs Linux 5.12, `CAP_BPF` and `CAP_NET_ADMIN`, to shape TCP also `CAP_PERFMON`; for a throttle that outlives a crash also the right to
    /// write the ledger. What stays if the process dies depends on the mode: see [`Mode`].
    ///
    /// # Errors
    /// When it cannot be attached or recorded. What was attached already is detached again; should even
    /// that fail, the error says so, and the throttle stays in [`Engine::list`] to be removed.
    pub fn add(&mut self, spec: &Spec) -> Result<Started> {
        let limits = spec.limits();
        if limits.is_empty() {
            return Err(Error::NothingToLimit);
        }
        let Decision { mode, mut tcp, mut notes } = self.decide(spec)?;
        let queue = queue::is_wanted(spec, mode)?;
        let cgroup = Rc::new(self.kernel.open_cgroup(&spec.cgroup)?);
        let cgroup_id = self.kernel.cgroup_id(&cgroup);
        let places = |tcp| -> Vec<Place> {
            parts(&limits, tcp).iter().map(|(attach_type, _)| (cgroup_id, *attach_type)).collect()
        };
        let lane = match self.lane_for(&places(tcp), Parts { tcp: tcp == Tcp::Shape, queue }) {
            // A limit that drops is better than none.
            Err(Error::Kernel(error))
                if spec.tcp == TcpWish::Auto && !queue && is_refused(&error) =>
            {
                tcp = Tcp::Police;
                notes.push(
                    "the kernel refuses the program that shapes TCP ('--tcp shape' tells why; it needs CAP_PERFMON, \
                     too): packets above the limit are dropped",
                );
                self.lane_for(&places(tcp), Parts { tcp: false, queue })?
            }
            lane => lane?,
        };
        let (parts, places) = (parts(&limits, tcp), places(tcp));

        let mut throttle = Throttle {
            cgroup: spec.cgroup.clone(),
            mode,
            tcp,
            lane: Rc::clone(&lane),
            places,
            attachments: Vec::new(),
            entry: None,
            queue: None,
            gone: BTreeMap::new(),
        };
        // Held until everything is attached and recorded as such: nobody finds the throttle half made.
        let mut lock = None;
        if mode.outlives_a_crash() {
            match self.announce(&cgroup, &lane, spec, mode, &parts, &mut lock) {
                Ok(entry) => throttle.entry = Some(entry),
                Err(error) => {
                    drop((lane, throttle));
                    self.drop_unused_lanes();
                    return Err(error);
                }
            }
        }
        let opened = queue
            .then(|| self.kernel.queue_open(&lane.programs, &spec.cgroup, &self.config.owner))
            .transpose();
        let attached = opened.map_err(Error::from).and_then(|opened| {
            throttle.queue = opened;
            self.attach_all(&mut throttle, &cgroup, &lane, &parts, lock.as_ref())
        });
        drop(lane);
        drop(lock);
        self.last_id += 1;
        let id = ThrottleId(self.last_id);
        let name = throttle.entry.as_ref().map(|entry| entry.throttle.clone());
        self.throttles.insert(id, throttle);
        if let Err(error) = attached {
            return Err(match self.remove(id) {
                Ok(_) => error,
                Err(second) => Error::Several(vec![error, second]),
            });
        }
        Ok(Started { id, name, mode, tcp, notes })
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

    /// A load with these places free.
    fn lane_for(&mut self, places: &[Place], parts: Parts) -> Result<Rc<Lane<B>>> {
        let taken = self.throttles.values().map(|it| (&it.lane, it.places.as_slice()));
        let lanes = self.lanes.iter().filter(|lane| {
            lane.programs.sockops.is_some() == parts.tcp && lane.programs.queue.is_none()
        });
        // A load with a queue serves one cgroup.
        if let Some(lane) = find_free(lanes, &taken, places).filter(|_| !parts.queue) {
            return Ok(lane);
        }
        let programs = self.kernel.load(&self.config.owner, self.config.mark, parts)?;
        let lane = Rc::new(Lane { programs });
        self.lanes.push(Rc::clone(&lane));
        Ok(lane)
    }

    /// Writes down what is about to be attached.
    fn announce(
        &self,
        cgroup: &B::Cgroup,
        lane: &Lane<B>,
        spec: &Spec,
        mode: Mode,
        parts: &[Part],
        lock: &mut Option<Locked>,
    ) -> Result<Entry> {
        let lock = lock.insert(self.config.ledger.lock()?);
        // A folder without an entry holds pins that nobody answers for: the auditor's to remove.
        let name = self
            .config
            .ledger
            .free_name(lock, |name| self.kernel.pin_exists(&self.config.pins.join(name)));
        let attachments = parts
            .iter()
            .map(|&(attach_type, _)| {
                let program = identity(&self.kernel, lane, attach_type);
                let pin = self.config.pins.join(&name).join(pin_name(attach_type));
                RecordedAttachment {
                    attach_type,
                    program_id: program.id,
                    tag: program.tag,
                    loaded_at_ns: program.loaded_at_ns,
                    link_id: None,
                    pin: (mode == Mode::Pinned).then_some(pin),
                }
            })
            .collect();
        let entry = Entry {
            schema_version: ledger::SCHEMA_VERSION,
            throttle: name,
            owner: self.config.owner.clone(),
            stage: Stage::Intent,
            persist: mode == Mode::Pinned,
            cgroup_path: spec.cgroup.clone(),
            cgroup_id: self.kernel.cgroup_id(cgroup),
            attachments,
        };
        self.config.ledger.write(lock, &entry)?;
        Ok(entry)
    }

    fn attach_all(
        &self,
        throttle: &mut Throttle<B>,
        cgroup: &Rc<B::Cgroup>,
        lane: &Rc<Lane<B>>,
        parts: &[Part],
        lock: Option<&Locked>,
    ) -> Result<()> {
        let mut links: Vec<Option<LinkId>> = Vec::new();
        if throttle.tcp == Tcp::Shape {
            // The program for TCP goes by the state of both directions, and an earlier throttle may have left
            // the one armed that this one does not limit.
            let others = Direction::BOTH.map(Direction::attach_type);
            for at in others.into_iter().filter(|at| parts.iter().all(|(part, _)| part != at)) {
                prepare(
                    &self.kernel,
                    lane.programs.program(at),
                    self.kernel.cgroup_id(cgroup),
                    at,
                )?;
            }
        }
        for (at, (attach_type, limits)) in parts.iter().enumerate() {
            let recorded = throttle.entry.as_ref().and_then(|entry| entry.attachments.get(at));
            let attached = Attachment::attach(
                &self.kernel,
                Rc::clone(cgroup),
                Rc::clone(lane),
                *attach_type,
                limits.as_ref(),
                throttle.mode,
                recorded.and_then(|recorded| recorded.pin.as_deref()),
            );
            match attached {
                Ok(attachment) => {
                    links.push(attachment.link_id(&self.kernel));
                    throttle.attachments.push(attachment);
                }
                Err(failed) => {
                    throttle.attachments.extend(failed.left_behind);
                    return Err(failed.error);
                }
            }
        }
        if let (Some(entry), Some(lock)) = (&mut throttle.entry, lock) {
            entry.stage = Stage::Attached;
            for (recorded, link) in entry.attachments.iter_mut().zip(links) {
                recorded.link_id = link;
            }
            self.config.ledger.write(lock, entry)?;
        }
        Ok(())
    }

    /// Changes limits in place: nothing is detached, the counters go on. Takes effect with the next packet.
    /// Needs `CAP_BPF`.
    ///
    /// # Errors
    /// When there is no such throttle or direction (nothing is changed then), or a direction's state
    /// cannot be written (the other one may be changed; try again).
    pub fn change(&mut self, id: ThrottleId, change: &Change) -> Result<()> {
        let throttle = self.throttles.get_mut(&id).ok_or(Error::NoSuchThrottle(id))?;
        for direction in [Direction::Download, Direction::Upload] {
            let attach_type = direction.attach_type();
            let exists = throttle.attachments.iter().any(|a| a.attach_type() == attach_type);
            if change.rate(direction).is_some() && !exists {
                return Err(Error::NoSuchDirection(id, direction));
            }
        }
        let mut errors = Vec::new();
        for attachment in &mut throttle.attachments {
            let direction = Direction::of(attachment.attach_type());
            if let (Some(direction), Some(limits)) = (direction, attachment.limits()) {
                let limits = change.apply(direction, limits);
                errors.extend(attachment.change(&self.kernel, &limits).err());
            }
        }
        Error::collect(errors)
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
                let removed = self.config.ledger.has(lock, entry).and_then(|is_ours| {
                    let path = self.config.ledger.path(&entry.throttle);
                    if is_ours { self.config.ledger.remove(&path) } else { Ok(()) }
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
        self.lanes.retain(|lane| Rc::strong_count(lane) > 1);
    }

    /// Every throttle of this engine, as it is now.
    pub fn list(&self) -> Vec<ThrottleStatus> {
        self.throttles.iter().map(|(id, throttle)| self.status(*id, throttle)).collect()
    }

    fn status(&self, id: ThrottleId, throttle: &Throttle<B>) -> ThrottleStatus {
        let health = |attachment: &Attachment<B>| match attachment.is_attached(&self.kernel) {
            Ok(Some(true)) => Health::Attached,
            Ok(Some(false)) => Health::DetachedByOthers,
            Ok(None) => Health::CgroupVanished,
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
    /// All that went wrong; what could not be removed is still there, and this can be called again.
    pub fn shut_down(&mut self) -> Result<Vec<(ThrottleId, Removed)>> {
        let ids: Vec<_> = self.throttles.keys().copied().collect();
        let (mut removed, mut errors) = (Vec::new(), Vec::new());
        for id in ids {
            match self.remove(id) {
                Ok(result) => removed.push((id, result)),
                Err(error) => errors.push(error),
            }
        }
        Error::collect(errors)?;
        Ok(removed)
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

/// Whether the verifier has refused a program.
fn is_refused(error: &bpf::Error) -> bool {
    matches!(error.errno(), Errno::EACCES | Errno::EINVAL)
}

/// Whether an error says that what was named is gone.
pub(crate) fn is_vanished(error: &bpf::Error) -> bool {
    error.kind() == Kind::Vanished
}
