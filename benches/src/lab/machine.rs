//! Records where, when, and with which tools the lab measured.

use std::fs;
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// The machine and its tools. Figures mean little without them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// `host`, or for a virtual machine of the runner `VM, KVM` or `VM, emulated`.
    pub kind: String,
    /// The output of `uname -r`.
    pub kernel: String,
    /// The model of the processors.
    pub cpu: String,
    /// The number of online processors.
    pub processors: u32,
    /// The time, as RFC 3339.
    pub taken_at: String,
    /// The version of chadthrottle.
    pub chadthrottle: String,
    /// The version that `iperf3 --version` prints.
    pub iperf3: String,
    /// The version that `tc -V` prints.
    pub tc: String,
    /// The version that `nft --version` prints, or a note that it is missing.
    pub nft: String,
}

impl Machine {
    /// Describes this machine now.
    ///
    /// # Errors
    /// Fails if the machine's data cannot be read.
    pub fn this() -> Result<Self> {
        let uname = nix::sys::utsname::uname().context("uname")?;
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").context("/proc/cpuinfo")?;
        let processors = std::thread::available_parallelism().context("how many processors")?;
        let now = humantime::format_rfc3339_seconds(SystemTime::now());
        Ok(Self {
            kind: kind().into(),
            kernel: uname.release().to_string_lossy().into_owned(),
            cpu: cpu(&cpuinfo).unwrap_or("unknown").into(),
            processors: u32::try_from(processors.get()).unwrap_or(u32::MAX),
            taken_at: now.to_string(),
            chadthrottle: env!("CARGO_PKG_VERSION").into(),
            iperf3: version("iperf3", "--version"),
            tc: version("tc", "-V"),
            nft: version("nft", "--version"),
        })
    }

    /// Returns one line of text for reports.
    pub fn told(&self) -> String {
        let Self { kind, kernel, cpu, processors, taken_at, iperf3, tc, nft, .. } = self;
        format!("{kind}, Linux {kernel}, {processors} x {cpu}, {taken_at}; {iperf3}, {tc}, {nft}")
    }

    /// Returns the average extra time of a run, in seconds: for starting both ends and waiting for the last replies.
    pub fn overhead_seconds(&self) -> f64 {
        if self.kind == EMULATED { 3.0 } else { 0.8 }
    }

    /// Returns a short name that fits into a file name.
    pub fn word(&self) -> String {
        let kind = self.kind.split(',').next().unwrap_or_default().to_lowercase();
        let mut numbers = self.kernel.split(|char: char| !char.is_ascii_digit());
        let mut number = || numbers.next().unwrap_or_default();
        format!("{kind}-{}.{}", number(), number())
    }
}

const EMULATED: &str = "VM, emulated";

/// Tells host and guests apart. The runner sets a variable in its guests, and only KVM provides the KVM clock.
fn kind() -> &'static str {
    const CLOCKS: &str = "/sys/devices/system/clocksource/clocksource0/available_clocksource";
    if std::env::var_os("VMTESTS_KERNEL").is_none() {
        return "host";
    }
    let clocks = fs::read_to_string(CLOCKS).unwrap_or_default();
    if clocks.contains("kvm-clock") { "VM, KVM" } else { EMULATED }
}

fn cpu(cpuinfo: &str) -> Option<&str> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim())
}

/// Returns the first line of a tool's version output.
fn version(name: &str, option: &str) -> String {
    let Ok(output) = Command::new(name).arg(option).output() else {
        return format!("{name} is not installed");
    };
    let said = String::from_utf8_lossy(&output.stdout);
    said.lines().next().unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn the_processors_model_is_read() {
        let text = "processor\t: 0\nmodel\t\t: 207\nmodel name\t: A B  C\nmodel name\t: D\n";
        assert_eq!(cpu(text), Some("A B  C"));
        assert_eq!(cpu(""), None);
    }

    #[test]
    fn a_machine_has_a_word_for_files() {
        let machine = samples::machine();
        assert_eq!(machine.word(), "host-6.18");
        let vm = Machine {
            kind: "VM, emulated".into(),
            kernel: "6.12.117+deb12-cloud-amd64".into(),
            ..machine
        };
        assert_eq!(vm.word(), "vm-6.12");
    }
}
