//! Adding a throttle: load, record, attach, and record again. Adding does all of it or nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bpf::CgroupBpf;
use bpf::ledger::{self, Entry, RecordedAttachment, RecordedLimits, Stage};
use bpf::limits::Limits;
use bpf::throttle::Parts;
use kernel::AttachType;
use nix::errno::Errno;

use super::rearm::Recorded;
use super::{Engine, Throttle, queue};
use crate::attachment::{Attachment, identity, prepare};
use crate::error::{Error, Result};
use crate::id::ThrottleId;
use crate::ledger::Locked;
use crate::load::{Load, Place, find_free};
use crate::mode::{Decision, Mode, Tcp, TcpWish};
use crate::spec::{Direction, Spec};
use crate::status::Started;

/// A program to attach: its attach type and its limits. The program for TCP has no limits of its own.
pub(super) type Part = (AttachType, Option<Limits>);

/// Lists a throttle's programs in the order of attaching and detaching. The limiting programs come first, so that the
/// program for TCP has nothing left to do when it is detached.
pub(super) fn parts(limits: &[(Direction, Limits)], tcp: Tcp) -> Vec<Part> {
    let directions =
        limits.iter().map(|(direction, limits)| (direction.attach_type(), Some(*limits)));
    directions.chain((tcp == Tcp::Shape).then_some((AttachType::SOCK_OPS, None))).collect()
}

/// Returns the file name of a program's pin.
fn pin_name(attach_type: AttachType) -> String {
    Direction::of(attach_type).map_or_else(|| "tcp".to_owned(), |direction| direction.to_string())
}

impl<B: CgroupBpf> Engine<B> {
    /// Adds a throttle for all of its directions, or for none.
    ///
    /// Needs Linux 5.12, `CAP_BPF` and `CAP_NET_ADMIN`. Shaping TCP also needs `CAP_PERFMON`. A throttle that outlives
    /// a crash needs write access to the ledger. The throttle's [`Mode`] decides what stays if the process dies.
    ///
    /// # Errors
    /// When a program cannot be attached or the ledger cannot be written. The engine then detaches what it has
    /// attached. If even that fails, the error says so, and the throttle stays in [`Engine::list`] for removal.
    pub fn add(&mut self, spec: &Spec) -> Result<Started> {
        self.add_as(spec, None)
    }

