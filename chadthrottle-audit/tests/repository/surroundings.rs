//! The table of `docs/operating/surroundings.md`: each row is a test that exists, and each such test has a row.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const DOCUMENT: &str = include_str!("../../../docs/operating/surroundings.md");

/// Where the tests are that the document names, from the workspace's folder.
const SOURCES: [&str; 10] = [
    "auditor/src",
    "auditor/tests",
    "bpf/src",
    "kernel/src",
    "kernel/tests",
    "bpf/tests",
    "chadthrottle-audit/src",
    "chadthrottle-audit/tests",
    "throttle-core/src",
    "vmtests/tests",
];

/// The files of which every test has a row.
const DOCUMENTED: [&str; 2] =
    [include_str!("../root/surroundings.rs"), include_str!("../root/names.rs")];

/// Where the tables of tests end.
const FIGURES: &str = "## Beside others";

/// The last cell of each row of a table: the names of tests.
fn rows() -> Vec<Vec<&'static str>> {
    let is_row = |line: &&str| line.starts_with("| ") && !line.starts_with("| ---");
    let last = |line: &'static str| line.trim_end_matches([' ', '|']).rsplit(" | ").next();
    let (tables, _) = DOCUMENT.split_once(FIGURES).expect("figures come last");
    let cells = tables.lines().filter(is_row).filter_map(last);
    cells
        .filter(|cell| *cell != "test")
        .map(|cell| cell.split('`').skip(1).step_by(2).collect())
        .collect()
}

fn functions(source: &str) -> impl Iterator<Item = &str> {
    source.lines().filter_map(|line| line.trim_start().strip_prefix("fn ")?.split('(').next())
}

fn sources_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
    {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources_below(&path, found);
        } else if path.extension().is_some_and(|it| it == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_row_names_tests_that_exist() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = Vec::new();
    for folder in SOURCES {
        sources_below(&workspace.join(folder), &mut files);
    }
    let texts: Vec<String> = files.iter().map(|it| fs::read_to_string(it).unwrap()).collect();
    let there: BTreeSet<&str> = texts.iter().flat_map(|it| functions(it)).collect();
    let rows = rows();
    assert!(rows.len() > 30, "{rows:?}");
    for row in rows {
        assert!(!row.is_empty(), "a row without a test");
        for name in row {
            assert!(there.contains(name), "there is no test {name}");
        }
    }
}

#[test]
fn every_test_of_surroundings_and_of_names_has_a_row() {
    let named: BTreeSet<&str> = rows().into_iter().flatten().collect();
    let tests = DOCUMENTED.iter().flat_map(|it| functions(it)).filter(|it| it.starts_with("root_"));
    let missing: Vec<&str> = tests.filter(|it| !named.contains(it)).collect();
    assert_eq!(missing, [""; 0]);
}
