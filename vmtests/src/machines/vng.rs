//! Builds the command line that boots a kernel, and the settings for its guest.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use testkit::shell::quote;

use super::accel::Accel;
use super::command::find;

/// The folder with the scripts for the guest and the wrapper for virtiofsd.
const GUEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/guest");

/// Kernel parameters that shorten a boot without KVM from over a minute to some seconds. Each was measured.
const QUICK: [&str; 8] = [
    "mitigations=off",
    "cryptomgr.notests",
    "audit=0",
    "no5lvl",
    "nowatchdog",
    "rcupdate.rcu_expedited=1",
    // The console is slow. Warnings and panics still appear.
    "quiet",
    "loglevel=4",
];

/// Kernel parameters for emulated processors. Together they give four times as many of the gate's steps per second,
/// with two machines on two processors.
const EMULATED: [&str; 2] = [
    // QEMU caches translated code by address. With random addresses it would translate each program every time.
    "norandmaps",
    // Emulated processors that wait for one another take time from the other machine. A test that needs more of them
    // brings them online.
    "maxcpus=1",
];

/// Directories that get their own file systems, which hide the host's.
const HIDDEN: [&str; 6] =
    ["/run", "/var/tmp", "/var/log", "/var/cache", "/var/lib/private", "/dev"];

/// Other versions of virtiofsd, written in Rust. virtme-ng finds them, and they need no wrapper.
const VIRTIOFSD: [&str; 3] =
    ["/usr/libexec/virtiofsd", "/usr/lib/virtiofsd/virtiofsd", "/usr/lib/virtiofsd"];

/// The settings for a boot.
#[derive(Debug)]
pub struct Boot<'a> {
    /// The path of virtme-ng.
    pub vng: &'a Path,
    /// An image, or a version that virtme-ng fetches.
    pub kernel: &'a Path,
    /// Whether to use KVM.
    pub accel: &'a Accel,
    /// The number of processors.
    pub cpus: u32,
    /// The amount of memory, in QEMU's notation.
    pub memory: &'a str,
    /// A directory for temporary files. Its name must be short, because it holds sockets.
    pub tmp: &'a Path,
}

/// The settings for the guest's script.
#[derive(Debug)]
pub struct Settings {
    /// The word that marks the script's own lines.
    pub word: String,
    /// The folder of the sources.
    pub workspace: PathBuf,
    /// The command to run.
    pub tests: Vec<String>,
    /// The path of the `JUnit` XML that the command writes.
    pub junit: Option<PathBuf>,
    /// The directory with files to copy out at the end, if any.
    pub kept: Option<PathBuf>,
    /// The directory where tests write their results, if tests run.
    pub results: Option<PathBuf>,
    /// The directories that must be writable.
    pub scratch: Vec<PathBuf>,
    /// Environment variables.
    pub env: Vec<(&'static str, String)>,
}

impl Settings {
    /// Writes the settings to the file that the guest's script reads.
    ///
    /// # Errors
    /// Returns errors of writing.
    pub fn write(&self, file: &Path) -> Result<()> {
        fs::write(file, self.text()).with_context(|| file.display().to_string())
    }

    fn text(&self) -> String {
        let path = |path: &Path| quote(&path.display().to_string());
        let list = |words: &mut dyn Iterator<Item = String>| words.collect::<Vec<_>>().join(" ");
        let mut lines = vec![
            format!("word={}", quote(&self.word)),
            format!("workspace={}", path(&self.workspace)),
            format!("tests=({})", list(&mut self.tests.iter().map(|word| quote(word)))),
            format!("junit={}", self.junit.as_deref().map(path).unwrap_or_default()),
            format!("kept={}", self.kept.as_deref().map(path).unwrap_or_default()),
            format!("results={}", self.results.as_deref().map(path).unwrap_or_default()),
            format!("scratch=({})", list(&mut self.scratch.iter().map(|dir| path(dir)))),
        ];
        lines
            .extend(self.env.iter().map(|(name, value)| format!("export {name}={}", quote(value))));
        lines.join("\n") + "\n"
    }
}

impl Boot<'_> {
    /// Returns the command. `visible` lists files and directories that the guest must see.
    pub fn command(&self, settings: &Path, visible: &[&Path]) -> Command {
        let mut command = Command::new(self.vng);
        command.arg("--verbose").arg("--run").arg(self.kernel);
        // The tests have root in the guest, whoever starts virtme-ng.
        command.args(["--user", "root"]);
        command.args(["--cpus", &self.cpus.to_string(), "--memory", self.memory]);
        if !self.accel.kvm {
            // An older processor has fewer instructions to emulate.
            command.args(["--disable-kvm", "--qemu-opts=-cpu Nehalem"]);
            for option in EMULATED {
                command.args(["--append", option]);
            }
        }
        // The directory comes first, so that the guest uses its udevadm.
        let path = format!("PATH={GUEST}/bin:/bin:/sbin:/usr/bin:/usr/sbin");
        for option in std::iter::once(path.as_str()).chain(QUICK) {
            command.arg("--append").arg(option);
        }
        for dir in mounts(visible) {
            command.arg(format!("--rodir={}", dir.display()));
        }
        let script = format!("{} {}", quote(&format!("{GUEST}/run")), quote_path(settings));
        command.arg("--").arg(script);
        command.env("PATH", self.path()).env("TMPDIR", self.tmp);
        command
    }

