//! Keeps sequences that failed, tries them again, and prints the command that replays them.

use std::fmt::{self, Write as _};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::shell::quote;

/// Names the folder from which `vmtests vm` copies files out of a guest, to the same path on the host.
pub const KEPT: &str = "VMTESTS_KEPT";

/// How often a failure occurred again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Again {
    /// The number of runs.
    pub runs: u32,
    /// The number of failed runs.
    pub failed: u32,
}

impl Again {
    /// The number of runs in [`Again::tried`].
    const RUNS: u32 = 3;

    /// Runs a sequence a few times and counts the failures.
    pub fn tried(mut fails: impl FnMut() -> bool) -> Self {
        let failed = (0..Self::RUNS).map(|_| u32::from(fails())).sum();
        Self { runs: Self::RUNS, failed }
    }
}

impl fmt::Display for Again {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { runs, failed } = self;
        write!(f, "it failed {failed} times of {runs}")?;
        if failed < runs {
            f.write_str(": it takes more than these steps, a moment or what else goes on here")?;
        }
        Ok(())
    }
}

/// What a user needs to reproduce a failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repeat {
    /// How often the failure occurred again, if it was tried.
    pub again: Option<Again>,
    /// The command to type.
    pub command: String,
}

impl fmt::Display for Repeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(again) = self.again {
            writeln!(f, "  tried again just now, {again}")?;
        }
        writeln!(f, "  to see it again: {}", self.command)
    }
}

/// The part of the runner's matrix entry that names the guest's kernel.
#[derive(Deserialize)]
struct MatrixEntry {
    name: String,
}

/// Where a sequence failed. This decides which command reproduces it.
#[derive(Debug, Clone)]
pub struct Place {
    /// The kernel's name in the matrix, in a guest.
    guest: Option<String>,
    /// Whether the user is root and needs no sudo.
    is_root: bool,
    /// The folder of the sources, where the user types the command.
    workspace: PathBuf,
    /// The folder of the programs of this build.
    programs: PathBuf,
}

impl Place {
    /// Returns the place of this process.
    ///
    /// # Panics
    /// Panics in a guest if the runner's matrix entry cannot be read.
    pub fn here() -> Self {
        let guest = std::env::var("VMTESTS_KERNEL").ok().map(|text| {
            let kernel: MatrixEntry = serde_json::from_str(&text).expect("the matrix's entry");
            kernel.name
        });
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"));
        let own = std::env::current_exe().unwrap_or_default();
        let folder = own.parent().unwrap_or(Path::new(""));
        let is_test = folder.ends_with("deps");
        let programs = folder.parent().filter(|_| is_test).unwrap_or(folder);
        // `scripts/test` uses sudo only to run what it has built. A guest gets this variable too.
        let is_sudo = std::env::var_os("SUDO_USER").is_some_and(|user| !user.is_empty());
        Self {
            guest,
            is_root: nix::unistd::geteuid().is_root() && !is_sudo,
            workspace: workspace.to_owned(),
            programs: programs.to_owned(),
        }
    }

    /// Returns a path as a user would type it at the top of the sources.
    fn shown(&self, path: &Path) -> String {
        let path = path.strip_prefix(&self.workspace).unwrap_or(path).to_string_lossy();
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+,".contains(&byte);
        if path.bytes().all(is_plain) { path.into_owned() } else { quote(&path) }
    }
}

/// Keeps a sequence that failed among the sources, so that it runs first from now on. A guest writes it into the folder
/// that its host copies. If the sources are read-only, it goes to the folder for temporary files.
///
/// # Errors
/// Fails if it cannot be written to any place that outlives this machine.
pub fn keep(sources: &Path, name: &str, text: &str) -> io::Result<PathBuf> {
    let place = Place::here();
    let folders = match std::env::var_os(KEPT) {
        Some(folder) => vec![PathBuf::from(folder)],
        None if place.guest.is_some() => Vec::new(),
        None => vec![sources.to_owned(), std::env::temp_dir()],
    };
    keep_in(&folders, name, text)
}

/// Writes the text into the first writable folder.
///
/// # Errors
/// Fails if no folder is writable.
pub fn keep_in(folders: &[PathBuf], name: &str, text: &str) -> io::Result<PathBuf> {
    let mut done = Err(io::Error::other("no folder here outlives this machine"));
    for folder in folders {
        let path = folder.join(name);
        done = fs::create_dir_all(folder).and_then(|()| fs::write(&path, text)).map(|()| path);
        if done.is_ok() {
            break;
        }
    }
    done
}

/// The arguments of `vmtests replay` that run a sequence again.
#[derive(Debug, Clone, Default)]
pub struct Replay {
    /// The file, or `None` if it could not be written.
    pub file: Option<PathBuf>,
    /// Whether the sequence runs on the running kernel instead of the model.
    pub on_kernel: bool,
    /// The kernel version that the model follows.
    pub rules: Option<String>,
    /// The throttle system.
    pub system: Option<String>,
}

impl Replay {
    /// Returns the last lines of a failure's report: the sequence as JSON, how often it failed again, and what to type.
    pub fn last_lines(&self, json: &str, again: Option<Again>) -> String {
        self.last_lines_at(&Place::here(), json, again)
    }

