//! Finds out whether KVM runs a stock kernel here. `/dev/kvm` alone does not prove it: on some machines a guest starts
//! and then hangs. So this boots a kernel for a moment.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::ValueEnum;

use super::command::tail;
use super::group::Group;

/// How a guest's processor is to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Wish {
    /// With KVM where it runs a kernel, and emulated elsewhere.
    Auto,
    /// With KVM.
    Kvm,
    /// Emulated by QEMU (TCG), some ten times slower.
    Tcg,
}

/// Whether guests use KVM, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accel {
    /// Whether guests use KVM.
    pub kvm: bool,
    /// The reason, as text.
    pub why: String,
}

impl std::fmt::Display for Accel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", if self.kvm { "KVM" } else { "TCG, no KVM" }, self.why)
    }
}

/// The time that a kernel may take to find that it has no root file system. It takes less than two seconds, or far
/// longer if KVM itself runs in a virtual machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Chooses KVM or emulation. It boots `image` as a trial, if there is one.
///
/// # Errors
/// Fails if the wish is KVM and KVM runs no kernel, because virtme-ng would silently emulate.
pub fn choose(wish: Wish, image: Option<&Path>) -> anyhow::Result<Accel> {
    let accel = match wish {
        Wish::Tcg => Accel { kvm: false, why: "asked for".into() },
        Wish::Kvm | Wish::Auto => look(Path::new("/dev/kvm"), image),
    };
    ensure!(accel.kvm || wish != Wish::Kvm, "KVM is asked for: {}", accel.why);
    Ok(accel)
}

fn look(device: &Path, image: Option<&Path>) -> Accel {
    let accel = |kvm, why: &str| Accel { kvm, why: why.into() };
    if let Err(error) = OpenOptions::new().read(true).write(true).open(device) {
        return accel(false, &format!("{}: {error}", device.display()));
    }
    match image.map(fails) {
        None => accel(true, "/dev/kvm is there; no kernel to try it with"),
        Some(Ok(None)) => accel(true, "a kernel was tried"),
        Some(Ok(Some(why))) => accel(false, &format!("/dev/kvm is there, but {why}")),
        Some(Err(error)) => accel(false, &format!("/dev/kvm is there, but {error:#}")),
    }
}

/// Returns why this kernel does not get as far as the search for a root file system under KVM, if so.
fn fails(image: &Path) -> anyhow::Result<Option<String>> {
    let dir = tempfile::tempdir()?;
    let (console, said) = (dir.path().join("console"), dir.path().join("said"));
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-machine", "q35,accel=kvm", "-cpu", "host", "-m", "512", "-nodefaults"])
        .args(["-display", "none", "-no-reboot", "-serial"])
        .arg(format!("file:{}", console.display()))
        .arg("-kernel")
        .arg(image)
        .args(["-append", "console=ttyS0 panic=-1"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&said)?);
    let group = Group::start(&mut qemu)?;
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline && !group.has_ended()? {
        std::thread::sleep(Duration::from_millis(50));
    }
    let ended = group.has_ended()?;
    group.end()?;
    let read = |path: &Path| -> anyhow::Result<String> {
        Ok(String::from_utf8_lossy(&std::fs::read(path)?).into_owned())
    };
    if read(&console).is_ok_and(|console| console.contains("Unable to mount root fs")) {
        Ok(None)
    } else if ended {
        Ok(Some(format!("QEMU ends: {}", tail(read(&said)?.trim(), 1))))
    } else {
        Ok(Some(format!("a kernel did not come up in {} s", PATIENCE.as_secs())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_granted_and_said() {
        assert_eq!(choose(Wish::Tcg, None).unwrap().to_string(), "TCG, no KVM (asked for)");
        let none = look(Path::new("/nowhere/kvm"), None);
        assert!(!none.kvm && none.why.starts_with("/nowhere/kvm: No such file"), "{none}");
    }

    #[test]
    fn kvm_that_does_not_run_is_no_kvm() {
        // This is no kernel, so QEMU ends at once, with KVM or without.
        let image = Path::new("/dev/null");
        let error = choose(Wish::Kvm, Some(image)).unwrap_err().to_string();
        assert!(error.starts_with("KVM is asked for: /dev/kvm"), "{error}");
        assert!(!choose(Wish::Auto, Some(image)).unwrap().kvm);
    }
}
