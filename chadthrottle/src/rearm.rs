//! `chadthrottle rearm`: arms pinned throttles on the cgroups that have their paths now.

use anyhow::Result;
use auditor::exit::not_done;
use bpf::LinuxBpf;
use bpf::cgroup::cgroup2_mount;
use bpf::error::{Call, Kind};
use throttle_core::ledger::LedgerDir;
use throttle_core::{Engine, Error, Spec, Started, spec_of};

use crate::cli::RearmArgs;
use crate::limit::{config, config_to_settle, shown, tell_of_open_sockets};
use crate::others;
use crate::settled::tell_of_settlement;
use crate::words::{once, print, say};

pub(crate) fn run(args: &RearmArgs) -> Result<()> {
    let ledger = LedgerDir::new(bpf::ledger::DEFAULT_DIR);
    let boot = bpf::boot_id()?;
    let entries = ledger.read()?.entries.into_iter().map(|(_, entry)| entry);
    let recorded: Vec<_> = entries.filter(|it| it.is_kept() && it.owner.boot_id == boot).collect();
    let all = args.ids.is_empty();
    let ids: Vec<_> =
        if all { recorded.iter().map(|entry| &entry.throttle).collect() } else { once(&args.ids) };
    let arms = ids.iter().any(|id| recorded.iter().any(|entry| entry.throttle == **id));
    let config = if arms { config()? } else { config_to_settle()? };
    let (mut engine, settlement) = Engine::start(LinuxBpf::new()?, config)?;
    tell_of_settlement(&settlement);
    if !ids.is_empty() {
        // Without the hierarchy each cgroup would seem to be gone.
        cgroup2_mount()?;
    }
    let mut errors = Vec::new();
    let mut waits = false;
    for id in ids {
        let entry = recorded.iter().find(|entry| entry.throttle == *id);
        let path = entry.map_or_else(|| "its path".to_owned(), |it| shown(&it.cgroup_path));
        match engine.rearm(id) {
            Ok(Some(started)) => {
                started.notes.iter().for_each(|note| say(note));
                tell_of_others(&engine, entry.and_then(spec_of), &started);
                tell_of_open_sockets(&engine.adopt(started.id));
                engine.release(started.id)?;
                print(&format!("armed {id} again on {path}\n"))?;
            }
            Ok(None) if all => {}
            Ok(None) => say(&format!("throttle {id} is armed on {path} already")),
            Err(Error::Kernel(error)) if is_away(&error) => {
                say(&format!("throttle {id} waits: there is no cgroup at {path}"));
                waits = true;
            }
            Err(error) => errors.push(error),
        }
    }
    Error::collect(errors)?;
    if waits && !all {
        return Err(not_done("not every throttle could be armed").into());
    }
    Ok(())
}

/// Says which other limits hold beside a throttle that was armed again, and which programs it puts out of force.
fn tell_of_others(engine: &Engine<LinuxBpf>, spec: Option<Spec>, started: &Started) {
    match spec {
        Some(spec) => {
            let ours = engine.programs_of(started.id);
            others::tell(&others::around(&spec.cgroup, &ours), &spec, started);
        }
        None => others::tell_of_displaced(&started.displaced),
    }
}

/// Whether an error says that there is no cgroup.
fn is_away(error: &bpf::Error) -> bool {
    error.call() == Call::OpenCgroup && error.kind() == Kind::Vanished
}
