//! Reads the matrix of kernels: which kernels to test, how to get them, and what each supports.

use std::path::PathBuf;
use std::time::Duration;

use kernel::probe::Support;
use serde::{Deserialize, Serialize};

/// The matrix file in the sources.
pub const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/kernels.toml");

/// The whole matrix.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Matrix {
    /// Test binaries that get a machine of their own on each kernel.
    #[serde(default)]
    pub apart: Vec<String>,
    /// A nextest filterset of tests that need only one kernel. The last kernel of a run runs them.
    pub once: Option<String>,
    /// The time limits of a guest.
    pub limits: Limits,
    /// The kernels, in the order of the file.
    #[serde(rename = "kernel")]
    pub kernels: Vec<Kernel>,
}

/// The time limits of a guest, in seconds.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// The time until the guest's script begins.
    pub boot: u64,
    /// The time until the guest's script has ended.
    pub run: u64,
}

impl Limits {
    /// Returns the time limit for the start of the script.
    pub fn boot(&self) -> Duration {
        Duration::from_secs(self.boot)
    }

    /// Returns the time limit for the end of the script.
    pub fn run(&self) -> Duration {
        Duration::from_secs(self.run)
    }
}

/// One kernel.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// The name that selects the kernel.
    pub name: String,
    /// The prefix of `uname -r`.
    pub release: Option<String>,
    /// The lowest version that `uname -r` may report.
    pub at_least: Option<String>,
    /// Whether a run without named kernels includes this one.
    #[serde(default)]
    pub default: bool,
    /// The ways to get the kernel. The first way that this system supports counts.
    pub get: Vec<Way>,
    /// What `kernel::probe` must find.
    pub expect: Support,
    /// Whether [`kernel::probe::tcx`] must find lists on network devices.
    #[serde(default)]
    pub tcx: bool,
}

/// How to get a kernel.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(untagged)]
pub enum Way {
    /// A Debian package.
    Debian(Debian),
    /// A kernel that `vng --run VERSION` fetches.
    Mainline(Mainline),
    /// An existing file.
    Image(Image),
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Debian(debian) => write!(f, "{} of {}", debian.package, debian.suite),
            Self::Mainline(mainline) => write!(f, "mainline {}", mainline.version),
            Self::Image(image) => write!(f, "{}", image.image.display()),
        }
    }
}

/// A Debian package with a kernel, or a package that depends on one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Debian {
    /// The name of the package.
    #[serde(rename = "debian")]
    pub package: String,
    /// The suite that has the package.
    pub suite: String,
}

/// A mainline kernel.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Mainline {
    /// The version, with its `v`.
    #[serde(rename = "mainline")]
    pub version: String,
}

/// A kernel image.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// The path of the image.
    pub image: PathBuf,
}

/// The matrix is invalid, or has no such kernel.
#[derive(Debug, thiserror::Error)]
pub enum MatrixError {
    /// The text is no matrix.
    #[error("{0}")]
    Syntax(#[from] toml::de::Error),
    /// The matrix contradicts itself.
    #[error("kernel {0}: {1}")]
    Kernel(String, &'static str),
    /// The matrix lacks a requested kernel.
    #[error("there is no kernel {0} in the matrix; it has {1}")]
    Unknown(String, String),
}

impl Matrix {
    /// Parses the text of the matrix file.
    ///
    /// # Errors
    /// Fails if the text is no valid matrix.
    pub fn parse(text: &str) -> Result<Self, MatrixError> {
        let matrix: Self = toml::from_str(text)?;
        for (index, kernel) in matrix.kernels.iter().enumerate() {
            let wrong = |what| Err(MatrixError::Kernel(kernel.name.clone(), what));
            if !is_a_name(&kernel.name) {
                return wrong(
                    "a name is letters, digits, points and dashes: it names a directory too",
                );
            }
            if kernel.release.is_some() == kernel.at_least.is_some() {
                return wrong("it needs `release` or `at_least`, and not both");
            }
            if kernel.get.is_empty() {
                return wrong("`get` names no way to get it");
            }
            if matrix.kernels[..index].iter().any(|other| other.name == kernel.name) {
                return wrong("it is there twice");
            }
        }
        Ok(matrix)
    }

    /// Returns the named kernels, each once. Without names it returns the default ones.
    ///
    /// # Errors
    /// Fails if a name is not in the matrix.
    pub fn select(&self, names: &[String]) -> Result<Vec<&Kernel>, MatrixError> {
        for name in names {
            if !self.kernels.iter().any(|kernel| kernel.name == *name) {
                let known: Vec<_> =
                    self.kernels.iter().map(|kernel| kernel.name.as_str()).collect();
                return Err(MatrixError::Unknown(name.clone(), known.join(", ")));
            }
        }
        let chosen = |kernel: &&Kernel| match names {
            [] => kernel.default,
            names => names.contains(&kernel.name),
        };
        Ok(self.kernels.iter().filter(chosen).collect())
    }
}

/// Tells whether a name is valid. Names become directories and parts of command lines.
fn is_a_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.chars().all(|char| char.is_ascii_alphanumeric() || ".-".contains(char))
}

impl Kernel {
    /// Tells whether a kernel with this release is the one meant here.
    pub fn is_release(&self, release: &str) -> bool {
        let begins = |prefix: &String| release.starts_with(prefix.as_str());
        let reaches = |lowest: &String| version(release) >= version(lowest);
        self.release.as_ref().is_none_or(begins) && self.at_least.as_ref().is_none_or(reaches)
    }

