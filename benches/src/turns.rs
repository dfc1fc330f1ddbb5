//! Measures contestants in turns. Each runs once per round, so other load on the machine affects all of them. Medians
//! ignore load that affects only one.

use std::time::Duration;

use anyhow::Context;
use criterion::{Criterion, SamplingMode};
use indicatif::{ProgressBar, ProgressStyle};

use crate::median::median;
use crate::run::Run;

type Work<'a> = Box<dyn FnMut(u64) -> anyhow::Result<Duration> + 'a>;

/// Something to measure.
pub struct Contestant<'a> {
    name: String,
    work: Work<'a>,
}

impl<'a> Contestant<'a> {
    /// Creates a contestant. `work` does its work `times` times and returns the time.
    pub fn new(
        name: impl Into<String>,
        work: impl FnMut(u64) -> anyhow::Result<Duration> + 'a,
    ) -> Self {
        Self { name: name.into(), work: Box::new(work) }
    }

    fn nanos(&mut self, times: u64) -> anyhow::Result<f64> {
        let time = (self.work)(times).with_context(|| self.name.clone())?;
        Ok(time.as_nanos() as f64 / times as f64)
    }
}

/// What one contestant took, in nanoseconds each time.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// The name of the contestant.
    pub name: String,
    /// One value for each round.
    pub rounds: Vec<f64>,
}

impl Figure {
    /// Returns the median of the rounds.
    pub fn nanos(&self) -> f64 {
        median(self.rounds.iter().copied()).unwrap_or(f64::NAN)
    }

    /// Returns the fastest round, which was disturbed least. NaN without rounds.
    pub fn lowest(&self) -> f64 {
        self.rounds.iter().copied().reduce(f64::min).unwrap_or(f64::NAN)
    }

    /// Returns the slowest round, which was disturbed most.
    pub fn highest(&self) -> f64 {
        self.rounds.iter().copied().reduce(f64::max).unwrap_or(f64::NAN)
    }

    /// Returns how many times as long as the peer this took: the median of the ratios in each round. A round that was
    /// slow for both does not distort it.
    pub fn ratio_to(&self, peer: &Self) -> f64 {
        self.beside(peer, |own, peer| own / peer)
    }

    /// Returns how many nanoseconds longer than the peer this took, in the same way.
    pub fn above(&self, peer: &Self) -> f64 {
        self.beside(peer, |own, peer| own - peer)
    }

    fn beside(&self, peer: &Self, compare: impl Fn(f64, f64) -> f64) -> f64 {
        let rounds = self.rounds.iter().zip(&peer.rounds);
        median(rounds.map(|(&own, &peer)| compare(own, peer))).unwrap_or(f64::NAN)
    }
}

/// Lets each contestant do its work `times` times in each round. A smoke run has one round of at most 100 times.
///
/// # Errors
/// Fails if a contestant fails.
pub fn in_turns(
    run: &Run,
    contestants: &mut [Contestant<'_>],
    rounds: usize,
    times: u64,
) -> anyhow::Result<Vec<Figure>> {
    let (rounds, times) = if run.is_smoke() { (1, times.min(100)) } else { (rounds, times) };
    let mut figures: Vec<Figure> =
        contestants.iter().map(|it| Figure { name: it.name.clone(), rounds: Vec::new() }).collect();
    let bar = progress(rounds * contestants.len());
    for _ in 0..rounds {
        for (contestant, figure) in contestants.iter_mut().zip(&mut figures) {
            bar.set_message(contestant.name.clone());
            figure.rounds.push(contestant.nanos(times)?);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(figures)
}

/// Measures the same contestants one after another with Criterion, which stores the results and shows changes.
///
/// # Panics
/// Panics if a contestant fails, which none did in its turns.
pub fn by_criterion(group: &str, contestants: &mut [Contestant<'_>]) {
    // Drawing the plots takes longer than measuring.
    let mut criterion =
        Criterion::default().without_plots().nresamples(5_000).configure_from_args();
    let mut group = criterion.benchmark_group(group);
    group
        .sampling_mode(SamplingMode::Flat)
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800));
    for contestant in contestants {
        group.bench_function(contestant.name.clone(), |bencher| {
            bencher.iter_custom(|times| (contestant.work)(times).expect("it went well before"));
        });
    }
    group.finish();
    criterion.final_summary();
}

/// Creates a progress bar, which shows only on a terminal.
///
/// # Panics
/// Never panics, because the template is valid.
pub fn progress(steps: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}");
    ProgressBar::new(steps as u64).with_style(style.expect("a right template"))
}

#[cfg(test)]
mod tests {
    // Sums and quotients of small whole numbers are exact.
    #![allow(clippy::float_cmp)]

    use super::*;

    fn figure(rounds: &[f64]) -> Figure {
        Figure { name: String::new(), rounds: rounds.to_vec() }
    }

    #[test]
    fn a_slow_round_is_slow_for_both_and_does_not_count() {
        let (own, peer) = (figure(&[20.0, 200.0, 20.0]), figure(&[10.0, 100.0, 10.0]));
        assert_eq!(own.ratio_to(&peer), 2.0);
        assert_eq!(own.above(&peer), 10.0);
        // The medians alone would give 110 / 10.
        let (own, peer) = (figure(&[20.0, 200.0, 200.0]), figure(&[10.0, 100.0, 10.0]));
        assert_eq!(own.ratio_to(&peer), 2.0);
    }
}
