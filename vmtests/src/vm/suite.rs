//! The tests that are to run in every guest, listed on the host: what is listed has to run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::{Value, json};

use super::command::{find, output};

/// A test: the binary that it is in, and its name there.
pub type TestId = (String, String);

/// What runs in a guest.
#[derive(Debug)]
pub struct Suite {
    /// The test runner and its arguments.
    pub command: Vec<String>,
    /// The tests that it has to run.
    pub expected: BTreeSet<TestId>,
    /// Files and directories that it reads.
    pub reads: Vec<PathBuf>,
    /// Where it leaves its `JUnit` XML.
    pub junit: PathBuf,
    /// Where it writes.
    pub scratch: Vec<PathBuf>,
}

/// What cargo built, as `cargo nextest list --list-type binaries-only` and `cargo metadata` tell.
#[derive(Debug, Clone)]
pub struct Built {
    /// Of the former.
    pub binaries: PathBuf,
    /// Of the latter.
    pub metadata: PathBuf,
}

impl Built {
    /// Builds the tests.
    ///
    /// # Errors
    /// When they do not build.
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
    /// Finds out which tests these filters name, and writes what the guests need into `dir`.
    ///
    /// # Errors
    /// When they name none.
    pub fn list(workspace: &Path, dir: &Path, built: &Built, filter: &[String]) -> Result<Self> {
        let nextest = find("cargo-nextest")
            .context("cargo-nextest is not here; `scripts/setup test` installs it")?;
        let run = |verb: &str, binaries: &Path| {
            let mut words = vec![nextest.display().to_string(), "nextest".into(), verb.into()];
            // Nothing is left out in a guest.
            words.extend(["--profile", "vm", "--run-ignored", "all"].map(String::from));
            words.extend(["--binaries-metadata".into(), binaries.display().to_string()]);
            words.extend(["--cargo-metadata".into(), built.metadata.display().to_string()]);
            words
        };
        let list = run("list", &built.binaries);
        let text = output(
            Command::new(&list[0])
                .args(&list[1..])
                .args(["--message-format", "json"])
                .args(filter)
                .current_dir(workspace),
        )?;
        let expected = matching(&text)?;
        if expected.is_empty() {
            bail!(
                "no test matches {}; `vmtests vm` runs the tests named root_… and vm_…",
                words(filter)
            );
        }
        // A guest lists each binary once more: only those that it needs.
        let all = fs::read_to_string(&built.binaries)
            .with_context(|| built.binaries.display().to_string())?;
        let binaries = dir.join("binaries.json");
        fs::write(&binaries, only(&all, &expected)?)?;
        let mut command = run("run", &binaries);
        command.extend(
            ["--no-fail-fast", "--color", "never", "--status-level", "all"].map(String::from),
        );
        command.extend(filter.iter().cloned());
        let target = target_directory(&built.metadata)?;
        let store = workspace.join("target/nextest");
        let tmp = target.join("tmp");
        for dir in [&store, &tmp] {
            fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        }
        Ok(Self {
            command,
            expected,
            reads: vec![workspace.into(), target, nextest, dir.into(), built.metadata.clone()],
            junit: store.join("vm/junit.xml"),
            scratch: vec![store, tmp],
        })
    }
}

/// For people.
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

/// Of what `nextest list --message-format json` prints, the tests that would be run.
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

/// Nextest's list of binaries without those that hold none of these tests, and without the folders that nextest
/// would have every program look for its libraries in. They are linked statically or the system's, and on
/// the guest's root file system each look costs a round trip to the host: at every exec hundreds, which took
/// half of the gate's time.
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
