//! What a part of the gate did, as one line that people read and [`super::proved`] adds up.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::trial::Tally;

/// What the line begins with.
pub const MARK: &str = "gate: ";

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
        let count = |name: &str| -> Result<u64, String> {
            let count = counts.split(", ").find_map(|count| count.strip_suffix(name)?.parse().ok());
            count.ok_or_else(wrong)
        };
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

#[cfg(test)]
mod tests {
    use super::*;

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
