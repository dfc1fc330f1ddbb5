//! Takes the steps of owners and checks the results that they report.

use std::collections::BTreeSet;
use std::path::PathBuf;

use kernel::AttachType;
use sim::World;

use super::{Checked, Property, Trial, Violation, nth};
use crate::sequences::census::Surveyed;
use crate::sequences::expected::{Ownership, Part};
use crate::sequences::step::{Fault, How, Target, Way, Ways};
use crate::sequences::system::{Handle, Outcome, Parts, Rates, Recorded, Request, System, Whom};

fn lied(what: String) -> Violation {
    Violation::new(Property::AnswersAreTrue, what)
}

impl<W: Surveyed, S: System> Trial<W, S> {
    /// Returns the fault that a step may have. It allows none if a record of the owner was overwritten, because the
    /// fate of that throttle would depend on the progress of the operation.
    fn allowed(&self, owner: usize, fault: Option<Fault>) -> Option<Fault> {
        let torn = |handle: &Handle| self.expected.throttle(*handle).is_some_and(|it| it.torn);
        fault.filter(|_| !self.expected.held_by(owner).iter().any(torn))
    }

    fn note_fault<T>(&mut self, outcome: &Outcome<T>) {
        match outcome {
            Outcome::Died => self.tally.crashes += 1,
            _ if self.system.fault_struck() => self.tally.faults += 1,
            _ => {}
        }
    }

    fn new_rates(&mut self, ways: impl IntoIterator<Item = Way>) -> Rates {
        let mut rate = || {
            self.last_rate += 1;
            self.last_rate
        };
        ways.into_iter().map(|way| (way.attach_type(), rate())).collect()
    }

    pub(super) fn start(&mut self, owner: u8, fault: Option<Fault>) -> Checked<bool> {
        let owner = usize::from(owner) % 2;
        if self.running[owner] {
            return Ok(false);
        }
        if self.settle(owner, fault)? {
            self.running[owner] = true;
        }
        Ok(true)
    }

    /// Starts an owner and checks what the start has settled. Returns whether the owner runs.
    fn settle(&mut self, owner: usize, fault: Option<Fault>) -> Checked<bool> {
        let outcome = self.system.start(owner, fault);
        self.note_fault(&outcome);
        let struck = self.system.fault_struck();
        if let Outcome::Failed(why) = &outcome
            && !struck
        {
            return Err(lied(format!("owner {owner} does not start: {why}")));
        }
        let settles = matches!(outcome, Outcome::Done(())) && !struck;
        let orphaned = self.expected.ownership(Ownership::Orphaned);
        self.resolve(&orphaned)?;
        for handle in orphaned {
            self.judge_adrift(handle, settles)?;
        }
        Ok(matches!(outcome, Outcome::Done(())))
    }

    /// Checks an orphaned throttle after a start. If the start could settle, the throttle is gone or recorded to stay.
    fn judge_adrift(&mut self, handle: Handle, settled: bool) -> Checked {
        let Some(throttle) = self.expected.throttle(handle) else { return Ok(()) };
        let left = self.attached_parts(throttle);
        if left.is_empty() {
            if settled {
                self.expected.remove(handle);
            }
            return Ok(());
        }
        let is_recorded =
            |it: &Recorded| self.handle_of(&it.cgroup, it.cgroup_id, &it.programs) == Some(handle);
        if self.system.recorded().iter().any(is_recorded) {
            self.set_ownership(handle, Ownership::Released);
        } else if settled {
            return Err(Violation::new(
                Property::NothingUnaccounted,
                format!(
                    "throttle {handle} of a dead owner is still attached after a start: {left:?}"
                ),
            ));
        }
        Ok(())
    }

    fn set_ownership(&mut self, handle: Handle, ownership: Ownership) {
        if let Some(throttle) = self.expected.throttle_mut(handle) {
            throttle.ownership = ownership;
        }
    }

    fn runs(&self, owner: u8) -> Option<usize> {
        let owner = usize::from(owner) % 2;
        self.running[owner].then_some(owner)
    }

    /// Returns the target as the system names it, and its cgroup.
    fn resolve_target(&self, target: Target) -> Option<(Whom, PathBuf)> {
        match target {
            Target::Cgroup(place) => {
                let path = place.below(&self.top);
                Some((Whom::Cgroup(path.clone()), path))
            }
            Target::Process(which) => {
                let (real, model) = &self.processes[nth(&self.processes, which)?];
                let pid = self.expected.model.pid(model);
                let path = self.expected.model.cgroup_of(pid)?;
                Some((Whom::Process(self.world.pid(real)), path))
            }
        }
    }

