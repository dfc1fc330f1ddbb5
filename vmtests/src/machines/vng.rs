//! Builds the command line that boots a kernel, and the settings for its guest.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use testkit::shell::quote;

use super::accel::Accel;
use super::command::find;

/// The scripts that run in the guest, and the one in place of virtiofsd.
const GUEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/guest");

/// Takes the guest's boot from more than a minute to some seconds without KVM (each was measured).
const QUICK: [&str; 8] = [
    "mitigations=off",
    "cryptomgr.notests",
    "audit=0",
    "no5lvl",
    "nowatchdog",
    "rcupdate.rcu_expedited=1",
    // The console is a slow line; warnings and a panic are still to be seen.
    "quiet",
    "loglevel=4",
];

/// The same where the processors are emulated. Together: four times as many of the gate's steps per second,
/// with two machines on two processors.
const EMULATED: [&str; 2] = [
    // QEMU finds translated code by its address: a program that lies elsewhere each time is translated
    // each time.
    "norandmaps",
    // Emulated processors that wait for one another take time from the other machine. The others are
    // there: who needs them brings them online.
    "maxcpus=1",
];

/// Where the guest has file systems of its own, so that it does not see the host's.
const HIDDEN: [&str; 6] =
    ["/run", "/var/tmp", "/var/log", "/var/cache", "/var/lib/private", "/dev"];

/// Other virtiofsds, written in Rust, which virtme-ng finds and which need no wrapper.
const VIRTIOFSD: [&str; 3] =
    ["/usr/libexec/virtiofsd", "/usr/lib/virtiofsd/virtiofsd", "/usr/lib/virtiofsd"];

/// How to boot.
#[derive(Debug)]
pub struct Boot<'a> {
    /// virtme-ng.
    pub vng: &'a Path,
    /// An image, or a version that virtme-ng fetches.
    pub kernel: &'a Path,
    /// Whether with KVM.
    pub accel: &'a Accel,
    /// How many processors.
    pub cpus: u32,
    /// How much memory, as QEMU takes it.
    pub memory: &'a str,
    /// A directory for temporary files; sockets are made there, so it must have a short name.
    pub tmp: &'a Path,
}

/// What the guest's script is told.
#[derive(Debug)]
pub struct Settings {
    /// What its own lines begin with.
    pub word: String,
    /// Where the sources are.
    pub workspace: PathBuf,
    /// What to run.
    pub tests: Vec<String>,
    /// Where that leaves its `JUnit` XML.
    pub junit: Option<PathBuf>,
    /// The directory whose files are wanted when it has ended, if any.
    pub kept: Option<PathBuf>,
    /// The directory where tests write their results, if tests are run.
    pub results: Option<PathBuf>,
    /// Directories that it must be able to write into.
    pub scratch: Vec<PathBuf>,
    /// Environment variables.
    pub env: Vec<(&'static str, String)>,
}

impl Settings {
    /// Writes them as the file that the guest's script reads.
    ///
    /// # Errors
    /// Those of writing.
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
    /// The command; `visible` are files and directories that the guest must see.
    pub fn command(&self, settings: &Path, visible: &[&Path]) -> Command {
        let mut command = Command::new(self.vng);
        command.arg("--verbose").arg("--run").arg(self.kernel);
        // Whoever starts it: in the guest the tests have root.
        command.args(["--user", "root"]);
        command.args(["--cpus", &self.cpus.to_string(), "--memory", self.memory]);
        if !self.accel.kvm {
            // An older processor's instructions are fewer to emulate.
            command.args(["--disable-kvm", "--qemu-opts=-cpu Nehalem"]);
            for option in EMULATED {
                command.args(["--append", option]);
            }
        }
        // The directory comes first so that its udevadm is the guest's.
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

    /// virtme-ng looks for its own parts, and for virtiofsd, on the PATH.
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

/// Of these, the directories that the guest has to be given apart, because it hides the host's.
fn mounts(visible: &[&Path]) -> BTreeSet<PathBuf> {
    let hidden = |path: &&&Path| HIDDEN.iter().any(|dir| path.starts_with(dir));
    let dir =
        |path: &&Path| if path.is_file() { path.parent().unwrap_or(path) } else { path }.to_owned();
    let dirs: BTreeSet<PathBuf> = visible.iter().filter(hidden).map(dir).collect();
    // One below another comes with it.
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
