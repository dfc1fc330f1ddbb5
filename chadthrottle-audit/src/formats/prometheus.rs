//! Writes Prometheus' text format, mainly for the node exporter's textfile collector.
//!
//! No metric has a kernel id as a label, because every restart would then create new time series.

use std::time::UNIX_EPOCH;

use auditor::judge::Finding;
use auditor::report::Report;
use prometheus::{GaugeVec, Opts, Registry, TextEncoder};
use terminal::escape;

use super::Rendition;
use crate::results::Outcome;

/// Renders a report's numbers.
///
/// # Errors
/// A metric cannot be registered.
pub(crate) fn render(report: &Report) -> anyhow::Result<String> {
    let metrics = Metrics(Registry::new());
    metrics.of_leaks(report)?;
    let (summary, coverage) = (&report.summary, &report.coverage);
    let is_incomplete = !coverage.gaps.is_empty();
    let numbers = [
        ("active", "Attachments of ours whose owners live and mean them.", number(summary.active)),
        ("pinned", "Attachments of ours that are kept on purpose.", number(summary.pinned)),
        (
            "waiting",
            "Links and programs of throttles that wait for another cgroup at their path.",
            number(summary.waiting),
        ),
        ("foreign", "Attachments of others.", number(summary.foreign)),
        (
            "unowned",
            "Programs that were asked for by name and nothing says whose they are.",
            number(summary.unowned),
        ),
        (
            "unknown",
            "Attachments and network devices of ours that could not be judged.",
            number(summary.unknown),
        ),
        ("devices", "Network devices of queues whose owners live.", number(summary.devices)),
        (
            "slots_used_max",
            "The most programs on one cgroup and attach type, whoever's they are; the kernel's limit is 64.",
            summary.slots_used_max.into(),
        ),
        (
            "full_places",
            "Cgroups and attach types with 48 of 64 programs or more, whoever's they are.",
            number(report.full_places.len()),
        ),
        (
            "cgroups_visited",
            "Cgroups whose programs were asked for.",
            coverage.cgroups_visited as f64,
        ),
        ("cgroups_vanished", "Cgroups that went away meanwhile.", coverage.cgroups_vanished as f64),
        ("cgroups_denied", "Cgroups that could not be asked.", coverage.cgroups_denied as f64),
        ("gaps", "Things that could not be seen or judged.", number(coverage.gaps.len())),
        (
            "incomplete",
            "1 if something could not be seen or judged: then the other numbers are what was seen, and may be too low.",
            is_incomplete.into(),
        ),
        ("duration_seconds", "How long the scan took.", report.duration_ms / 1_000.0),
    ];
    for (name, help, value) in numbers {
        metrics.add(name, help, &[], &[(&[], value)])?;
    }
    // The time is missing only if there was no look; such a report is incomplete.
    if let Some(seconds) = seconds_since_1970(&report.taken_at) {
        let help = "When the host was looked at, in seconds since 1970.";
        metrics.add("last_scan_timestamp_seconds", help, &[], &[(&[], seconds)])?;
    }
    let labels = [&report.tool.version, &report.method, &report.host.kernel].map(|it| escape(it));
    let help = "1, with the auditor's version, how cgroups were enumerated, and the kernel.";
    let names = ["version", "method", "kernel"];
    metrics.add("info", help, &names, &[(&labels.each_ref().map(String::as_str), 1.0)])?;
    Ok(TextEncoder::new().encode_to_string(&metrics.0.gather())?)
}

struct Metrics(Registry);

impl Metrics {
    fn of_leaks(&self, report: &Report) -> anyhow::Result<()> {
        let checks = report.results().checks;
        let (mut leaked, mut known, mut judged) = (Vec::new(), Vec::new(), Vec::new());
        let names = Finding::ALL.map(|finding| [finding.name()]);
        for (finding, name) in Finding::ALL.into_iter().zip(&names) {
            if !finding.is_leak() {
                continue;
            }
            let Some(check) = checks.iter().find(|check| check.rule == finding.name()) else {
                continue;
            };
            let of_it = |is_known: bool| {
                let leaks = report.leaks.iter().filter(|it| it.finding == finding);
                number(leaks.filter(|it| it.known == is_known).count())
            };
            leaked.push((&name[..], of_it(false)));
            known.push((&name[..], of_it(true)));
            let is_judged = !matches!(check.outcome, Outcome::Unseen(_));
            judged.push((&name[..], is_judged.into()));
        }
        self.add("leaked", "Leaks, by what they were found to be.", &["finding"], &leaked)?;
        let help = "Leaks that are in the baseline already, and do not count.";
        self.add("known", help, &["finding"], &known)?;
        let help =
            "0 if nothing is leaked of what was looked at, but not everything was looked at.";
        self.add("judged", help, &["finding"], &judged)
    }

    /// Adds a metric with its values and their labels.
    fn add(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        values: &[(&[&str], f64)],
    ) -> anyhow::Result<()> {
        let gauge = GaugeVec::new(Opts::new(format!("chadthrottle_audit_{name}"), help), labels)?;
        for (labels, value) in values {
            gauge.get_metric_with_label_values(labels)?.set(*value);
        }
        Ok(self.0.register(Box::new(gauge))?)
    }
}

fn number(count: usize) -> f64 {
    count as f64
}

fn seconds_since_1970(rfc3339: &str) -> Option<f64> {
    let time = humantime::parse_rfc3339(rfc3339).ok()?;
    Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs_f64())
}
