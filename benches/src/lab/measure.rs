//! Measures each cell with each system, in turns.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::cell::Cell;
use super::cpu::Busy;
use super::echo::{A_SECOND, Echoes, LENGTH, Prober};
use super::expect::goodput;
use super::network::Network;
use super::plan::{Entry, rotated};
use super::results::{Idle, Measured, Row, Run};
use super::setup::{Leftover, Refusal, taken_back};
use super::stats::deviation;
use super::stop::Stop;
use super::summary::Summary;
use super::systems::{Installed, Name, System};
use super::traffic::{Ends, Span, Test};

/// The time after the start of a test until its connections exist.
const SETTLED: Duration = Duration::from_millis(200);
/// The port of iperf3.
const PORT: u16 = 5201;

/// The inputs of a whole run of the lab.
#[derive(Debug)]
pub struct Lab<'a> {
    /// The network to measure in.
    pub network: &'a Network,
    /// The length of a run.
    pub span: Span,
    /// The number of runs.
    pub runs: u32,
    /// The user's wish to stop.
    pub stop: &'a Stop,
}

impl Lab<'_> {
    /// Measures the path of a cell without load, for as long as a run counts.
    ///
    /// # Errors
    /// Fails if the path cannot be set up or measured. Returns [`Refusal::Missing`] if the kernel has no netem.
    pub fn idle(&self, cell: &Cell) -> Result<Idle, Refusal> {
        let distance = self.network.distance(cell)?;
        let looked = self.look(cell);
        taken_back(looked.map_err(Refusal::from), distance.remove())
    }

    fn look(&self, cell: &Cell) -> Result<Idle> {
        let socket = self.network.probe_socket(self.network.others())?;
        let before = Busy::now()?;
        let prober = Prober::start(socket);
        let counted = Duration::from_secs(self.span.seconds.into());
        self.stop.sleep_until(Instant::now() + counted)?;
        let (busy, seconds) = Busy::now()?.since(&before);
        let echoes = prober.end()?;
        Ok(Idle {
            rtt_ms: cell.rtt_ms,
            loss_percent: cell.loss_percent,
            echoes,
            busy_processors: busy / seconds,
        })
    }

    /// Measures an entry: all of its systems, one after the other, for the wanted number of runs. The order rotates
    /// from run to run. `idle` is the path without load, or the reason why there is none. `begins` is called with a
    /// text before each measurement.
    ///
    /// # Errors
    /// Fails if the user wants to stop or a setting cannot be undone. A failed run is a result, not an error.
    pub fn entry(
        &self,
        entry: &Entry,
        idle: &Result<Idle, Refusal>,
        begins: &dyn Fn(&str),
    ) -> Result<Vec<Row>> {
        let mut rows: Vec<Row> = entry.systems.iter().map(|name| row(entry.cell, *name)).collect();
        let idle = match idle {
            Ok(idle) => idle,
            Err(Refusal::Missing(why)) => {
                for row in &mut rows {
                    row.not_here = Some(format!("no netem: {why}"));
                }
                begins(&format!("{}: not here", entry.cell));
                return Ok(rows);
            }
            Err(Refusal::Failed(error)) => {
                let failed = Run::Failed(format!("the way: {error:#}"));
                for row in &mut rows {
                    row.runs.push(failed.clone());
                }
                return Ok(rows);
            }
        };
        for run in 0..self.runs {
            for name in rotated(&entry.systems, run as usize) {
                let row = rows.iter_mut().find(|row| row.system == name);
                let Some(row) = row.filter(|row| row.not_here.is_none()) else { continue };
                begins(&format!("{}: {} ({} of {})", entry.cell, name.name(), run + 1, self.runs));
                match self.one(row, idle) {
                    Ok(measured) => row.runs.push(Run::Measured(Box::new(measured))),
                    Err(Refusal::Missing(why)) => row.not_here = Some(why),
                    Err(Refusal::Failed(error)) => {
                        // A setting that stays would falsify every later measurement.
                        if error.is::<Leftover>() {
                            return Err(error.context(format!("{}, {}", entry.cell, name.name())));
                        }
                        ensure!(!self.stop.is_wished(), "stopped");
                        row.runs.push(Run::Failed(format!("{error:#}")));
                    }
                }
            }
        }
        for row in &mut rows {
            row.summary = Summary::of(row, Some(idle));
        }
        Ok(rows)
    }

    fn one(&self, row: &mut Row, idle: &Idle) -> Result<Measured, Refusal> {
        let distance = self.network.distance(&row.cell)?;
        let installed = row.system.system().install(self.network, row.cell.way, row.cell.rate);
        let measured = installed.and_then(|installed| {
            row.done = [distance.done(), &installed.done()].concat();
            self.under_limit(row, idle, installed)
        });
        taken_back(measured, distance.remove())
    }

    fn under_limit(
        &self,
        row: &Row,
        idle: &Idle,
        installed: Box<dyn Installed>,
    ) -> Result<Measured, Refusal> {
        let loaded = self.load(row);
        let loaded = taken_back(loaded.map_err(Refusal::from), installed.remove())?;
        let Loaded { test, busy_processors, outside, inside } = loaded;
        let Ends { sender, receiver } = test.finish(self.stop)?;
        let goodput = receiver.rate();
        let processors = std::thread::available_parallelism().context("how many processors")?;
        let processors = u32::try_from(processors.get()).unwrap_or(u32::MAX);
        Ok(Measured {
            goodput,
            offered: sender.rate(),
            windows: row.range().and_then(|expected| deviation(&receiver.windows, expected)),
            retransmitted_percent: sender.retransmitted_percent(),
            resent_percent: sender.resent_percent,
            lost_percent: receiver.lost_percent(),
            outside,
            inside,
            busy_processors,
            cpu_seconds_per_gb: idle.cpu_seconds_per_gb(processors, busy_processors, goodput),
        })
    }

    /// Loads the system until the client has ended. After that the limit is not needed any more.
    fn load(&self, row: &Row) -> Result<Loaded> {
        let network = self.network;
        let outside = network.probe_socket(network.others())?;
        let inside = network.probe_socket(network.throttled())?;
        let span = self.span.at(row.cell.rate);
        let mut test = Test::start(network, network.throttled(), &row.cell, span, PORT)?;
        let omitted = Duration::from_secs(span.omit.into()) + SETTLED;
        self.stop.sleep_until(test.started() + omitted)?;

        let (outside, inside) = (Prober::start(outside), Prober::start(inside));
        let before = Busy::now()?;
        let counted = Duration::from_secs(span.seconds.into()).saturating_sub(2 * SETTLED);
        self.stop.sleep_until(test.started() + omitted + counted)?;
        let (busy, seconds) = Busy::now()?.since(&before);
        inside.stop();
        let (outside, inside) = (outside.end()?, inside.end()?);

        test.client_ends(self.stop)?;
        Ok(Loaded { test, busy_processors: busy / seconds, outside, inside })
    }
}

