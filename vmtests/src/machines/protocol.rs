//! Reads what a guest prints, line by line.
//!
//! The script's own lines begin with `@` and a word that the host chooses for each run. So no test can print such a
//! line by chance. All other lines come from the test runner.

/// A line of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// The script has begun, on this kernel.
    Booted {
        /// The output of `uname -r`.
        release: String,
    },
    /// The tests' `JUnit` XML follows.
    JunitBegins,
    /// The tests' `JUnit` XML has ended.
    JunitEnds,
    /// A file follows that the tests want to keep.
    KeptBegins {
        /// The name of the file, without a path.
        name: String,
    },
    /// The file has ended.
    KeptEnds,
    /// A file with the result of a test follows.
    ResultBegins {
        /// The name of the file, without a path.
        name: String,
    },
    /// The file has ended.
    ResultEnds,
    /// The script has done everything. Only this line is a verdict.
    Closing(Closing),
    /// A test has ended.
    Test(Test),
    /// Anything else.
    Other,
}

/// The last line of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closing {
    /// The exit status of the test runner.
    pub tests: i32,
    /// The exit status of the search for leftovers: 0 for none, 1 for some, 2 if the search failed.
    pub leftovers: i32,
}

/// A finished test, as nextest prints it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Test {
    /// Whether it passed.
    pub passed: bool,
    /// The number of finished tests.
    pub done: usize,
    /// The suite and the name.
    pub name: String,
}

/// Reads a line.
pub fn read(line: &str, word: &str) -> Line {
    let own = line.strip_prefix('@').and_then(|line| line.strip_prefix(word));
    let Some(own) = own else { return test(line).map_or(Line::Other, Line::Test) };
    match *own.split_whitespace().collect::<Vec<_>>() {
        ["booted", release] => Line::Booted { release: release.into() },
        ["junit"] => Line::JunitBegins,
        ["junit-end"] => Line::JunitEnds,
        ["kept", name] if is_name(name) => Line::KeptBegins { name: name.into() },
        ["kept-end"] => Line::KeptEnds,
        ["result", name] if is_name(name) => Line::ResultBegins { name: name.into() },
        ["result-end"] => Line::ResultEnds,
        ["closing", tests, leftovers] => {
            let status = |word: &str, name| word.strip_prefix(name)?.parse().ok();
            let closing = status(tests, "tests=")
                .zip(status(leftovers, "leftovers="))
                .map(|(tests, leftovers)| Closing { tests, leftovers });
            closing.map_or(Line::Other, Line::Closing)
        }
        _ => Line::Other,
    }
}

/// Tells whether the text is a file name that stays within its folder.
fn is_name(name: &str) -> bool {
    !name.contains('/') && name != ".."
}

/// Reads nextest's `PASS [   1.030s] ( 1/15) suite name`.
fn test(line: &str) -> Option<Test> {
    let (status, rest) = line.trim_start().split_once(" [")?;
    // nextest prints these while a test runs, and again at the end.
    if status == "SLOW" || status.starts_with("TERMINATING") || !line.starts_with(' ') {
        return None;
    }
    let (_, rest) = rest.split_once("] (")?;
    let (count, name) = rest.split_once(") ")?;
    let (done, _) = count.split_once('/')?;
    Some(Test {
        passed: status == "PASS",
        done: done.trim().parse().ok()?,
        name: name.trim().into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scripts_own_lines_are_read() {
        let closing = Closing { tests: 100, leftovers: 0 };
        assert_eq!(read("@w closing tests=100 leftovers=0", "w"), Line::Closing(closing));
        assert_eq!(read("@w booted 6.1.0-56", "w"), Line::Booted { release: "6.1.0-56".into() });
        assert_eq!(read("@w junit", "w"), Line::JunitBegins);
        assert_eq!(read("@w junit-end", "w"), Line::JunitEnds);
        assert_eq!(read("@w kept a.json", "w"), Line::KeptBegins { name: "a.json".into() });
        assert_eq!(read("@w kept-end", "w"), Line::KeptEnds);
        assert_eq!(read("@w result a.json", "w"), Line::ResultBegins { name: "a.json".into() });
        assert_eq!(read("@w result-end", "w"), Line::ResultEnds);
        for path in ["../a", "/a", ".."] {
            assert_eq!(read(&format!("@w kept {path}"), "w"), Line::Other, "{path}");
            assert_eq!(read(&format!("@w result {path}"), "w"), Line::Other, "{path}");
        }
    }

    #[test]
    fn only_a_whole_closing_line_with_this_runs_word_closes() {
        for line in [
            "@x closing tests=0 leftovers=0",
            "@w closing tests=0",
            "@w closing tests= leftovers=0",
            "@w closing tests=0 leftovers=0 more",
            "  @w closing tests=0 leftovers=0",
            "closing tests=0 leftovers=0",
        ] {
            assert_eq!(read(line, "w"), Line::Other, "{line}");
        }
    }

    #[test]
    fn tests_that_end_are_read_as_nextest_shows_them() {
        let ended = |passed, done, name: &str| Line::Test(Test { passed, done, name: name.into() });
        assert_eq!(
            read("        PASS [   1.030s] ( 1/15) bpf::root root_a", "w"),
            ended(true, 1, "bpf::root root_a")
        );
        assert_eq!(
            read("     TIMEOUT [ 240.030s] (12/15) bpf::root root_a", "w"),
            ended(false, 12, "bpf::root root_a")
        );
        assert_eq!(read("        LEAK-FAIL [ 1s] (2/3) a b", "w"), ended(false, 2, "a b"));
        for line in [
            "        SLOW [> 60.000s] (12/15) bpf::root root_a",
            " TERMINATING [>240.000s] (─────) bpf::root root_a",
            "     Summary [  16.768s] 15 tests run: 14 passed, 1 failed, 0 skipped",
            "PASS [   1.030s] ( 1/15) what a test prints",
        ] {
            assert_eq!(read(line, "w"), Line::Other, "{line}");
        }
    }
}