    pub(super) fn add(
        &mut self,
        owner: u8,
        target: Target,
        ways: Ways,
        how: How,
        fault: Option<Fault>,
    ) -> Checked<bool> {
        let Some(owner) = self.runs(owner) else { return Ok(false) };
        let Some((whom, path)) = self.resolve_target(target) else { return Ok(false) };
        let fault = self.allowed(owner, fault);
        let has_its_own = self.system.is_a_process_for_each_throttle();
        if has_its_own && !self.expected.ownership(Ownership::Orphaned).is_empty() {
            // The start of this process would settle first. A separate start keeps the results of settling and adding
            // apart.
            self.settle(owner, None)?;
        }
        self.last_handle += 1;
        let handle = self.last_handle;
        let rates = self.new_rates(Way::BOTH.into_iter().filter(|way| ways.has(*way)));
        let mut parts: Parts = rates.iter().map(|(&at, &rate)| (at, Some(rate))).collect();
        if self.system.shapes_tcp() {
            parts.insert(AttachType::SOCK_OPS, None);
        }
        let request = Request { handle, whom, rates, how };

        let keeps = self.system.refuses_to_displace();
        let allowed = self.expected.add(owner, handle, &path, &parts, how, keeps);
        let outcome = self.system.add(owner, &request, fault);
        self.note_fault(&outcome);
        let half_way = matches!(outcome, Outcome::Died)
            || matches!(outcome, Outcome::Failed(_)) && self.system.fault_struck();
        if half_way && allowed.is_err() {
            // The operation may have attached the programs that the kernel allows.
            self.expected.add_what_can_be(owner, handle, &path, &parts, how);
        }
        match (outcome, allowed) {
            (Outcome::Failed(_), _) if half_way => self.after_failure(owner, &[handle])?,
            (Outcome::Died, _) => self.after_death(owner, &[handle])?,
            (Outcome::Done(()), Ok(())) if has_its_own && how == How::Pinned => {
                self.set_ownership(handle, Ownership::Released);
            }
            (Outcome::Done(()), Ok(())) | (Outcome::Failed(_), Err(_)) => {}
            (Outcome::Done(()), Err(error)) => {
                let what = format!("throttle {handle} was added, where the kernel says: {error}");
                return Err(lied(what));
            }
            (Outcome::Failed(why), Ok(())) => {
                return Err(lied(format!("throttle {handle} was refused for no reason: {why}")));
            }
        }
        Ok(true)
    }

    /// Handles a failed operation on these throttles. Those that the owner still lists may be incomplete. The others
    /// must be gone.
    fn after_failure(&mut self, owner: usize, handles: &[Handle]) -> Checked {
        let claimed: BTreeSet<_> =
            self.system.claims(owner).into_iter().map(|claim| claim.handle).collect();
        let (kept, gone): (Vec<_>, Vec<_>) =
            handles.iter().copied().partition(|handle| claimed.contains(handle));
        for handle in gone {
            self.expected.remove(handle);
        }
        self.mark_as_being_removed(&kept);
        self.resolve(&kept)
    }

    fn mark_as_being_removed(&mut self, handles: &[Handle]) {
        for handle in handles {
            if let Some(throttle) = self.expected.throttle_mut(*handle) {
                throttle.removing = true;
            }
        }
    }

    fn after_death(&mut self, owner: usize, in_work: &[Handle]) -> Checked {
        self.running[owner] = false;
        // If an earlier removal of a throttle failed, its pin may be gone.
        let held = self.expected.held_by(owner);
        let removing =
            |handle: &Handle| self.expected.throttle(*handle).is_some_and(|it| it.removing);
        let mut uncertain: Vec<_> = held.into_iter().filter(removing).collect();
        uncertain.extend(in_work);
        self.expected.owner_died(owner, in_work);
        self.resolve(&uncertain)
    }

    fn pick(&self, owner: u8, throttle: u8) -> Option<(usize, Handle)> {
        let owner = self.runs(owner)?;
        let held = self.expected.held_by(owner);
        Some((owner, held[nth(&held, throttle)?]))
    }