/// A test whose client has ended, and what the probes saw meanwhile.
struct Loaded {
    test: Test,
    busy_processors: f64,
    outside: Echoes,
    inside: Echoes,
}

/// Creates a row without runs.
fn row(cell: Cell, name: Name) -> Row {
    let system = name.system();
    let counted = system.counted(cell.way);
    let expected = goodput(&cell, counted, probes(&*system), LENGTH);
    Row {
        cell,
        system: name,
        counted,
        expected: expected.map(|it| it.least),
        expected_most: expected.map(|it| it.most),
        done: Vec::new(),
        not_here: None,
        runs: Vec::new(),
        summary: Summary::default(),
    }
}

/// Returns how many probes per second go through the system's limit.
fn probes(system: &dyn System) -> f64 {
    if system.is_for_cgroups() { A_SECOND } else { 2.0 * A_SECOND }
}

#[cfg(test)]
mod tests {
    use super::super::cell::{Sender, Way};
    use super::super::expect::Counted;
    use super::super::samples;
    use super::*;

    #[test]
    fn each_system_is_held_to_what_it_counts_and_lets_through() {
        let expected = |name, sender| row(samples::cell(Way::Up, sender), name).expected;
        // Ours counts the 36 bytes of one prober, htb the 50 bytes (with Ethernet headers) of two.
        let ours = (1_250_000.0 - 20.0 * 36.0) * 1448.0 / 1500.0;
        let htb = (1_250_000.0 - 40.0 * 50.0) * 1448.0 / 1514.0;
        assert_eq!(expected(Name::Ours, Sender::Cubic), Some(ours));
        assert_eq!(expected(Name::Htb, Sender::Cubic), Some(htb));
        assert_eq!(expected(Name::None, Sender::Cubic), None);
        assert_eq!(
            row(samples::cell(Way::Down, Sender::Cubic), Name::Police).counted,
            Counted::IpOncePerPacket
        );
    }
}
