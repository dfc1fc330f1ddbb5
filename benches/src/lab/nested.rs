//! Measures a limit within a limit. Both have to hold.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use bpf::limits::{Burst, Rate};
use throttle_core::mode::TcpWish;

use super::cell::{Cell, Sender, Way};
use super::measure::Lab;
use super::report_of_iperf::Counted;
use super::results::{Nested, NestedRun};
use super::setup::{Leftover, Refusal, taken_back};
use super::systems::{Throttles, spec};
use super::traffic::{Server, Span, Test};

/// The limit of the parent, in bytes per second.
const PARENT: u64 = 2_000_000;
/// The limit of the child, in bytes per second.
const CHILD: u64 = 1_000_000;
const PORTS: [u16; 2] = [5202, 5203];
/// The extra time that both tests run, in seconds. The second test has to start within this time.
pub const SPARE_SECONDS: u32 = 1;

/// Loads a child and its sibling at once, in this direction and at this round trip, for the lab's number of runs.
///
/// # Errors
/// Fails if the user wants to stop or a setting cannot be undone. A failed run is a result, not an error.
pub fn measure(lab: &Lab<'_>, way: Way, rtt_ms: u32, begins: &dyn Fn(&str)) -> Result<Nested> {
    let (parent, child) = (Rate::try_from(PARENT)?, Rate::try_from(CHILD)?);
    let mut nested = Nested { way, rtt_ms, parent, child, not_here: None, runs: Vec::new() };
    for run in 0..lab.runs {
        begins(&format!("parent and child, {} ({} of {})", way.name(), run + 1, lab.runs));
        match one(lab, &nested) {
            Ok(measured) => nested.runs.push(measured),
            Err(Refusal::Missing(why)) => {
                nested.not_here = Some(format!("no netem: {why}"));
                break;
            }
            Err(Refusal::Failed(error)) if error.is::<Leftover>() => return Err(error),
            Err(Refusal::Failed(error)) => {
                ensure!(!lab.stop.is_wished(), "stopped");
                nested.runs.push(NestedRun::Failed(format!("{error:#}")));
            }
        }
    }
    Ok(nested)
}

fn one(lab: &Lab<'_>, nested: &Nested) -> Result<NestedRun, Refusal> {
    let Nested { way, rtt_ms, parent, .. } = *nested;
    let cell = Cell { way, sender: Sender::Cubic, rtt_ms, loss_percent: 0, rate: parent, flows: 1 };
    let distance = lab.network.distance(&cell)?;
    let measured = limited(lab, nested, &cell);
    taken_back(measured, distance.remove())
}

fn limited(lab: &Lab<'_>, nested: &Nested, cell: &Cell) -> Result<NestedRun, Refusal> {
    let Nested { way, parent, child, .. } = *nested;
    let all = lab.network.throttled();
    let below = |name: &str| {
        let path = all.join(name);
        std::fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        anyhow::Ok(path)
    };
    let (limited, sibling) = (below("child")?, below("sibling")?);
    let mut throttles = Throttles::start()?;
    let tests = [(all, parent), (&limited, child)]
        .into_iter()
        .try_for_each(|(cgroup, rate)| {
            throttles.add(&spec(cgroup, way, rate, Burst::DEFAULT, TcpWish::Auto))
        })
        .and_then(|()| load(lab, cell, [&limited, &sibling]));
    let [child, sibling] = taken_back(tests.map_err(Refusal::from), throttles.remove())?;
    let child = child.finish(lab.stop).context("the child")?;
    let sibling = sibling.finish(lab.stop).context("its sibling")?;
    Ok(NestedRun::Measured { child: child.receiver.rate(), sibling: sibling.receiver.rate() })
}

/// Loads both until their clients have ended. The same seconds count for both, and both run longer than that, because a
/// test that runs alone gets all of the parent's limit.
fn load(lab: &Lab<'_>, cell: &Cell, cgroups: [&Path; 2]) -> Result<[Test; 2]> {
    let [first, second] = PORTS.map(|port| Server::start(lab.network, port));
    let span = Span { seconds: lab.span.seconds + SPARE_SECONDS, ..lab.span };
    let mut first = first?.test(cgroups[0], cell, span)?;
    let mut second = second?.test(cgroups[1], cell, span)?;
    let later = (second.started() - first.started()).as_secs_f64();
    let [counted, of_the_second] = common(lab.span.seconds, later)?;
    first.counts(counted);
    second.counts(of_the_second);
    first.client_ends(lab.stop)?;
    second.client_ends(lab.stop)?;
    Ok([first, second])
}

/// Returns which seconds of two tests count. The second test started `later` seconds after the first.
fn common(seconds: u32, later: f64) -> Result<[Counted; 2]> {
    ensure!(later < f64::from(SPARE_SECONDS), "the second test began {later:.1} s after the first");
    let second = Counted::all(seconds);
    Ok([Counted { from: later, until: second.until + later }, second])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seconds_count_of_both() {
        let [first, second] = common(3, 0.25).unwrap();
        assert_eq!(first, Counted { from: 0.25, until: 3.25 });
        assert_eq!(second, Counted::all(3));
        assert!(common(3, 1.5).is_err());
    }
}
