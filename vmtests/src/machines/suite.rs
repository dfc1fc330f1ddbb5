//! Lists on the host the tests that every guest has to run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::{Value, json};

use super::command::{find, output};

/// A test: its binary and its name in that binary.
pub type TestId = (String, String);

/// The tests to run on the kernels.
#[derive(Debug)]
pub struct Suite {
    /// The parts for the last kernel: all tests, or those that the host has not run.
    pub whole: Vec<Part>,
    /// The parts for the other kernels: all tests except those that need only one kernel.
    pub each: Vec<Part>,
    /// Files and directories that the tests read.
    pub reads: Vec<PathBuf>,
    /// The path of the tests' `JUnit` XML.
    pub junit: PathBuf,
    /// The folders that the tests write to.
    pub scratch: Vec<PathBuf>,
}

/// The tests for one machine.
#[derive(Debug)]
pub struct Part {
    /// The test binary, if the machine runs only one.
    pub name: Option<String>,
    /// The test runner and its arguments.
    pub command: Vec<String>,
    /// The tests that the machine has to run.
    pub expected: BTreeSet<TestId>,
}

/// The build, as `cargo nextest list --list-type binaries-only` and `cargo metadata` describe it.
#[derive(Debug, Clone)]
pub struct Built {
    /// The file with nextest's output.
    pub binaries: PathBuf,
    /// The file with the output of `cargo metadata`.
    pub metadata: PathBuf,
}

impl Built {
    /// Builds the tests.
    ///
    /// # Errors
    /// Fails if the tests do not build.
    pub fn make(workspace: &Path, dir: &Path) -> Result<Self> {
        let cargo = || {
            let mut cargo = Command::new("cargo");
            cargo.current_dir(workspace);
            cargo
        };
        let built =
            Self { binaries: dir.join("binaries.json"), metadata: dir.join("metadata.json") };
        let list = ["nextest", "list", "--workspace", "--locked", "--list-type", "binaries-only"];
        let text = output(cargo().args(list).args(["--message-format", "json"]))?;
        fs::write(&built.binaries, text)?;
        let host = output(Command::new("rustc").args(["--print", "host-tuple"]))?;
        let metadata = ["metadata", "--format-version", "1", "--locked", "--filter-platform"];
        fs::write(&built.metadata, output(cargo().args(metadata).arg(host.trim()))?)?;
        Ok(built)
    }
}

impl Suite {
    /// Lists the tests that these filters name, and writes into `dir` what the guests need. Each binary in `apart` gets
    /// a machine of its own.
    ///
    /// Without filters, one kernel alone runs the tests `once`. With `has_host` that is the host's kernel. The last
    /// kernel then runs only those of the tests that need a machine.
    ///
    /// # Errors
    /// Fails if no test matches. Without filters it also fails if a binary in `apart` or the filter `once` has no test.
    pub fn list(
        workspace: &Path,
        dir: &Path,
        built: &Built,
        filter: &[String],
        apart: &[String],
        once: Option<&str>,
        has_host: bool,
    ) -> Result<Self> {
        let lister = Lister::new(workspace, dir, built)?;
        let expected = lister.matching(filter)?;
        if expected.is_empty() {
            bail!(
                "no test matches {}; `vmtests vm` runs the tests named root_… and vm_…",
                words(filter)
            );
        }
        let is_there = |name: &String| expected.iter().any(|(binary, _)| binary == name);
        if let Some(name) = apart.iter().find(|name| filter.is_empty() && !is_there(name)) {
            bail!(
                "{name} is to have a machine of its own (`apart` in kernels.toml), and has no test"
            );
        }
        let each = match once {
            // A user who names tests wants them on every kernel.
            Some(once) if filter.is_empty() => {
                let others = ["-E".to_owned(), format!("not ({once})")];
                let tests = lister.matching(&others)?;
                if tests.is_empty() || tests == expected {
                    bail!("`once` in kernels.toml names {} tests", expected.len() - tests.len());
                }
                lister.parts(tests, apart, &others, "each")?
            }
            _ => lister.parts(expected.clone(), apart, filter, "each")?,
        };
        let whole = match once {
            Some(once) if filter.is_empty() && has_host => {
                let others = ["-E".to_owned(), format!("not (({once}) & not test(/(^|::)vm_/))")];
                lister.parts(lister.matching(&others)?, apart, &others, "whole")?
            }
            _ => lister.parts(expected, apart, filter, "whole")?,
        };
        let target = target_directory(&built.metadata)?;
        let store = workspace.join("target/nextest");
        let tmp = target.join("tmp");
        for dir in [&store, &tmp] {
            fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        }
        let reads =
            vec![workspace.into(), target, lister.nextest, dir.into(), built.metadata.clone()];
        let junit = store.join("vm/junit.xml");
        Ok(Self { whole, each, reads, junit, scratch: vec![store, tmp] })
    }
}

