//! Where, when, and with what was measured.

use std::fs;
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// Figures mean little without it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// `host`, or a virtual machine of the runner's: `VM, KVM` or `VM, emulated`.
    pub kind: String,
    /// `uname -r`.
    pub kernel: String,
    /// The processors' model.
    pub cpu: String,
    /// How many processors are online.
    pub processors: u32,
    /// When, as RFC 3339.
    pub taken_at: String,
    /// This version.
    pub chadthrottle: String,
    /// What `iperf3 --version` says.
    pub iperf3: String,
    /// What `tc -V` says.
    pub tc: String,
    /// What `nft --version` says, or that it is not there.
    pub nft: String,
}

impl Machine {
    /// This one, now.
    ///
    /// # Errors
    /// When it does not tell.
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

    /// One line for people.
    pub fn told(&self) -> String {
        let Self { kind, kernel, cpu, processors, taken_at, iperf3, tc, nft, .. } = self;
        format!("{kind}, Linux {kernel}, {processors} x {cpu}, {taken_at}; {iperf3}, {tc}, {nft}")
    }

    /// What a run takes besides its seconds, on average: the ends start, and the last replies are waited for.
    pub fn overhead_seconds(&self) -> f64 {
        if self.kind == EMULATED { 3.0 } else { 0.8 }
    }

    /// A word for it, fit for the name of a file.
    pub fn word(&self) -> String {
        let kind = self.kind.split(',').next().unwrap_or_default().to_lowercase();
        let mut numbers = self.kernel.split(|char: char| !char.is_ascii_digit());
        let mut number = || numbers.next().unwrap_or_default();
        format!("{kind}-{}.{}", number(), number())
    }
}

const EMULATED: &str = "VM, emulated";

/// The runner tells its guests what is expected of them; only KVM brings that clock.
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

/// The first line that says so.
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
