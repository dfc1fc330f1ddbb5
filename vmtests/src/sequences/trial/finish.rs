//! Ends a trial: takes everything down in order and checks that nothing is left.

use std::io;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use bpf::ledger::Entry;
use kernel::list::{AttachFlags, Scope};
use throttle_core::ledger::LedgerDir;

use super::ledger::is_junk;
use super::{Checked, Property, Tally, Trial, Violation};
use crate::sequences::census::Surveyed;
use crate::sequences::expected::Ownership;
use crate::sequences::step::{ATTACH_TYPES, Place};
use crate::sequences::system::System;

/// An independent observer that looks and cleans up. Its errors are its messages.
pub trait Witness<W: Surveyed> {
    /// Removes what nobody accounts for any more, below this cgroup.
    ///
    /// # Errors
    /// Fails if something could not be removed.
    fn clean(&mut self, world: &W, top: &Path) -> Result<(), String>;
    /// Confirms that nothing of ours is left below this cgroup.
    ///
    /// # Errors
    /// Returns what is left.
    fn confirm(&mut self, world: &W, top: &Path) -> Result<(), String>;
}

/// A careful person who uses only the kernel's calls.
#[derive(Debug, Clone, Copy)]
pub struct ByHand;

impl<W: Surveyed> Witness<W> for ByHand {
    fn clean(&mut self, world: &W, top: &Path) -> Result<(), String> {
        let said = |error: kernel::Error| error.to_string();
        for pin in world.census().map_err(said)?.pins {
            if let Ok(link) = world.link_open_pinned(Path::new(&pin)) {
                world.link_detach(&link).map_err(said)?;
                world.unpin(Path::new(&pin)).map_err(said)?;
            }
        }
        let ours = world.census().map_err(said)?.programs;
        for place in Place::ALL {
            let Ok(cgroup) = world.open_cgroup(&place.below(top)) else { continue };
            for attach_type in ATTACH_TYPES {
                let list = world.query(&cgroup, attach_type, Scope::Local).map_err(said)?;
                for id in list.programs.iter().map(|it| it.id).filter(|id| ours.contains(id)) {
                    let program = world.open_program(id).map_err(said)?;
                    let none = AttachFlags::empty();
                    world
                        .detach_with(Some(&program), &cgroup, attach_type, none, None)
                        .map_err(said)?;
                }
            }
        }
        Ok(())
    }

    fn confirm(&mut self, world: &W, _top: &Path) -> Result<(), String> {
        let census = world.census().map_err(|error| error.to_string())?;
        if census.is_empty() { Ok(()) } else { Err(format!("{census:?}")) }
    }
}

fn left(what: impl Into<String>) -> Violation {
    Violation::new(Property::NothingLeft, what)
}

impl<W: Surveyed, S: System> Trial<W, S> {
    /// Takes everything down. Living owners shut down, a new one starts and ends, pinned throttles are removed by name,
    /// and what was lost on purpose is cleaned up.
    ///
    /// After that only other people's programs may be left, where they were. Once their cgroups are gone, nothing is
    /// left.
    ///
    /// # Errors
    /// Returns the violated property.
    pub fn finish(mut self, witness: &mut impl Witness<W>) -> Checked<Tally> {
        for owner in 0..2 {
            self.shut_down(owner, None)?;
        }
        self.start(0, None)?;
        for _ in self.system.recorded() {
            self.remove_pinned(0, None)?;
        }
        self.shut_down(0, None)?;
        // An open socket keeps a removed cgroup alive, with the programs of that cgroup.
        self.processes.clear();
        self.sockets.clear();
        let lost = self.expected.ownership(Ownership::Lost);
        if !lost.is_empty() {
            // An operator learns which files are unreadable and removes them. Before that, no witness judges a program
            // that such a file may have recorded to stay.
            self.remove_junk()?;
            witness.clean(&self.world, &self.top).map_err(left)?;
            for handle in lost {
                self.expected.remove(handle);
            }
        }
        // A removed cgroup keeps its program, and so its record, for a while. So does a pinned throttle of the same
        // load. Each start tries again. No other record needs a second start.
        let deadline = Instant::now() + self.patience;
        loop {
            self.start(0, None)?;
            self.shut_down(0, None)?;
            self.check_records_left()?;
            match self.check_ledger() {
                Err(_) if Instant::now() < deadline => sleep(Duration::from_millis(2)),
                checked => break checked?,
            }
        }
        // These pinned throttles had a removed cgroup, or somebody else detached them.
        for handle in self.expected.ownership(Ownership::Released) {
            self.expected.remove(handle);
        }
        self.check(self.patience)?;
        self.confirm(witness)?;
        self.take_down_the_world()?;
        self.confirm(witness)?;
        Ok(self.tally)
    }

