//! Implements the bookkeeping of the historical throttle.

use std::collections::BTreeMap;
use std::rc::Rc;

use bpf::Owner;
use bpf::boundary::Throttles as _;
use bpf::ledger::{self, Entry, RecordedAttachment, Stage};
use bpf::limits::{Burst, Departures, Limits, Rate, Traffic};
use bpf::state::ThrottleState;
use bpf::throttle::Loaded;
use bpf::throttle::Parts as Programs;
use kernel::AttachType;
use kernel::boundary::{Cgroups as _, Host as _, Programs as _};
use kernel::error::{Call, Error};
use kernel::list::{AttachFlags, Scope};
use nix::errno::Errno;
use sim::{Model, ModelCgroup, ModelProgram, World};
use throttle_core::ledger::LedgerDir;
use throttle_core::settle::settle;

use super::Bug;
use super::descriptors::Descriptors;
use crate::sequences::faulty::{Control, Faulty, FaultyFiles};
use crate::sequences::in_model::Process;
use crate::sequences::system::{Claim, Counted, Handle, Rates, Request, Whom};

/// A running historical throttle.
pub struct Backend {
    bug: Option<Bug>,
    kernel: Model,
    calls: Faulty<Model>,
    control: Rc<Control>,
    ledger: LedgerDir,
    owner: Owner,
    descriptors: Descriptors,
    throttles: BTreeMap<Handle, Throttle>,
}

