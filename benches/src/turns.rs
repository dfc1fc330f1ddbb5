//! Measuring in turns: in each round every contestant once, so that what else the machine does falls on all of
//! them, and medians, so that what falls on one does not count.

use std::time::Duration;

use anyhow::Context;
use criterion::{Criterion, SamplingMode};
use indicatif::{ProgressBar, ProgressStyle};

use crate::run::Run;

type Work<'a> = Box<dyn FnMut(u64) -> anyhow::Result<Duration> + 'a>;

/// Something that is measured.
pub struct Contestant<'a> {
    name: String,
    work: Work<'a>,
}

impl<'a> Contestant<'a> {
    /// `work` does it that many times and returns how long this took.
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
    /// The contestant.
    pub name: String,
    /// One for each round.
    pub rounds: Vec<f64>,
}

impl Figure {
    /// The median of the rounds.
    pub fn nanos(&self) -> f64 {
        median(self.rounds.clone())
    }

    /// The round that was disturbed least. NaN of none.
    pub fn lowest(&self) -> f64 {
        self.rounds.iter().copied().reduce(f64::min).unwrap_or(f64::NAN)
    }

    /// The one that was disturbed most.
    pub fn highest(&self) -> f64 {
        self.rounds.iter().copied().reduce(f64::max).unwrap_or(f64::NAN)
    }

    /// How many times as long as the other: the median of what it was in each round, so that a slow round,
    /// which is slow for both, does not count.
    pub fn ratio_to(&self, peer: &Self) -> f64 {
        self.beside(peer, |own, peer| own / peer)
    }

    /// How many nanoseconds more than the other, likewise.
    pub fn above(&self, peer: &Self) -> f64 {
        self.beside(peer, |own, peer| own - peer)
    }

    fn beside(&self, peer: &Self, compare: impl Fn(f64, f64) -> f64) -> f64 {
        median(
            self.rounds.iter().zip(&peer.rounds).map(|(&own, &peer)| compare(own, peer)).collect(),
        )
    }
}

/// Lets each do its work that many times in each round; smoke runs have one round of a few times.
///
/// # Errors
/// When one of them fails.
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

/// The same contestants one after another by Criterion, which keeps what it saw and shows what has changed since.
///
/// # Panics
/// When one of them fails, which it did not in its turns.
pub fn by_criterion(group: &str, contestants: &mut [Contestant<'_>]) {
    // A picture for each takes longer than measuring it.
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

/// A bar on a terminal, nothing elsewhere.
///
/// # Panics
/// Never: the template is right.
pub fn progress(steps: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}");
    ProgressBar::new(steps as u64).with_style(style.expect("a right template"))
}

/// The middle one; of an even number the mean of the two in the middle. NaN of none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        even if even % 2 == 0 => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    }
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
    fn medians_do_not_move_with_one_outlier() {
        assert_eq!(median(vec![3.0, 900.0, 1.0, 2.0, 4.0]), 3.0);
        assert_eq!(median(vec![1.0, 2.0, 4.0, 900.0]), 3.0);
        assert!(median(vec![]).is_nan());
    }

    #[test]
    fn a_slow_round_is_slow_for_both_and_does_not_count() {
        let (own, peer) = (figure(&[20.0, 200.0, 20.0]), figure(&[10.0, 100.0, 10.0]));
        assert_eq!(own.ratio_to(&peer), 2.0);
        assert_eq!(own.above(&peer), 10.0);
        // The medians alone would say 110 / 10.
        let (own, peer) = (figure(&[20.0, 200.0, 200.0]), figure(&[10.0, 100.0, 10.0]));
        assert_eq!(own.ratio_to(&peer), 2.0);
    }
}