/// Asks nextest for the tests.
struct Lister<'a> {
    nextest: PathBuf,
    workspace: &'a Path,
    dir: &'a Path,
    built: &'a Built,
    /// Nextest's list of binaries.
    binaries: String,
}

impl<'a> Lister<'a> {
    fn new(workspace: &'a Path, dir: &'a Path, built: &'a Built) -> Result<Self> {
        let nextest = find("cargo-nextest")
            .context("cargo-nextest is not here; `scripts/setup test` installs it")?;
        let binaries = fs::read_to_string(&built.binaries)
            .with_context(|| built.binaries.display().to_string())?;
        Ok(Self { nextest, workspace, dir, built, binaries })
    }

    fn command(&self, verb: &str, binaries: &Path) -> Vec<String> {
        let mut words = vec![self.nextest.display().to_string(), "nextest".into(), verb.into()];
        // A guest skips no test.
        words.extend(["--profile", "vm", "--run-ignored", "all"].map(String::from));
        words.extend(["--binaries-metadata".into(), binaries.display().to_string()]);
        words.extend(["--cargo-metadata".into(), self.built.metadata.display().to_string()]);
        words
    }

    /// Returns the tests that these filters name.
    fn matching(&self, filter: &[String]) -> Result<BTreeSet<TestId>> {
        let list = self.command("list", &self.built.binaries);
        let mut command = Command::new(&list[0]);
        command.args(&list[1..]).args(["--message-format", "json"]).args(filter);
        matching(&output(command.current_dir(self.workspace))?)
    }

    /// Returns the parts that run these tests. The filter names them.
    fn parts(
        &self,
        tests: BTreeSet<TestId>,
        apart: &[String],
        filter: &[String],
        of: &str,
    ) -> Result<Vec<Part>> {
        let part = |(name, expected): (Option<String>, BTreeSet<TestId>)| {
            // A guest lists each of its binaries again, so it gets only those that it needs.
            let binaries = self.dir.join(format!("{}.json", named(of, name.as_deref())));
            fs::write(&binaries, only(&self.binaries, &expected)?)?;
            let mut command = self.command("run", &binaries);
            command.extend(
                ["--no-fail-fast", "--color", "never", "--status-level", "all"].map(String::from),
            );
            command.extend(filter.iter().cloned());
            Ok(Part { name, command, expected })
        };
        parts(tests, apart).into_iter().map(part).collect()
    }
}

/// Divides tests among machines. The first gets all whose binary is not in `apart`.
fn parts(tests: BTreeSet<TestId>, apart: &[String]) -> Vec<(Option<String>, BTreeSet<TestId>)> {
    let (alone, together): (BTreeSet<_>, _) =
        tests.into_iter().partition(|(binary, _)| apart.contains(binary));
    let of_its_own = |name: &String| {
        let tests = alone.iter().filter(|(binary, _)| binary == name).cloned().collect();
        (Some(name.clone()), tests)
    };
    let all = std::iter::once((None, together)).chain(apart.iter().map(of_its_own));
    all.filter(|(_, tests)| !tests.is_empty()).collect()
}

/// Names a part of a kernel's run by the kernel, and by its binary if it has only one.
pub fn named(whole: &str, part: Option<&str>) -> String {
    match part {
        None => whole.to_owned(),
        // The name of the binary follows the name of its crate.
        Some(part) => format!("{whole}-{}", part.rsplit("::").next().unwrap_or(part)),
    }
}