struct Throttle {
    pid: Option<u32>,
    cgroup: usize,
    programs: Rc<Loaded<ModelProgram>>,
    rates: Rates,
    /// The attach types of its programs.
    attached: Vec<AttachType>,
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl Backend {
    /// Starts the throttle and removes what dead owners have recorded.
    pub(super) fn start(at: &Process, bug: Option<Bug>) -> Result<Self, String> {
        let files = FaultyFiles::new(Rc::clone(&at.setting.files), Rc::clone(&at.control));
        let ledger = LedgerDir::on(Rc::new(files), &at.setting.ledger);
        let calls = Faulty::new(at.kernel.clone(), Rc::clone(&at.control));
        settle(&calls, &ledger, &at.setting.owner.boot_id).map_err(said)?;
        Ok(Self {
            bug,
            kernel: at.kernel.clone(),
            calls,
            control: Rc::clone(&at.control),
            ledger,
            owner: at.setting.owner.clone(),
            descriptors: Descriptors::default(),
            throttles: BTreeMap::new(),
        })
    }

    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    pub(super) fn add(&mut self, request: &Request) -> Result<(), String> {
        let (path, pid) = match &request.whom {
            Whom::Cgroup(path) => (path.clone(), None),
            Whom::Process(pid) => {
                let path = self.kernel.cgroup_of(*pid).ok_or("no such process")?;
                (path, Some(*pid))
            }
        };
        let cgroup = self.calls.open_cgroup(&path).map_err(said)?;
        let id = self.calls.cgroup_id(&cgroup);
        let programs = Rc::new(self.calls.load(&self.owner, 0, Programs::default()).map_err(said)?);
        let entry = self.entry(request, &programs, path, id);
        if !self.has(Bug::RecordLate) {
            self.record(&entry)?;
        }
        let mut throttle = Throttle {
            pid,
            cgroup: self.descriptors.open(cgroup),
            programs,
            rates: request.rates.clone(),
            attached: Vec::new(),
        };
        let attached = self.attach_all(&mut throttle);
        let cgroup = throttle.cgroup;
        self.throttles.insert(request.handle, throttle);
        let done = attached.and_then(|()| match self.bug {
            Some(Bug::RecordLate) => self.record(&entry),
            _ => Ok(()),
        });
        if let Err(error) = done {
            self.remove(request.handle)?;
            return Err(error);
        }
        if self.has(Bug::StaleDescriptor) {
            self.descriptors.close(cgroup);
        }
        Ok(())
    }

    fn entry(
        &self,
        request: &Request,
        programs: &Loaded<ModelProgram>,
        path: std::path::PathBuf,
        cgroup_id: kernel::CgroupId,
    ) -> Entry {
        let recorded = |&attach_type: &AttachType| {
            let identity = self.calls.identity(programs.program(attach_type));
            RecordedAttachment {
                attach_type,
                program_id: identity.id,
                tag: identity.tag,
                loaded_at_ns: identity.loaded_at_ns,
                link_id: None,
                pin: None,
                limits: None,
                former_cgroup: None,
            }
        };
        Entry {
            schema_version: ledger::SCHEMA_VERSION,
            throttle: request.handle.to_string(),
            owner: self.owner.clone(),
            stage: Stage::Intent,
            persist: false,
            cgroup_path: path,
            cgroup_id,
            attachments: request.rates.keys().map(recorded).collect(),
            waiting: false,
            cgroup_namespace: 0,
            cgroup_top: None,
            displace: false,
        }
    }

    fn record(&self, entry: &Entry) -> Result<(), String> {
        let lock = self.ledger.lock().map_err(said)?;
        self.ledger.write(&lock, entry).map_err(said)
    }

    fn attach_all(&self, throttle: &mut Throttle) -> Result<(), String> {
        for (&attach_type, &rate) in &throttle.rates.clone() {
            let cgroup = self.descriptors.get(throttle.cgroup)?;
            let program = throttle.programs.program(attach_type);
            self.calls
                .attach(program, cgroup, attach_type, AttachFlags::MULTI, None)
                .map_err(said)?;
            throttle.attached.push(attach_type);
            self.set(&throttle.programs, cgroup, attach_type, rate)?;
        }
        Ok(())
    }

    /// Sets a rate. 0 means none.
    fn set(
        &self,
        programs: &Loaded<ModelProgram>,
        cgroup: &ModelCgroup,
        attach_type: AttachType,
        rate: u64,
    ) -> Result<(), String> {
        let state = match Rate::from_bytes_per_second(rate) {
            Ok(rate) => {
                let limits = Limits {
                    rate,
                    burst: Burst::DEFAULT,
                    traffic: Traffic::All,
                    departures: Departures::Never,
                };
                ThrottleState::armed(&limits, self.calls.now_ns())
            }
            Err(_) => ThrottleState::disarmed(),
        };
        let mut places = vec![(programs.program(attach_type), self.calls.cgroup_id(cgroup))];
        if self.has(Bug::OneBucket) {
            for other in self.throttles.values() {
                if let Ok(cgroup) = self.descriptors.get(other.cgroup) {
                    places
                        .push((other.programs.program(attach_type), self.calls.cgroup_id(cgroup)));
                }
            }
        }
        for (at, (program, cgroup)) in places.into_iter().enumerate() {
            let set = self.calls.set_state(program, cgroup, attach_type, &state);
            if at == 0 {
                set.map_err(said)?;
            }
        }
        Ok(())
    }

    pub(super) fn change(&mut self, handle: Handle, rates: &Rates) -> Result<(), String> {
        let mut throttle = self.throttles.remove(&handle).ok_or("no such throttle")?;
        throttle.rates.extend(rates.clone());
        let changed = if self.has(Bug::AttachOnChange) {
            self.calls.load(&self.owner, 0, Programs::default()).map_err(said).and_then(
                |programs| {
                    throttle.programs = Rc::new(programs);
                    throttle.attached.clear();
                    self.attach_all(&mut throttle)
                },
            )
        } else {
            rates.iter().try_for_each(|(&attach_type, &rate)| {
                let cgroup = self.descriptors.get(throttle.cgroup)?;
                self.set(&throttle.programs, cgroup, attach_type, rate)
            })
        };
        self.throttles.insert(handle, throttle);
        changed
    }

    pub(super) fn remove(&mut self, handle: Handle) -> Result<(), String> {
        let mut throttle = self.throttles.remove(&handle).ok_or("no such throttle")?;
        let mut errors = Vec::new();
        let mut left = Vec::new();
        for attach_type in std::mem::take(&mut throttle.attached) {
            if let Err(error) = self.detach(&throttle, attach_type) {
                errors.push(error);
                left.push(attach_type);
            }
            if self.has(Bug::OneDirection) {
                break;
            }
        }
        if errors.is_empty() || self.has(Bug::ForgetOnError) {
            let path = self.ledger.path(&handle.to_string());
            errors.extend(self.ledger.remove(&path).map_err(said).err());
        }
        if errors.is_empty() || self.has(Bug::ForgetOnError) {
            self.descriptors.close(throttle.cgroup);
        } else {
            throttle.attached = left;
            self.throttles.insert(handle, throttle);
        }
        if errors.is_empty() { Ok(()) } else { Err(errors.join("; and ")) }
    }

    fn detach(&self, throttle: &Throttle, attach_type: AttachType) -> Result<(), String> {
        let looked_up;
        let cgroup = match throttle.pid.filter(|_| self.has(Bug::LookUpAgain)) {
            Some(pid) => {
                // The process or its cgroup has gone, so there is nothing to do.
                let Some(path) = self.kernel.cgroup_of(pid) else { return Ok(()) };
                looked_up = self.calls.open_cgroup(&path).map_err(said)?;
                &looked_up
            }
            None => self.descriptors.get(throttle.cgroup)?,
        };
        let program = throttle.programs.program(attach_type);
        let id = self.calls.identity(program).id;
        let is_there = || match self.calls.query(cgroup, attach_type, Scope::Local) {
            Ok(list) => Ok(list.count(id) > 0),
            Err(error) if error.errno() == Errno::ENOENT => Ok(false),
            Err(error) => Err(said(error)),
        };
        if self.has(Bug::BlindDetach) || is_there()? {
            let program = (!self.has(Bug::NoProgram)).then_some(program);
            let with_flags = self.has(Bug::DetachFlags);
            let flags = if with_flags { AttachFlags::MULTI } else { AttachFlags::empty() };
            let detached = self.control.call(
                || self.kernel.detach_with(program, cgroup, attach_type, flags, None),
                |errno| Err(Error::new(Call::Detach, "what the gate lets fail", errno)),
            );
            match detached {
                _ if self.has(Bug::ErrorIsSuccess) => return Ok(()),
                Err(error) if error.errno() != Errno::ENOENT => return Err(said(error)),
                _ => {}
            }
        }
        if is_there()? { Err("it is still attached".to_owned()) } else { Ok(()) }
    }

    pub(super) fn claims(&self) -> Vec<Claim> {
        let claim =
            |&handle: &Handle| Claim { handle, rates: Rates::new(), counters: Counted::new() };
        self.throttles.keys().map(claim).collect()
    }

    pub(super) fn shut_down(&mut self) -> Result<(), String> {
        let mut errors = Vec::new();
        for handle in self.throttles.keys().copied().collect::<Vec<_>>() {
            errors.extend(self.remove(handle).err());
            if self.has(Bug::ShutDownStops) && !errors.is_empty() {
                break;
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(errors.join("; and ")) }
    }
}
