//! Whose a throttle's program is: by the process that owns it. Others may have throttles on this host, of the same names,
//! that come and go meanwhile.

use std::collections::BTreeSet;
use std::process::Child;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bpf::Result;
use bpf::error::Kind;
use bpf::objects;
use bpf::program::Program;
use bpf::{MapId, ProgramId};

static STARTED: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

fn started() -> MutexGuard<'static, BTreeSet<u32>> {
    STARTED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes that this process has started one that may own throttles, which count from now on, also when it has ended.
pub fn note(child: &Child) {
    started().insert(child.id());
}

/// The programs on this host that are called as those of throttles are, by whose they are.
#[derive(Debug, Default)]
pub struct Throttles {
    /// Loaded by a process that this one has started.
    pub ours: Vec<ProgramId>,
    /// Maps of others' programs.
    pub others_maps: BTreeSet<MapId>,
}

impl Throttles {
    /// Asks the kernel for all.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn find() -> Result<Self> {
        let mut found = Self::default();
        for id in objects::program_ids()? {
            match Program::open(id) {
                Ok(program) => found.judge(&program)?,
                Err(error) if error.kind() == Kind::Vanished => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    fn judge(&mut self, program: &Program) -> Result<()> {
        let info = program.info();
        if !info.name.starts_with("chadthrottle") {
            return Ok(());
        }
        // A throttle names its owner. (What names none was planted by a test, of this run or another.)
        if program.owner()?.is_some_and(|owner| started().contains(&owner.pid)) {
            self.ours.push(info.id);
        } else {
            self.others_maps.extend(&info.map_ids);
        }
        Ok(())
    }
}
