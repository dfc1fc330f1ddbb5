//! Arming a pinned throttle again, from its record, on the cgroup that has its path now.

use std::collections::BTreeMap;

use bpf::ledger::{Entry, RecordedAttachment};
use bpf::limits::{FqDevices, Limits};
use bpf::{AttachType, CgroupBpf};

use super::Engine;
use crate::error::{Error, Result};
use crate::ledger::Locked;
use crate::mode::{TcpWish, Wish};
use crate::settle::{find_recorded, lingers, remove_pinned};
use crate::spec::{Direction, Spec};
use crate::status::{Started, ThrottleId};

/// A throttle that has a record already, and stays recorded whatever happens.
pub(super) struct Recorded {
    /// Nobody else changes the ledger.
    pub(super) lock: Locked,
    /// The record as it was found.
    pub(super) before: Entry,
    /// Of it what is still attached to cgroups that had the path before.
    pub(super) former: Vec<RecordedAttachment>,
}

impl<B: CgroupBpf> Engine<B> {
    /// Arms a pinned throttle on the cgroup that has its path now, with the limits of its record. `None`: it is armed
    /// there already. [`Engine::release`] lets go of it.
    ///
    /// What is attached to a removed cgroup stays while sockets that were made there are open. The record is never
    /// lost: if this fails, or the process dies half way, the throttle can be armed again.
    ///
    /// # Errors
    /// When there is no pinned throttle of that name, or its record has no limits (an older version wrote it) or is of another cgroup or pid namespace (a container's), or there
    /// is no cgroup at the path (`Vanished`): then it goes on waiting. Otherwise as [`Engine::add`].
    pub fn rearm(&mut self, name: &str) -> Result<Option<Started>> {
        let none = || Error::NoSuchRecord(name.to_owned());
        if !self.config.ledger.exists() {
            return Err(none());
        }
        let lock = self.config.ledger.lock()?;
        let boot = &self.config.owner.boot_id;
        let (_, before) = find_recorded(&self.config.ledger, name, boot)?.ok_or_else(none)?;
        if !before.is_kept() {
            return Err(none());
        }
        // A path is of the namespaces that it was written in: here it may be that of any cgroup.
        let is_elsewhere = before.cgroup_namespace != self.config.cgroup_namespace
            || before.owner.pid_namespace != self.config.owner.pid_namespace;
        if is_elsewhere {
            return Err(Error::Elsewhere(name.to_owned()));
        }
        let spec = spec_of(&before).ok_or_else(|| Error::NoLimits(name.to_owned()))?;
        let cgroup = self.kernel.open_cgroup(&spec.cgroup)?;
        let is_same = self.kernel.cgroup_id(&cgroup) == before.cgroup_id;
        let mut former = Vec::new();
        let mut is_whole = is_same;
        for recorded in &before.attachments {
            let is_attached = lingers(&self.kernel, recorded)?;
            is_whole &= is_attached || recorded.former_cgroup.is_some();
            if is_attached && (!is_same || recorded.former_cgroup.is_some()) {
                let cgroup = recorded.former_cgroup.unwrap_or(before.cgroup_id);
                former.push(RecordedAttachment { former_cgroup: Some(cgroup), ..recorded.clone() });
            }
        }
        if is_whole {
            return Ok(None);
        }
        for recorded in &before.attachments {
            if let Some(pin) = &recorded.pin
                && !former.iter().any(|kept| kept.pin.as_ref() == Some(pin))
            {
                remove_pinned(&self.kernel, false, recorded, pin)?;
            }
        }
        self.add_as(&spec, Some(Recorded { lock, before, former })).map(Some)
    }

    /// Takes back what was attached for a record, which becomes what it was.
    pub(super) fn take_back(
        &mut self,
        id: ThrottleId,
        before: &Entry,
        lock: &Locked,
    ) -> Result<()> {
        let written = self.config.ledger.write(lock, before);
        if let Some(throttle) = self.throttles.get_mut(&id) {
            throttle.entry = None;
        }
        let removed = self.remove(id).map(drop);
        Error::collect([written, removed].into_iter().filter_map(Result::err).collect())
    }
}

/// What somebody asked for when the throttle was made. `None` where the record does not say.
fn spec_of(entry: &Entry) -> Option<Spec> {
    let own = entry.attachments.iter().filter(|recorded| recorded.former_cgroup.is_none());
    let limits: BTreeMap<Direction, Limits> = own
        .clone()
        .filter_map(|it| Some((Direction::of(it.attach_type)?, it.limits.as_ref()?.limits())))
        .collect();
    let any = limits.values().next()?;
    let of = |direction| limits.get(&direction);
    let shapes_tcp = own.clone().any(|recorded| recorded.attach_type == AttachType::SOCK_OPS);
    let departures = of(Direction::Upload).and_then(|limits| limits.departures.devices());
    Some(Spec {
        cgroup: entry.cgroup_path.clone(),
        // Whichever has the path now.
        cgroup_id: None,
        download: of(Direction::Download).map(|limits| limits.rate),
        upload: of(Direction::Upload).map(|limits| limits.rate),
        burst: any.burst,
        traffic: any.traffic,
        attach: Wish::Pinned,
        tcp: if shapes_tcp { TcpWish::Auto } else { TcpWish::Police },
        departures: departures.unwrap_or(FqDevices::NONE),
        queue: false,
        // What was allowed then may harm somebody else now.
        displace: false,
    })
}
