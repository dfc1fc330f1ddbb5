//! `chadthrottle limit` arms a throttle, waits, and removes it.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use bpf::limits::FqDevices;
use bpf::{LinuxBpf, Owner};
use throttle_core::files::FileSystem;
use throttle_core::ledger::LedgerDir;
use throttle_core::mark;
use throttle_core::mode::{Mode, Tcp};
use throttle_core::target::{Target, ThisHost};
use throttle_core::{Config, Engine, Spec};

use crate::adopted::tell_of_open_sockets;
use crate::armed::armed_line;
use crate::cli::{AttachArg, DeparturesArg, LimitArgs, TrafficArg};
use crate::departures::departures;
use crate::follow::{End, Follow};
use crate::in_force::Neighbours;
use crate::named::Named;
use crate::others;
use crate::settled::tell_of_settlement;
use crate::signals::Signals;
use crate::sockets::Watch;
use crate::traffic;
use crate::words::{Usage, print, say, shown, warn};

pub(crate) fn run(args: &LimitArgs) -> Result<()> {
    if args.attach == AttachArg::Pinned && args.duration.is_some() {
        return Err(Usage(
            "--duration needs a process that waits for its end, and a pinned throttle has none: use \
             --attach link, or end it with 'chadthrottle rm'",
        )
        .into());
    }
    if args.attach == AttachArg::Pinned && args.once {
        return Err(Usage(
            "--once needs a process that waits for the cgroup's end, and a pinned throttle has none: use --attach link",
        )
        .into());
    }
    if args.guard && args.attach == AttachArg::Pinned {
        return Err(Usage(
            "--guard needs a process that waits for the cgroup, and a pinned throttle has none: use --attach link",
        )
        .into());
    }
    if args.guard && args.traffic != TrafficArg::All {
        return Err(Usage("--guard holds all of the traffic alone: leave --traffic away").into());
    }
    if args.departures == DeparturesArg::Fq && args.upload.is_none() {
        return Err(Usage("--departures is for what is sent: give --upload as well").into());
    }
    let signals = Signals::block()?;
    let target = match (&args.cgroup, args.pid) {
        (Some(path), _) => Target::Cgroup(path.clone()),
        (None, Some(pid)) => Target::Process(pid),
        (None, None) => return Err(Usage("give --cgroup or --pid").into()),
    };
    let target = match target.resolve(&ThisHost) {
        Ok(target) => target,
        Err(error) => {
            settle();
            return Err(error.into());
        }
    };
    tracing::debug!(cgroup = %shown(&target.cgroup), id = target.cgroup_id.0, "the cgroup was found");
    let kernel = LinuxBpf::new()?;
    let (mut engine, settlement) = Engine::start(kernel, config()?)?;
    tell_of_settlement(&settlement);

    let departures = match args.upload {
        Some(_) => departures(&target.cgroup, args.departures.into())?,
        None => FqDevices::NONE,
    };
    let spec = Spec {
        cgroup: target.cgroup.clone(),
        cgroup_id: Some(target.cgroup_id),
        download: args.download,
        upload: args.upload,
        burst: args.burst,
        traffic: args.traffic.into(),
        attach: args.attach.into(),
        tcp: args.tcp.into(),
        departures,
        queue: args.download_queue,
        displace: args.displace,
    };
    let others = others::around(&spec.cgroup, &[]);
    let asked = Instant::now();
    let started = engine.add(&spec)?;
    tracing::debug!(mode = %started.mode, tcp = %started.tcp, took = ?asked.elapsed(), "the programs are attached");
    let neighbours = Neighbours::start(&engine, &spec, &started);
    started.notes.iter().for_each(|note| say(note));
    others::tell(&others, &spec, &started);
    if args.download_queue {
        say(
            "what comes in for the cgroup goes through a queue of its own, past other programs and filters at the \
             devices' ingress that come after this one (tc, nft's netdev hook)",
        );
    }
    crate::target::tell(&target, args.pid);
    if started.tcp == Tcp::Shape {
        tell_of_open_sockets(&engine.adopt(started.id));
    }
    crate::target::tell_of_neighbours(&target.neighbours, target.neighbours_hidden);
    traffic::tell_of_redirects(&spec.cgroup, spec.traffic);
    let watch = Watch::start(&spec.cgroup, args.pid);
    if let Err(error) = print(&armed_line(&spec, &started, args.duration)) {
        // The user did not get the line, so could not know of the throttle or end it.
        engine.remove(started.id)?;
        return Err(error);
    }

    if started.mode == Mode::Pinned {
        engine.release(started.id)?;
        return Ok(());
    }
    let end = End { duration: args.duration, once: args.once, guard: args.guard };
    let named = args.pid.and_then(|pid| Named::new(pid, &spec.cgroup));
    let follow = Follow::new(&mut engine, &spec, started.id, watch, named, neighbours);
    let followed = follow.until(&signals, end)?;
    followed.finish(spec.traffic)
}

/// Removes what dead owners left. Every start does this, even one that fails later.
fn settle() {
    let started = LinuxBpf::new()
        .map_err(anyhow::Error::from)
        .and_then(|kernel| Ok(Engine::start(kernel, config_to_settle()?)?));
    match started {
        Ok((_, settlement)) => tell_of_settlement(&settlement),
        Err(error) => tracing::debug!("what dead owners left was not looked at: {error}"),
    }
}

/// Returns the configuration of an engine that arms throttles.
pub(crate) fn config() -> Result<Config> {
    Ok(Config { mark: mark(), ..config_to_settle()? })
}

/// Returns the configuration of an engine that arms nothing.
pub(crate) fn config_to_settle() -> Result<Config> {
    let bpffs = Path::new(kernel::pins::DEFAULT_BPFFS);
    Ok(Config {
        ledger: LedgerDir::new(bpf::ledger::DEFAULT_DIR),
        pins: bpffs.join("chadthrottle"),
        bpffs: kernel::pins::is_on_bpffs(bpffs)?,
        owner: Owner::this_process(env!("CARGO_PKG_VERSION"))?,
        mark: 0,
        cgroup_namespace: kernel::cgroup::namespace()?,
    })
}

/// Returns the mark that limits share. Without it, a limit above also charges for what this one drops.
fn mark() -> u64 {
    mark::shared(&FileSystem, Path::new(bpf::ledger::DEFAULT_DIR)).unwrap_or_else(|error| {
        warn(&format!(
            "a limit on a cgroup above charges for what this one drops, because they share no mark: {error}"
        ));
        0
    })
}