    fn last_lines_at(&self, place: &Place, json: &str, again: Option<Again>) -> String {
        let mut text = format!("  as JSON: {json}\n");
        if self.file.is_none() {
            text.push_str("  it is kept nowhere: save the JSON above as FILE\n");
        }
        text + &Repeat { again, command: self.typed(place) }.to_string()
    }

    /// Returns how a user sees the failure again.
    pub fn repeat(&self, again: Option<Again>) -> Repeat {
        Repeat { again, command: self.typed(&Place::here()) }
    }

    fn typed(&self, place: &Place) -> String {
        let vmtests = place.shown(&place.programs.join("vmtests"));
        let file = self.file.as_ref().map_or("FILE".to_owned(), |file| place.shown(file));
        let mut replay = format!("{vmtests} replay {file}");
        if self.on_kernel {
            replay.push_str(" --on kernel");
        }
        if let Some(rules) = &self.rules {
            let _ = write!(replay, " --rules {rules}");
        }
        if let Some(system) = &self.system {
            let _ = write!(replay, " --system {system}");
        }
        let sudo = if self.on_kernel && !place.is_root { "sudo " } else { "" };
        let typed = match &place.guest {
            Some(kernel) if self.on_kernel => {
                format!("{sudo}{vmtests} vm --kernel {kernel} --command {}", quote(&replay))
            }
            _ => format!("{sudo}{replay}"),
        };
        // A sequence also runs the program and the auditor, so all binaries are needed.
        format!("cargo build --workspace --bins && {typed}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Place {
        Place {
            guest: None,
            is_root: false,
            workspace: "/src".into(),
            programs: "/src/target/debug".into(),
        }
    }

    const BUILD: &str = "cargo build --workspace --bins && ";

    #[test]
    fn what_to_type_goes_by_the_machine_and_the_rights_that_it_takes() {
        let file = |path: &str| Some(PathBuf::from(path));
        let model = Replay {
            file: file("/src/vmtests/regressions/sequences/x.json"),
            rules: Some("6.18".into()),
            ..Replay::default()
        };
        let typed = |replay: &Replay, place: &Place| {
            replay.typed(place).strip_prefix(BUILD).expect("it is built first").to_owned()
        };
        let replay = "target/debug/vmtests replay";
        let on_model = format!("{replay} vmtests/regressions/sequences/x.json --rules 6.18");
        assert_eq!(typed(&model, &host()), on_model);

        let on_kernel = Replay {
            file: file("/tmp/it's x.json"),
            on_kernel: true,
            system: Some("engine".into()),
            ..Replay::default()
        };
        let as_root = format!(r"{replay} '/tmp/it'\''s x.json' --on kernel --system engine");
        assert_eq!(typed(&on_kernel, &host()), format!("sudo {as_root}"));
        let root = Place { is_root: true, ..host() };
        assert_eq!(typed(&on_kernel, &root), as_root);

        let guest = Place { guest: Some("6.1".into()), ..host() };
        let kept = Replay { file: file("/src/target/vm/6.1/kept/x.json"), ..on_kernel.clone() };
        let command =
            "target/debug/vmtests replay target/vm/6.1/kept/x.json --on kernel --system engine";
        let vm = format!("target/debug/vmtests vm --kernel 6.1 --command '{command}'");
        assert_eq!(typed(&kept, &guest), format!("sudo {vm}"));
        assert_eq!(typed(&kept, &Place { is_root: true, ..guest.clone() }), vm);
        // The model is the same everywhere.
        assert_eq!(typed(&model, &guest), on_model);
    }

    #[test]
    fn the_last_lines_say_what_the_file_has_whether_it_fails_again_and_what_to_type() {
        let mut outcomes = [true, false, true].into_iter();
        let sometimes = Again::tried(|| outcomes.next().unwrap());
        let replay = Replay { file: Some("/kept.json".into()), ..Replay::default() };
        let text = replay.last_lines_at(&host(), "{}", Some(sometimes));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "  as JSON: {}");
        let told = "  tried again just now, it failed 2 times of 3: it takes more than these steps";
        assert!(lines[1].starts_with(told), "{text}");
        let typed = "target/debug/vmtests replay /kept.json";
        assert_eq!(lines[2..], [format!("  to see it again: {BUILD}{typed}")]);

        let always = Replay::default().last_lines_at(&host(), "{}", Some(Again::tried(|| true)));
        assert!(always.contains("it failed 3 times of 3\n"), "{always}");
        assert!(always.contains("save the JSON above as FILE\n"), "{always}");
        assert!(always.ends_with("vmtests replay FILE\n"), "{always}");
        let repeat = Repeat { again: Some(sometimes), command: format!("{BUILD}{typed}") };
        assert_eq!(repeat.to_string().lines().collect::<Vec<_>>(), lines[1..]);
    }

    #[test]
    fn a_sequence_is_kept_in_the_first_folder_that_takes_it() {
        let dir = tempfile::tempdir().unwrap();
        let folders = ["/proc/none", "a", "b"].map(|name| dir.path().join(name));
        let kept = keep_in(&folders, "x.json", "{}").unwrap();
        assert_eq!(
            (fs::read_to_string(&kept).unwrap().as_str(), &*kept),
            ("{}", &*folders[1].join("x.json"))
        );
        assert!(keep_in(&folders[..1], "x.json", "{}").is_err());
        assert!(keep_in(&[], "x.json", "{}").unwrap_err().to_string().contains("outlives"));
    }
}