    fn confirm(&mut self, witness: &mut impl Witness<W>) -> Checked {
        // The kernel releases detached programs a little later.
        self.settle_to(|trial| {
            let census = trial.world.census().map_err(|error| left(error.to_string()))?;
            let census = census.without(&trial.before);
            if census.is_empty() { Ok(()) } else { Err(left(format!("{census:?}"))) }
        })?;
        witness.confirm(&self.world, &self.top).map_err(left)
    }

    /// Checks that the ledger has only the lock, the mark, and other people's files.
    fn check_ledger(&mut self) -> Checked {
        self.remove_junk()?;
        let Some((files, folder)) = self.system.ledger() else { return Ok(()) };
        let mut remaining = match files.list(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            listed => listed.map_err(|error| left(format!("{}: {error}", folder.display())))?,
        };
        let stays = ["lock", "mark"];
        remaining.retain(|path| !stays.iter().any(|name| path.ends_with(name)));
        if remaining.is_empty() {
            Ok(())
        } else {
            Err(left(format!("the ledger has {remaining:?}")))
        }
    }

    /// Checks that each record left belongs to a throttle whose cgroup is gone.
    fn check_records_left(&self) -> Checked {
        let Some((files, folder)) = self.system.ledger() else { return Ok(()) };
        let ledger =
            LedgerDir::on(files, folder).read().map_err(|error| left(error.to_string()))?;
        let is_there = |entry: &&Entry| {
            let cgroup = self.world.open_cgroup(&entry.cgroup_path);
            cgroup.is_ok_and(|cgroup| self.world.cgroup_id(&cgroup) == entry.cgroup_id)
        };
        match ledger.entries.iter().map(|(_, entry)| entry).find(is_there) {
            None => Ok(()),
            Some(entry) => Err(left(format!(
                "the record of throttle {} stays, whose cgroup is there: {}",
                entry.throttle,
                entry.cgroup_path.display()
            ))),
        }
    }

    /// Removes damaged and foreign files. A readable file that now has such a name is another one and stays.
    fn remove_junk(&mut self) -> Checked {
        let Some((files, _)) = self.system.ledger() else { return Ok(()) };
        for path in std::mem::take(&mut self.junk) {
            if files.read(&path).is_ok_and(|text| is_junk(&text)) {
                files.remove(&path).map_err(|error| left(error.to_string()))?;
            }
        }
        Ok(())
    }

    fn take_down_the_world(&mut self) -> Checked {
        while !self.foreign.is_empty() {
            self.others_detach(0)?;
        }
        for place in Place::ALL.into_iter().rev() {
            self.remove_cgroup(place)?;
        }
        self.settle_to(|trial| trial.check_everything_is_gone())
    }

    fn check_everything_is_gone(&self) -> Checked {
        let still = Place::ALL
            .into_iter()
            .find(|place| self.world.open_cgroup(&place.below(&self.top)).is_ok());
        still.map_or(Ok(()), |place| Err(left(format!("cgroup {place:?}"))))
    }
}