/// Formats the filter as text.
fn words(filter: &[String]) -> String {
    if filter.is_empty() { "the profile".into() } else { format!("`{}`", filter.join(" ")) }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct List {
    rust_suites: BTreeMap<String, ListedSuite>,
}

#[derive(Deserialize)]
struct ListedSuite {
    testcases: BTreeMap<String, Case>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Case {
    filter_match: Match,
}

#[derive(Deserialize)]
struct Match {
    status: String,
}

/// Returns the tests that would run, from the output of `nextest list --message-format json`.
fn matching(text: &str) -> Result<BTreeSet<TestId>> {
    let list: List =
        serde_json::from_str(text).context("nextest's list is not what was expected")?;
    let mut found = BTreeSet::new();
    for (binary, suite) in list.rust_suites {
        let names =
            suite.testcases.into_iter().filter(|(_, case)| case.filter_match.status == "matches");
        found.extend(names.map(|(name, _)| (binary.clone(), name)));
    }
    Ok(found)
}

/// Removes from nextest's list the binaries without any of these tests, and the folders that it would add to the
/// library path. Our binaries do not need them. In a guest each lookup is a round trip to the host, hundreds at every
/// exec, which took half of the sequences' time.
fn only(text: &str, tests: &BTreeSet<TestId>) -> Result<String> {
    let mut list: Value = serde_json::from_str(text).context("nextest's list of binaries")?;
    let binaries = list["rust-binaries"].as_object_mut().context("nextest's list of binaries")?;
    let needed: BTreeSet<&String> = tests.iter().map(|(binary, _)| binary).collect();
    binaries.retain(|binary, _| needed.contains(binary));
    let built = list["rust-build-meta"].as_object_mut().context("nextest's list of binaries")?;
    for folders in ["linked-paths", "base-output-directories"] {
        built.insert(folders.into(), json!([]));
    }
    built.remove("platforms");
    Ok(list.to_string())
}

fn target_directory(metadata: &Path) -> Result<PathBuf> {
    #[derive(Deserialize)]
    struct Metadata {
        target_directory: PathBuf,
    }
    let text = fs::read_to_string(metadata).with_context(|| metadata.display().to_string())?;
    let metadata: Metadata = serde_json::from_str(&text).context("cargo's metadata")?;
    Ok(metadata.target_directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_test_is_in_one_machine_and_no_machine_is_without_tests() {
        let test = |binary: &str, name: &str| (binary.to_owned(), name.to_owned());
        let tests = [test("a", "x"), test("a", "y"), test("b::gate", "x"), test("c", "z")];
        let all = || BTreeSet::from(tests.clone());
        let part = |name: Option<&str>, tests: &[TestId]| {
            (name.map(str::to_owned), tests.iter().cloned().collect::<BTreeSet<_>>())
        };
        let apart = ["b::gate".to_owned(), "none".to_owned()];
        let expected = [
            part(None, &[tests[0].clone(), tests[1].clone(), tests[3].clone()]),
            part(Some("b::gate"), &tests[2..3]),
        ];
        assert_eq!(parts(all(), &apart), expected);
        assert_eq!(parts(all(), &[]), [part(None, &tests)]);
        let gate = BTreeSet::from([tests[2].clone()]);
        assert_eq!(parts(gate, &apart), [part(Some("b::gate"), &tests[2..3])]);
        assert_eq!(named("6.1", None), "6.1");
        assert_eq!(named("6.1", Some("b::gate")), "6.1-gate");
    }

    #[test]
    fn what_matches_is_expected_and_nothing_else() {
        let text = r#"{"rust-suites": {
            "a": {"testcases": {
                "root_x": {"filter-match": {"status": "matches"}, "ignored": true},
                "y": {"filter-match": {"status": "mismatch", "reason": "default-filter"}}}},
            "a::b": {"testcases": {}}}}"#;
        let expected = matching(text).unwrap();
        assert_eq!(expected, BTreeSet::from([("a".into(), "root_x".into())]));
        assert!(matching("{}").is_err());
        let binaries = r#"{"rust-build-meta": {"target-directory": "/t", "linked-paths": ["x"], "platforms": {}},
            "rust-binaries": {"a": {"x": 1}, "a::b": {}}}"#;
        let kept: Value = serde_json::from_str(&only(binaries, &expected).unwrap()).unwrap();
        assert_eq!(kept["rust-binaries"], serde_json::json!({"a": {"x": 1}}));
        let built =
            json!({"target-directory": "/t", "linked-paths": [], "base-output-directories": []});
        assert_eq!(kept["rust-build-meta"], built);
    }
}
