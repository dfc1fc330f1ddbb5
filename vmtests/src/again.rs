//! Sequences that failed: where they are kept, whether they fail again, and what to type to see that.

use std::fmt::{self, Write as _};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::model::Version;
use crate::vm::matrix::Kernel;
use crate::vm::vng::quote;

/// Names the folder whose files `vmtests vm` takes out of a guest: they lie at the same path on the host afterwards.
pub const KEPT: &str = "VMTESTS_KEPT";

/// How the line begins that says whether it failed again.
const TRIED: &str = "tried again just now, ";
/// How the line begins that says what to type.
const TYPE: &str = "to see it again: ";

/// Of what a test said, the lines that this module has put at its end.
pub fn last_lines_of(said: &str) -> impl Iterator<Item = &str> {
    let is_last = |line: &&str| [TRIED, TYPE].iter().any(|start| line.starts_with(start));
    said.lines().map(str::trim).filter(is_last)
}

/// Whether what failed once fails always.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Again {
    /// How often it was tried.
    pub runs: u32,
    /// How often it failed.
    pub failed: u32,
}

impl Again {
    /// How often [`Again::tried`] tries.
    const RUNS: u32 = 3;

    /// Tries it a few times, as it is.
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

/// Where a sequence failed, as far as it counts for what to type.
#[derive(Debug, Clone)]
pub struct Place {
    /// In a guest, what the matrix calls its kernel.
    guest: Option<String>,
    /// The rights that it takes are there without sudo.
    is_root: bool,
    /// The sources. What is typed is typed there.
    workspace: PathBuf,
    /// The folder of the programs that were built with this one.
    programs: PathBuf,
}

impl Place {
    /// Here.
    ///
    /// # Panics
    /// In a guest, when what the runner says of its kernel cannot be read.
    pub fn here() -> Self {
        let guest = std::env::var("VMTESTS_KERNEL").ok().map(|text| {
            let kernel: Kernel = serde_json::from_str(&text).expect("the matrix's entry");
            kernel.name
        });
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"));
        let own = std::env::current_exe().unwrap_or_default();
        let folder = own.parent().unwrap_or(Path::new(""));
        let is_test = folder.ends_with("deps");
        let programs = folder.parent().filter(|_| is_test).unwrap_or(folder);
        // `scripts/test` takes only what it has built to sudo, and a guest hears of it.
        let is_sudo = std::env::var_os("SUDO_USER").is_some_and(|user| !user.is_empty());
        Self {
            guest,
            is_root: nix::unistd::geteuid().is_root() && !is_sudo,
            workspace: workspace.to_owned(),
            programs: programs.to_owned(),
        }
    }

    /// A path as it can be typed at the top of the sources.
    fn shown(&self, path: &Path) -> String {
        let path = path.strip_prefix(&self.workspace).unwrap_or(path).to_string_lossy();
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+,".contains(&byte);
        if path.bytes().all(is_plain) { path.into_owned() } else { quote(&path) }
    }
}

/// Writes down a sequence that failed: among the sources, so that it is run again first from now on. A guest cannot
/// write there, but into the folder that its host takes out of it; where there are no sources that can be written, the
/// folder for temporary files has it.
///
/// # Errors
/// When it cannot be written anywhere where it stays.
pub fn keep(sources: &Path, name: &str, text: &str) -> io::Result<PathBuf> {
    let place = Place::here();
    let folders = match std::env::var_os(KEPT) {
        Some(folder) => vec![PathBuf::from(folder)],
        None if place.guest.is_some() => Vec::new(),
        None => vec![sources.to_owned(), std::env::temp_dir()],
    };
    keep_in(&folders, name, text)
}

/// In the first of these folders that takes it.
pub(crate) fn keep_in(folders: &[PathBuf], name: &str, text: &str) -> io::Result<PathBuf> {
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

/// How to see a sequence again: what `vmtests replay` takes.
#[derive(Debug, Clone, Default)]
pub struct Replay {
    /// The file; `None` if it could not be written.
    pub file: Option<PathBuf>,
    /// On the running kernel, not on the model.
    pub on_kernel: bool,
    /// Of the model: the rules.
    pub rules: Option<Version>,
    /// Which throttle system.
    pub system: Option<String>,
}

impl Replay {
    /// The last lines of what is said of a sequence: the JSON that its file has, whether it failed again, and what to
    /// type.
    pub fn last_lines(&self, json: &str, again: Option<Again>) -> String {
        self.last_lines_at(&Place::here(), json, again)
    }

    fn last_lines_at(&self, place: &Place, json: &str, again: Option<Again>) -> String {
        let mut text = format!("  as JSON: {json}\n");
        if self.file.is_none() {
            text.push_str("  it is kept nowhere: save the JSON above as FILE\n");
        }
        // Writing to a String cannot fail.
        if let Some(again) = again {
            let _ = writeln!(text, "  {TRIED}{again}");
        }
        let _ = writeln!(text, "  {TYPE}{}", self.typed(place));
        text
    }

    fn typed(&self, place: &Place) -> String {
        let vmtests = place.shown(&place.programs.join("vmtests"));
        let file = self.file.as_ref().map_or("FILE".to_owned(), |file| place.shown(file));
        let mut replay = format!("{vmtests} replay {file}");
        if self.on_kernel {
            replay.push_str(" --on kernel");
        }
        if let Some(rules) = self.rules {
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
        // All of them: a sequence runs the program and the auditor, too.
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
            file: file("/src/vmtests/regressions/gate/x.json"),
            rules: Some(Version::new(6, 18)),
            ..Replay::default()
        };
        let typed = |replay: &Replay, place: &Place| {
            replay.typed(place).strip_prefix(BUILD).expect("it is built first").to_owned()
        };
        let replay = "target/debug/vmtests replay";
        let on_model = format!("{replay} vmtests/regressions/gate/x.json --rules 6.18");
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
        // The model is the same anywhere.
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
        assert_eq!(last_lines_of(&text).collect::<Vec<_>>(), [lines[1].trim(), lines[2].trim()]);
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