    /// Adds a throttle as [`Engine::add`] does. `recorded` is its existing ledger entry, if any.
    pub(super) fn add_as(&mut self, spec: &Spec, recorded: Option<Recorded>) -> Result<Started> {
        let limits = spec.limits();
        if limits.is_empty() {
            return Err(Error::NothingToLimit);
        }
        let Decision { mode, mut tcp, mut notes } = self.decide(spec)?;
        let queue = queue::is_wanted(spec, mode)?;
        let cgroup = Rc::new(self.kernel.open_cgroup(&spec.cgroup)?);
        let cgroup_id = self.kernel.cgroup_id(&cgroup);
        if let Some(expected) = spec.cgroup_id.filter(|expected| *expected != cgroup_id) {
            let path = spec.cgroup.clone();
            return Err(Error::AnotherCgroup { path, expected, found: cgroup_id });
        }
        let places = |tcp| -> Vec<Place> {
            parts(&limits, tcp).iter().map(|(attach_type, _)| (cgroup_id, *attach_type)).collect()
        };
        let (mut before, mut displaced) =
            self.look_before(&cgroup, spec, &limits, &mut tcp, &mut notes)?;
        let load = match self.load_for(&places(tcp), Parts { tcp: tcp == Tcp::Shape, queue }) {
            // Dropping packets is better than no limit at all.
            Err(Error::Kernel(error))
                if spec.tcp == TcpWish::Auto && !queue && is_refused(&error) =>
            {
                tcp = Tcp::Police;
                before.retain(|lineage| lineage.attach_type != AttachType::SOCK_OPS);
                displaced.retain(|program| program.attach_type != AttachType::SOCK_OPS);
                notes.push(
                    "the kernel refuses the program that shapes TCP ('--tcp shape' tells why; it needs CAP_PERFMON, \
                     too): packets above the limit are dropped",
                );
                self.load_for(&places(tcp), Parts { tcp: false, queue })?
            }
            load => load?,
        };
        let (parts, places) = (parts(&limits, tcp), places(tcp));

        let mut throttle = Throttle {
            cgroup: spec.cgroup.clone(),
            mode,
            tcp,
            cgroup_top: self.kernel.cgroup_top(&cgroup),
            displace: spec.displace,
            load: Rc::clone(&load),
            places,
            attachments: Vec::new(),
            entry: None,
            queue: None,
            gone: BTreeMap::new(),
        };
        // The lock is held until the ledger records the throttle as attached. Nobody sees it half made.
        let (mut lock, recorded) = match recorded {
            Some(Recorded { lock, before, former }) => (Some(lock), Some((before, former))),
            None => (None, None),
        };
        if mode.outlives_a_crash() {
            let announced = self.announce(&cgroup, &throttle, &parts, recorded.as_ref(), &mut lock);
            match announced {
                Ok(entry) => throttle.entry = Some(entry),
                Err(error) => {
                    drop((load, throttle));
                    self.drop_unused_lanes();
                    return Err(error);
                }
            }
        }
        let opened = queue
            .then(|| self.kernel.queue_open(&load.programs, &spec.cgroup, &self.config.owner))
            .transpose();
        let attached = opened.map_err(Error::from).and_then(|opened| {
            throttle.queue = opened;
            self.attach_all(&mut throttle, &cgroup, &load, &parts)?;
            let more = self.look_after(&cgroup, spec, &before, &load)?;
            for program in more {
                if !displaced.contains(&program) {
                    displaced.push(program);
                }
            }
            self.record_attached(&mut throttle, lock.as_ref())
        });
        drop(load);
        if recorded.is_none() || attached.is_ok() {
            drop(lock.take());
        }
        self.last_id += 1;
        let id = ThrottleId(self.last_id);
        let name = throttle.entry.as_ref().map(|entry| entry.throttle.clone());
        self.throttles.insert(id, throttle);
        if let Err(error) = attached {
            let removed = match (&recorded, lock) {
                // The former entry goes back into the ledger.
                (Some((before, _)), Some(lock)) => self.take_back(id, before, &lock),
                _ => self.remove(id).map(drop),
            };
            return Err(match removed {
                Ok(()) => error,
                Err(second) => Error::Several(vec![error, second]),
            });
        }
        Ok(Started { id, name, mode, tcp, notes, displaced })
    }

    /// Returns a load in which all these places are free.
    fn load_for(&mut self, places: &[Place], parts: Parts) -> Result<Rc<Load<B>>> {
        let taken = self.throttles.values().map(|it| (&it.load, it.places.as_slice()));
        let loads = self.loads.iter().filter(|load| {
            load.programs.sockops.is_some() == parts.tcp && load.programs.queue.is_none()
        });
        // A load with a queue serves one cgroup only.
        if let Some(load) = find_free(loads, &taken, places).filter(|_| !parts.queue) {
            return Ok(load);
        }
        let programs = self.kernel.load(&self.config.owner, self.config.mark, parts)?;
        let load = Rc::new(Load { programs });
        self.loads.push(Rc::clone(&load));
        Ok(load)
    }

    /// Returns a name that no throttle has. It avoids folders without an entry too: they hold pins of unknown owners,
    /// which the auditor removes.
    pub(super) fn free_name(&self, lock: &Locked) -> String {
        self.config
            .ledger
            .free_name(lock, |name| self.kernel.pin_exists(&self.config.pins.join(name)))
    }

