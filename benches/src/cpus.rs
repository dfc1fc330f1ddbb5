//! Runs programs on two processors that share one bucket.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::object::Programs;
use crate::packet::Packet;

/// Returns the first two processors that this process may use.
///
/// # Errors
/// Fails if the kernel cannot be asked, or if there is only one processor.
pub fn two() -> anyhow::Result<[usize; 2]> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    let mut found = (0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu).unwrap_or(false));
    found.next().zip(found.next()).map(Into::into).context("there is one processor only")
}

/// Runs a program on these processors at once, `times` times on each. Returns the mean time of a processor, and the
/// part of the time in which all ran.
///
/// # Errors
/// Fails if a run fails on one of the processors.
///
/// # Panics
/// Panics if the thread of a run does, which has no reason to.
pub fn together(
    programs: &Programs,
    cpus: &[usize],
    program: &str,
    packet: &Packet,
    times: u64,
) -> anyhow::Result<(Duration, f64)> {
    let start = Barrier::new(cpus.len());
    let one = |cpu: usize| -> anyhow::Result<(Duration, Span)> {
        let mut set = CpuSet::new();
        // The other threads wait at the barrier, so none may return before it.
        let pinned = set.set(cpu).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
        start.wait();
        pinned.with_context(|| format!("processor {cpu}"))?;
        let from = Instant::now();
        let time = programs.run(program, packet, times, 1)?;
        Ok((time, Span { from, to: Instant::now() }))
    };
    let one = &one;
    let runs: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = cpus.iter().map(|&cpu| scope.spawn(move || one(cpu))).collect();
        threads.into_iter().map(|it| it.join().expect("no run panics")).collect()
    });
    let runs: Vec<_> = runs.into_iter().collect::<anyhow::Result<_>>()?;
    let sum: Duration = runs.iter().map(|(time, _)| *time).sum();
    let spans: Vec<Span> = runs.into_iter().map(|(_, span)| span).collect();
    Ok((sum / u32::try_from(cpus.len())?, shared(&spans)))
}

/// When one thread ran.
#[derive(Debug, Clone, Copy)]
struct Span {
    from: Instant,
    to: Instant,
}

/// Returns the part of the time in which all ran, from the first start to the last end.
fn shared(spans: &[Span]) -> f64 {
    let bounds = |spans: &[Span]| {
        let latest = spans.iter().map(|span| span.from).max()?;
        let earliest = spans.iter().map(|span| span.from).min()?;
        let first = spans.iter().map(|span| span.to).min()?;
        let last = spans.iter().map(|span| span.to).max()?;
        Some((first.saturating_duration_since(latest), last.duration_since(earliest)))
    };
    bounds(spans).map_or(0.0, |(together, all)| together.as_secs_f64() / all.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shared_is_the_time_in_which_all_ran() {
        let zero = Instant::now();
        let at = |ms| zero + Duration::from_millis(ms);
        let span = |from, to| Span { from: at(from), to: at(to) };
        let close = |spans: &[Span], expected: f64| (shared(spans) - expected).abs() < 1e-9;
        assert!(close(&[span(0, 10), span(0, 10)], 1.0));
        assert!(close(&[span(0, 8), span(2, 10)], 0.6));
        assert!(close(&[span(0, 4), span(6, 10)], 0.0));
    }
}
