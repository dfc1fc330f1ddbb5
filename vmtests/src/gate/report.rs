//! What a part of the gate did, each as one line that people read and [`super::proved`] adds up.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::trial::Tally;

/// What a [`Report`]'s line begins with.
pub const MARK: &str = "gate: ";
/// What an [`Agreement`]'s line begins with.
pub const AGREES: &str = "agrees: ";

/// What was done, by one test.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Which system: `the engine`.
    pub system: String,
    /// On what: `the model of 6.18`, `kernel 6.1.0-56-cloud-amd64`.
    pub machine: String,
    /// How the sequences came about: `at random, seed 7`.
    pub method: String,
    /// How much.
    pub tally: Tally,
    /// How long it took.
    pub took: Duration,
}

impl Report {
    /// The machine's name for the running kernel.
    pub fn this_kernel() -> String {
        let release = nix::sys::utsname::uname();
        let release =
            release.as_ref().map_or_else(|_| "?".into(), |it| it.release().to_string_lossy());
        format!("kernel {release}")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { sequences, steps, faults, crashes } = self.tally;
        write!(
            f,
            "{MARK}{}; {}; {}; {sequences} sequences, {steps} steps, {faults} faults, {crashes} crashes, \
             nothing left; {:.1} s",
            self.system,
            self.machine,
            self.method,
            self.took.as_secs_f64()
        )
    }
}

impl FromStr for Report {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let wrong = || format!("not a line of the gate: {line}");
        let parts: Vec<_> = line.strip_prefix(MARK).ok_or_else(wrong)?.split("; ").collect();
        let [system, machine, method, counts, took] = parts[..] else { return Err(wrong()) };
        let count = |name: &str| count(counts, name).ok_or_else(wrong);
        let seconds = took.strip_suffix(" s").and_then(|text| text.parse().ok());
        Ok(Self {
            system: system.to_owned(),
            machine: machine.to_owned(),
            method: method.to_owned(),
            tally: Tally {
                sequences: count(" sequences")?,
                steps: count(" steps")?,
                faults: count(" faults")?,
                crashes: count(" crashes")?,
            },
            took: seconds.map(Duration::from_secs_f64).ok_or_else(wrong)?,
        })
    }
}

/// The model of the kernel answered as the kernel did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreement {
    /// As in a [`Report`].
    pub machine: String,
    /// Sequences of calls, kept and random ones.
    pub sequences: u64,
    /// Calls in all of them.
    pub calls: u64,
}

impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { machine, sequences, calls } = self;
        write!(f, "{AGREES}the model; {machine}; {sequences} sequences, {calls} calls")
    }
}

impl FromStr for Agreement {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let wrong = || format!("not a line of the gate: {line}");
        let parts: Vec<_> = line.strip_prefix(AGREES).ok_or_else(wrong)?.split("; ").collect();
        let ["the model", machine, counts] = parts[..] else { return Err(wrong()) };
        let count = |name: &str| count(counts, name).ok_or_else(wrong);
        let (sequences, calls) = (count(" sequences")?, count(" calls")?);
        Ok(Self { machine: machine.to_owned(), sequences, calls })
    }
}

/// The number before a name, in a list of such.
fn count(counts: &str, name: &str) -> Option<u64> {
    counts.split(", ").find_map(|count| count.strip_suffix(name)?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agreement_is_read_back_from_its_line() {
        let machine = "kernel 6.1.0-56-cloud-amd64".to_owned();
        let agreement = Agreement { machine, sequences: 26, calls: 700 };
        let line = agreement.to_string();
        assert_eq!(line.parse(), Ok(agreement));
        assert!(line.replace("700 calls", "calls").parse::<Agreement>().is_err());
        assert!(line.replace("the model", "somebody").parse::<Agreement>().is_err());
    }

    #[test]
    fn a_report_is_read_back_from_its_line() {
        let report = Report {
            system: "the engine".to_owned(),
            machine: "the model of 6.18".to_owned(),
            method: "at random, seed 7".to_owned(),
            tally: Tally { sequences: 20, steps: 300, faults: 11, crashes: 4 },
            took: Duration::from_millis(1_500),
        };
        let line = report.to_string();
        assert_eq!(line.parse(), Ok(report));
        assert!(line.replace("300 steps", "steps").parse::<Report>().is_err());
        assert!("gate: something else".parse::<Report>().is_err());
    }
}