    /// Returns the PATH on which virtme-ng finds its own parts and virtiofsd.
    fn path(&self) -> std::ffi::OsString {
        let mut dirs: Vec<PathBuf> = self.vng.parent().map(Path::to_owned).into_iter().collect();
        if !VIRTIOFSD.iter().any(|file| Path::new(file).is_file()) && find("virtiofsd").is_none() {
            dirs.push(Path::new(GUEST).join("host"));
        }
        let rest = std::env::var_os("PATH").unwrap_or_default();
        dirs.extend(std::env::split_paths(&rest));
        dirs.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
        std::env::join_paths(dirs).unwrap_or(rest)
    }
}

/// Returns the directories that must be mounted in the guest, because it hides the host's.
fn mounts(visible: &[&Path]) -> BTreeSet<PathBuf> {
    let hidden = |path: &&&Path| HIDDEN.iter().any(|dir| path.starts_with(dir));
    let dir =
        |path: &&Path| if path.is_file() { path.parent().unwrap_or(path) } else { path }.to_owned();
    let dirs: BTreeSet<PathBuf> = visible.iter().filter(hidden).map(dir).collect();
    // A mounted directory includes those below it.
    let covered = |dir: &PathBuf| dir.ancestors().skip(1).any(|above| dirs.contains(above));
    dirs.iter().filter(|dir| !covered(dir)).cloned().collect()
}

fn quote_path(path: &Path) -> String {
    quote(&path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_what_a_shell_reads() {
        let settings = Settings {
            word: "w".into(),
            workspace: "/a b".into(),
            tests: vec!["echo".into(), "it's".into(), "$HOME".into(), String::new()],
            junit: None,
            kept: Some("/k".into()),
            results: Some("/r".into()),
            scratch: vec!["/x".into(), "/y z".into()],
            env: vec![("VALUE", "{\"a\": 'b'}\n".into())],
        };
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("settings");
        settings.write(&file).unwrap();
        let script = format!(
            ". {}; printf '<%s>' \"$word\" \"$workspace\" \"${{tests[@]}}\" \"$junit\" \"$kept\" \"$results\" \"${{scratch[@]}}\"; env",
            file.display()
        );
        let said =
            super::super::command::output(Command::new("bash").args(["-c", &script])).unwrap();
        assert!(said.starts_with("<w></a b><echo><it's><$HOME><><></k></r></x></y z>"), "{said}");
        assert!(said.contains("VALUE={\"a\": 'b'}\n"), "{said}");
    }

    #[test]
    fn what_the_guest_would_hide_is_mounted_and_nothing_else() {
        let visible = ["/src/project", "/var/tmp/x/target", "/var/tmp/x", "/variety", "/tmp/y"];
        let dirs = mounts(&visible.map(Path::new));
        assert_eq!(dirs.into_iter().collect::<Vec<_>>(), [PathBuf::from("/var/tmp/x")]);
    }

    #[test]
    fn the_command_says_which_processor_only_without_kvm() {
        let words = |kvm| {
            let accel = Accel { kvm, why: String::new() };
            let boot = Boot {
                vng: Path::new("/v/bin/vng"),
                kernel: Path::new("/k/vmlinuz"),
                accel: &accel,
                cpus: 2,
                memory: "2G",
                tmp: Path::new("/t"),
            };
            let command = boot.command(Path::new("/s"), &[Path::new("/run/x")]);
            command.get_args().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>()
        };
        for word in ["--disable-kvm", "norandmaps", "maxcpus=1"] {
            assert!(words(false).contains(&word.to_owned()));
            assert!(!words(true).contains(&word.to_owned()));
        }
        assert!(!words(true).iter().any(|word| word.contains("Nehalem")));
        assert!(words(true).contains(&"--rodir=/run/x".to_owned()));
    }
}
