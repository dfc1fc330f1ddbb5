//! Arming a pinned throttle again, from its ledger entry, on the cgroup that now has its path.

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

/// A throttle with a ledger entry, which it keeps whatever happens.
pub(super) struct Recorded {
    /// The lock, so that nobody else changes the ledger.
    pub(super) lock: Locked,
    /// The entry before the change.
    pub(super) before: Entry,
    /// The entry's attachments, marked as those of a former cgroup.
    pub(super) former: Vec<RecordedAttachment>,
}

impl<B: CgroupBpf> Engine<B> {
    /// Arms a pinned throttle on the cgroup that now has its path, with the limits from its ledger entry. Returns
    /// `None` if the throttle is already armed there.
    ///
    /// The path must lead through the same mount as before; the cgroup at the mount's top decides. Attachments to the
    /// removed cgroup stay while sockets made in it are open.
    ///
    /// The old attachments go only after the new ones are armed. If arming fails, everything is as before. If the
    /// process dies half way, the throttle can be armed again. [`Rearmed::forgotten`] reports old attachments that
    /// could not be removed. [`Engine::release`] then gives up the throttle.
    ///
    /// # Errors
    /// When:
    /// - no pinned throttle has this name;
    /// - its entry has no limits, because an older version wrote it;
    /// - its entry comes from another cgroup or pid namespace, such as a container's;
    /// - the path leads through another mount, or an older version did not record the mount;
    /// - no cgroup has the path (`Vanished`). The throttle then goes on waiting.
    ///
    /// Otherwise those of [`Engine::add`].
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
        // A path is valid only in the namespaces where it was written. Here it may name any cgroup.
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
        // A process died while it armed the throttle, if the throttle waits on the same cgroup.
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
            // This process could not remove the pin.
            return Err(pin_out_of_sight(&before, recorded));
        }
        // The id pins down the cgroup that was checked above.
        let spec = Spec { cgroup_id: Some(cgroup_id), ..spec };
        let started = self
            .add_as(&spec, Some(Recorded { lock, before, former }))
            .map_err(|error| error.of_record(name))?;
        let forgotten = self.forget_former_of(name, started.id);
        Ok(Some(Rearmed { started, forgotten }))
    }

    /// Removes a throttle's former attachments after it was armed again.
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

    /// Undoes the attaching for an entry, and restores the entry as it was before.
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

/// Removes a throttle's former attachments, including those that sockets of a removed cgroup keep.
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

/// Rebuilds the spec from a ledger entry. Returns `None` if the entry has no limits.
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
        // Any cgroup that has the path now.
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