    pub(super) fn change(
        &mut self,
        owner: u8,
        throttle: u8,
        fault: Option<Fault>,
    ) -> Checked<bool> {
        let Some((owner, handle)) = self.pick(owner, throttle) else { return Ok(false) };
        let fault = self.allowed(owner, fault);
        let Some(throttle) = self.expected.throttle(handle) else { return Ok(false) };
        // A removal that failed half way has ended some directions, which cannot be changed any more.
        let is_there = |part: &&Part| !throttle.removing || self.is_attached(part);
        let types: Vec<_> =
            throttle.parts.iter().filter(is_there).map(|part| part.attach_type).collect();
        let ways: Vec<_> =
            Way::BOTH.into_iter().filter(|way| types.contains(&way.attach_type())).collect();
        if ways.is_empty() {
            return Ok(false);
        }
        let cgroup_is_gone = throttle.parts.iter().any(|part| !self.expected.is_online(part));
        let rates = self.new_rates(ways);
        let outcome = self.system.change(owner, handle, &rates, fault);
        self.note_fault(&outcome);
        if let Some(throttle) = self.expected.throttle_mut(handle) {
            for part in &mut throttle.parts {
                if let Outcome::Done(()) = outcome {
                    part.rates.clear();
                }
                part.rates.extend(rates.get(&part.attach_type));
            }
        }
        match outcome {
            Outcome::Failed(why) if !self.system.fault_struck() && !cgroup_is_gone => {
                Err(lied(format!("throttle {handle} cannot be changed: {why}")))
            }
            Outcome::Died => self.after_death(owner, &[]).map(|()| true),
            _ => Ok(true),
        }
    }

    pub(super) fn remove(
        &mut self,
        owner: u8,
        throttle: u8,
        fault: Option<Fault>,
    ) -> Checked<bool> {
        let Some((owner, handle)) = self.pick(owner, throttle) else { return Ok(false) };
        let fault = self.allowed(owner, fault);
        let outcome = self.system.remove(owner, handle, fault);
        self.note_fault(&outcome);
        match outcome {
            Outcome::Done(counted) => {
                self.check_lost()?;
                self.check_final(handle, &counted)?;
                self.expected.remove(handle);
            }
            Outcome::Failed(why) if !self.system.fault_struck() => {
                return Err(lied(format!("throttle {handle} cannot be removed: {why}")));
            }
            Outcome::Failed(_) => self.after_failure(owner, &[handle])?,
            Outcome::Died => self.after_death(owner, &[handle])?,
        }
        Ok(true)
    }

    pub(super) fn shut_down(&mut self, owner: u8, fault: Option<Fault>) -> Checked<bool> {
        let Some(owner) = self.runs(owner) else { return Ok(false) };
        let fault = self.allowed(owner, fault);
        let held = self.expected.held_by(owner);
        let outcome = self.system.shut_down(owner, fault);
        self.note_fault(&outcome);
        match outcome {
            Outcome::Done(open) => {
                self.running[owner] = false;
                self.check_lost()?;
                for handle in held {
                    self.expected.remove(handle);
                }
                if open > 0 {
                    let what = format!("owner {owner} shut down with {open} files open");
                    return Err(Violation::new(Property::NothingLeft, what));
                }
            }
            Outcome::Failed(why) if !self.system.fault_struck() => {
                return Err(lied(format!("owner {owner} cannot shut down: {why}")));
            }
            Outcome::Failed(why) => {
                self.after_failure(owner, &held)?;
                let left = self.expected.held_by(owner);
                if left.len() > 1 {
                    let what = format!("one call failed, and {left:?} were not removed: {why}");
                    return Err(Violation::new(Property::OneFailureIsOne, what));
                }
            }
            Outcome::Died => self.after_death(owner, &held)?,
        }
        Ok(true)
    }

    pub(super) fn kill(&mut self, owner: u8) -> Checked<bool> {
        let Some(owner) = self.runs(owner) else { return Ok(false) };
        self.tally.crashes += 1;
        self.system.kill(owner);
        self.after_death(owner, &[])?;
        Ok(true)
    }

    pub(super) fn remove_pinned(&mut self, which: u8, fault: Option<Fault>) -> Checked<bool> {
        let recorded = self.system.recorded();
        let Some(at) = nth(&recorded, which) else { return Ok(false) };
        let record = &recorded[at];
        let handle = self.handle_of(&record.cgroup, record.cgroup_id, &record.programs);
        let outcome = self.system.remove_recorded(&record.name, fault);
        self.note_fault(&outcome);
        let struck = self.system.fault_struck();
        if let Outcome::Failed(why) = &outcome
            && !struck
        {
            return Err(lied(format!("pinned throttle {} cannot be removed: {why}", record.name)));
        }
        let Some(handle) = handle else { return Ok(true) };
        let held = self
            .expected
            .throttle(handle)
            .is_some_and(|it| matches!(it.ownership, Ownership::Held(_)));
        match outcome {
            // The owner still lists the throttle, although somebody else removed it.
            Outcome::Done(()) if held => self.expected.detach_all(handle),
            Outcome::Done(()) => self.expected.remove(handle),
            _ => {
                if held {
                    self.mark_as_being_removed(&[handle]);
                } else {
                    self.set_ownership(handle, Ownership::Orphaned);
                }
                self.resolve(&[handle])?;
            }
        }
        Ok(true)
    }
}