    /// Describes what `uname -r` must report.
    pub fn wanted(&self) -> String {
        match (&self.release, &self.at_least) {
            (Some(prefix), _) => format!("{prefix}*"),
            (None, Some(lowest)) => format!("{lowest} or later"),
            (None, None) => String::from("any"),
        }
    }
}

/// Returns the first two numbers of a kernel's version.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|char: char| !char.is_ascii_digit()).map(str::parse);
    let mut number = || numbers.next().and_then(Result::ok).unwrap_or(0);
    (number(), number())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPECT: &str = "expect = { links = true, program_flags = true, \
                          expected_revision = false, tcp = true }";

    fn parse(kernels: &[&str]) -> Result<Matrix, MatrixError> {
        let mut text = String::from("[limits]\nboot = 1\nrun = 2\n");
        for kernel in kernels {
            text += &["[[kernel]]", kernel, EXPECT, ""].join("\n");
        }
        Matrix::parse(&text)
    }

    fn names(kernels: &[&Kernel]) -> Vec<String> {
        kernels.iter().map(|kernel| kernel.name.clone()).collect()
    }

    #[test]
    fn the_file_in_the_sources_is_a_matrix_with_three_kernels_by_default() {
        let matrix = Matrix::parse(&std::fs::read_to_string(FILE).unwrap()).unwrap();
        assert_eq!(names(&matrix.select(&[]).unwrap()), ["6.1", "6.12", "newest"]);
        assert_eq!(matrix.select(&["6.6".into()]).unwrap()[0].release.as_deref(), Some("6.6."));
    }

    #[test]
    fn each_way_is_read() {
        let way = |get: &str| {
            parse(&[&format!("name = \"a\"\nrelease = \"6.\"\nget = [{get}]")]).unwrap().kernels[0]
                .get[0]
                .clone()
        };
        let debian = Debian { package: "p".into(), suite: "s".into() };
        assert_eq!(way("{ debian = \"p\", suite = \"s\" }"), Way::Debian(debian));
        assert_eq!(way("{ mainline = \"v1\" }"), Way::Mainline(Mainline { version: "v1".into() }));
        assert_eq!(way("{ image = \"/k\" }"), Way::Image(Image { image: "/k".into() }));
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let get = "get = [{ mainline = \"v1\" }]";
        for (kernel, why) in [
            (format!("name = \"../a\"\nrelease = \"6.\"\n{get}"), "names a directory"),
            (format!("name = \"a\"\n{get}"), "`release` or `at_least`"),
            (format!("name = \"a\"\nrelease = \"6.\"\nat_least = \"6.1\"\n{get}"), "not both"),
            ("name = \"a\"\nrelease = \"6.\"\nget = []".to_owned(), "no way"),
            (format!("name = \"a\"\nrelease = \"6.\"\nspeed = 1\n{get}"), "unknown field"),
        ] {
            let error = parse(&[&kernel]).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        let one = format!("name = \"a\"\nrelease = \"6.\"\n{get}");
        assert!(parse(&[&one, &one]).unwrap_err().to_string().contains("twice"));
    }

    #[test]
    fn a_name_that_is_not_there_is_an_error_and_not_an_empty_run() {
        let matrix =
            parse(&["name = \"a\"\nrelease = \"6.\"\nget = [{ mainline = \"v1\" }]"]).unwrap();
        let error = matrix.select(&["b".into()]).unwrap_err().to_string();
        assert_eq!(error, "there is no kernel b in the matrix; it has a");
        assert!(matrix.select(&[]).unwrap().is_empty());
    }

    #[test]
    fn a_release_is_told_from_its_neighbours() {
        let kernel = |release: Option<&str>, at_least: Option<&str>| Kernel {
            name: "a".into(),
            release: release.map(Into::into),
            at_least: at_least.map(Into::into),
            default: true,
            get: Vec::new(),
            tcx: true,
            expect: Support {
                links: true,
                program_flags: true,
                expected_revision: true,
                tcp: true,
            },
        };
        assert!(kernel(Some("6.1."), None).is_release("6.1.0-56-cloud-amd64"));
        assert!(!kernel(Some("6.1."), None).is_release("6.12.117+deb12-cloud-amd64"));
        assert!(kernel(None, Some("6.17")).is_release("7.3.4+deb13-cloud-amd64"));
        assert!(kernel(None, Some("6.17")).is_release("6.17.0-rc1"));
        assert!(!kernel(None, Some("6.17")).is_release("6.9.1"));
    }
}
