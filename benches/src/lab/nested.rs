//! A limit within a limit: both are to hold.

use anyhow::{Context, Result, ensure};
use bpf::limits::{Burst, Rate};
use throttle_core::mode::TcpWish;

use super::cell::{Cell, Sender, Way};
use super::measure::Lab;
use super::results::{Nested, NestedRun};
use super::setup::Refusal;
use super::systems::{Throttles, spec};
use super::traffic::{Span, Test};

/// The limit of all, bytes per second.
const PARENT: u64 = 2_000_000;
/// That of a part, bytes per second.
const CHILD: u64 = 1_000_000;
const PORTS: [u16; 2] = [5202, 5203];

/// Loads a child and its sibling at once, that way and that far, as often as the lab measures.
///
/// # Errors
/// When somebody wishes to stop. A run that fails is a result.
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
            Err(Refusal::Failed(error)) => {
                ensure!(!lab.stop.is_wished(), "stopped");
                nested.runs.push(NestedRun::Failed(format!("{error:#}")));
            }
        }
    }
    Ok(nested)
}

fn one(lab: &Lab<'_>, nested: &Nested) -> Result<NestedRun, Refusal> {
    let Nested { way, rtt_ms, parent, child, .. } = *nested;
    let cell = Cell { way, sender: Sender::Cubic, rtt_ms, loss_percent: 0, rate: parent, flows: 1 };
    let network = lab.network;
    let distance = network.distance(&cell)?;
    let below = |name: &str| {
        let path = network.throttled().join(name);
        std::fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        anyhow::Ok(path)
    };
    let (limited, sibling) = (below("child")?, below("sibling")?);
    let mut throttles = Throttles::start()?;
    for (cgroup, rate) in [(network.throttled(), parent), (&limited, child)] {
        throttles.add(&spec(cgroup, way, rate, Burst::DEFAULT, TcpWish::Auto))?;
    }
    let span = Span { omit: lab.span.omit + 1, ..lab.span };
    let mut child = Test::start(network, &limited, &cell, span, PORTS[0])?;
    let mut sibling = Test::start(network, &sibling, &cell, span, PORTS[1])?;
    child.client_ends(lab.stop)?;
    sibling.client_ends(lab.stop)?;
    throttles.remove()?;
    let child = child.finish(lab.stop).context("the child")?;
    let sibling = sibling.finish(lab.stop).context("its sibling")?;
    distance.remove()?;
    Ok(NestedRun::Measured { child: child.receiver.rate(), sibling: sibling.receiver.rate() })
}