    /// Records in the ledger what the engine is about to attach.
    fn announce(
        &self,
        cgroup: &B::Cgroup,
        throttle: &Throttle<B>,
        parts: &[Part],
        recorded: Option<&(Entry, Vec<RecordedAttachment>)>,
        lock: &mut Option<Locked>,
    ) -> Result<Entry> {
        let lock = match lock {
            Some(lock) => &*lock,
            none => none.insert(self.config.ledger.lock()?),
        };
        let name =
            recorded.map_or_else(|| self.free_name(lock), |(entry, _)| entry.throttle.clone());
        let attachments = parts
            .iter()
            .map(|&(attach_type, limits)| {
                let program = identity(&self.kernel, &throttle.load, attach_type);
                let pin = self.free_pin(&self.config.pins.join(&name), &pin_name(attach_type));
                RecordedAttachment {
                    attach_type,
                    program_id: program.id,
                    tag: program.tag,
                    loaded_at_ns: program.loaded_at_ns,
                    link_id: None,
                    pin: (throttle.mode == Mode::Pinned).then_some(pin),
                    limits: limits.as_ref().map(RecordedLimits::from),
                    former_cgroup: None,
                }
            })
            .chain(recorded.into_iter().flat_map(|(_, former)| former.iter().cloned()))
            .collect();
        // If this process dies half way, a throttle that had an entry must still be kept.
        let stage = if recorded.is_some() { Stage::Attached } else { Stage::Intent };
        let entry = Entry {
            schema_version: ledger::SCHEMA_VERSION,
            throttle: name,
            owner: self.config.owner.clone(),
            stage,
            persist: throttle.mode == Mode::Pinned,
            cgroup_path: throttle.cgroup.clone(),
            cgroup_id: self.kernel.cgroup_id(cgroup),
            attachments,
            waiting: recorded.is_some(),
            cgroup_namespace: self.config.cgroup_namespace,
            cgroup_top: throttle.cgroup_top,
            displace: throttle.displace,
        };
        self.config.ledger.write(lock, &entry)?;
        Ok(entry)
    }

    /// Returns a path in the folder that no pin has. Pins of earlier cgroups at the same path may still be there.
    fn free_pin(&self, folder: &Path, name: &str) -> PathBuf {
        let first = folder.join(name);
        // A bpffs refuses names with a dot (`EPERM`).
        let more = (2_u32..).map(|number| folder.join(format!("{name}-{number}")));
        std::iter::once(first.clone())
            .chain(more)
            .find(|path| !self.kernel.pin_exists(path))
            .unwrap_or(first)
    }

    fn attach_all(
        &self,
        throttle: &mut Throttle<B>,
        cgroup: &Rc<B::Cgroup>,
        load: &Rc<Load<B>>,
        parts: &[Part],
    ) -> Result<()> {
        if throttle.tcp == Tcp::Shape {
            // The program for TCP reads the state of both directions. An earlier throttle may have left a direction
            // armed that this one does not limit.
            let others = Direction::BOTH.map(Direction::attach_type);
            for at in others.into_iter().filter(|at| parts.iter().all(|(part, _)| part != at)) {
                prepare(
                    &self.kernel,
                    load.programs.program(at),
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
                Rc::clone(load),
                *attach_type,
                limits.as_ref(),
                throttle.mode,
                recorded.and_then(|recorded| recorded.pin.as_deref()),
            );
            match attached {
                Ok(attachment) => throttle.attachments.push(attachment),
                Err(failed) => {
                    throttle.attachments.extend(failed.left_behind);
                    return Err(failed.error);
                }
            }
        }
        Ok(())
    }

    /// Records in the ledger that every program is attached.
    fn record_attached(&self, throttle: &mut Throttle<B>, lock: Option<&Locked>) -> Result<()> {
        if let (Some(entry), Some(lock)) = (&mut throttle.entry, lock) {
            let links = throttle.attachments.iter().map(|it| it.link_id(&self.kernel));
            entry.stage = Stage::Attached;
            entry.waiting = false;
            for (recorded, link) in entry.attachments.iter_mut().zip(links) {
                recorded.link_id = link;
            }
            self.config.ledger.write(lock, entry)?;
        }
        Ok(())
    }
}

/// Tells whether the verifier has refused a program.
fn is_refused(error: &kernel::Error) -> bool {
    matches!(error.errno(), Errno::EACCES | Errno::EINVAL)
}
