//! Arming a pinned throttle again, from its record, on the cgroup that has its path now.

use std::collections::BTreeMap;

use bpf::CgroupBpf;
use bpf::ledger::{Entry, RecordedAttachment};
use bpf::limits::{FqDevices, Limits};
use kernel::AttachType;

use super::Engine;
use crate::error::{Error, Result};
use crate::id::ThrottleId;
use crate::ledger::Locked;
use crate::mode::{TcpWish, Wish};
use crate::settle::{
    find_recorded, forget_former, is_attached_out_of_sight, lingers, link_out_of_sight,
    pin_out_of_sight, remove_pinned,
};
use crate::spec::{Direction, Spec};
use crate::status::Rearmed;

/// A throttle that has a record already, and stays recorded whatever happens.
pub(super) struct Recorded {
    /// Nobody else changes the ledger.
    pub(super) lock: Locked,
    /// The record as it was found.
    pub(super) before: Entry,
    /// What it has attached, as that of a cgroup that had the path before.
    pub(super) former: Vec<RecordedAttachment>,
}

impl<B: CgroupBpf> Engine<B> {
    /// Arms a pinned throttle on the cgroup that has its path now, with the limits of its record. `None`: it is armed
    /// there already. [`Engine::release`] lets go of it.
    ///
    /// The path must lead through the mount that it led through when the throttle was made, as far as the cgroup at the
    /// mount's top tells. What is attached to a removed cgroup stays while sockets that were made there are open.
    ///
    /// Nothing of the old throttle goes before the new one is armed: if that fails, all is as before, and if the process
    /// dies half way, the throttle can be armed again. What cannot be let go of after that is told beside it.
    ///
    /// # Errors
    /// When there is no pinned throttle of that name, or its record has no limits (an older version wrote it) or is of
    /// another cgroup or pid namespace (a container's), or the path leads through another mount or an older version has
    /// not written through which, or there is no cgroup at the path (`Vanished`): then it goes on waiting. Otherwise as
    /// [`Engine::add`].
    pub fn rearm(&mut self, name: &str) -> Result<Option<Rearmed>> {
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
        let cgroup_id = self.kernel.cgroup_id(&cgroup);
        let is_same = cgroup_id == before.cgroup_id;
        let found = self.kernel.cgroup_top(&cgroup);
        if !is_same && (found.is_none() || found != before.cgroup_top) {
            let (path, recorded) = (spec.cgroup, before.cgroup_top);
            return Err(Error::AnotherTop { name: name.to_owned(), path, recorded, found });
        }
        // One that waits on the same cgroup was left by a process that died while it armed it.
        let mut is_whole = is_same && !before.waiting;
        let (mut former, mut out_of_sight) = (Vec::new(), None);
        for recorded in &before.attachments {
            let link = link_out_of_sight(&self.kernel, recorded)?;
            if link.is_some() {
                out_of_sight = out_of_sight.or(Some(recorded));
            }
            is_whole &= recorded.former_cgroup.is_some()
                || link.is_some_and(|link| link.cgroup_id == Some(before.cgroup_id))
                || lingers(&self.kernel, recorded)?;
            let cgroup = recorded.former_cgroup.unwrap_or(before.cgroup_id);
            former.push(RecordedAttachment { former_cgroup: Some(cgroup), ..recorded.clone() });
        }
        if is_whole {
            return Ok(None);
        }
        if let Some(recorded) = out_of_sight {
            // It could not be let go of.
            return Err(pin_out_of_sight(&before, recorded));
        }
        // The one that was looked at.
        let spec = Spec { cgroup_id: Some(cgroup_id), ..spec };
        let started = self
            .add_as(&spec, Some(Recorded { lock, before, former }))
            .map_err(|error| error.of_record(name))?;
        let forgotten = self.forget_former_of(name, started.id);
        Ok(Some(Rearmed { started, forgotten }))
    }

    /// Lets go of what a throttle was before it was armed again.
    fn forget_former_of(&mut self, name: &str, id: ThrottleId) -> Result<()> {
        let ledger = &self.config.ledger;
        let lock = ledger.lock()?;
        if let Some((_, entry)) = find_recorded(ledger, name, &self.config.owner.boot_id)? {
            let kept = forget_former(&self.kernel, ledger, &lock, &entry)?;
            if let Some(throttle) = self.throttles.get_mut(&id) {
                throttle.entry = Some(kept);
            }
        }
        Ok(())
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

/// Removes what the throttle was before it was armed again, also what sockets of a removed cgroup keep.
pub(super) fn remove_former<B: CgroupBpf>(kernel: &B, entry: &Entry) -> Result<()> {
    let mut errors = Vec::new();
    for recorded in entry.attachments.iter().filter(|it| it.former_cgroup.is_some()) {
        let Some(pin) = &recorded.pin else { continue };
        let removed = is_attached_out_of_sight(kernel, recorded).and_then(|hidden| {
            if hidden {
                return Err(pin_out_of_sight(entry, recorded));
            }
            remove_pinned(kernel, false, recorded, pin)
        });
        errors.extend(removed.err());
    }
    Error::collect(errors)
}

/// Tells what somebody asked for when a recorded throttle was made. `None` where the record does not say.
pub fn spec_of(entry: &Entry) -> Option<Spec> {
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
        displace: entry.displace,
    })
}
