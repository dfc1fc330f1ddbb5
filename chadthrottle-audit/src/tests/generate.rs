//! Tests that man pages and completions cover the whole command line.

use clap::{Command, CommandFactory, ValueEnum};
use terminal::{Shell, completions, man_pages};
use testkit::completion::in_bash;

use crate::cli::Cli;

/// Tells whether users may call the command. Only the program itself calls hidden ones.
fn is_public(command: &Command) -> bool {
    command.get_name() != "help" && !command.is_hide_set()
}

/// Returns a command and all its subcommands, with the names of their pages.
fn commands(command: &Command, name: &str) -> Vec<(String, Command)> {
    let below = command.get_subcommands().filter(|it| is_public(it));
    let below = below.flat_map(|it| commands(it, &format!("{name}-{}", it.get_name())));
    [(name.to_owned(), command.clone())].into_iter().chain(below).collect()
}

fn all() -> Vec<(String, Command)> {
    let mut command = Cli::command();
    command.build();
    commands(&command, "chadthrottle-audit")
}

fn longs(command: &Command) -> Vec<String> {
    command.get_arguments().filter_map(|it| Some(format!("--{}", it.get_long()?))).collect()
}

#[test]
fn every_command_has_a_page_and_every_option_is_in_it() {
    let pages = man_pages(Cli::command(), &["other(8)"]).unwrap();
    let all = all();
    assert_eq!(pages.len(), all.len());
    for (name, command) in all {
        let page = pages[&format!("{name}.8")].replace("\\-", "-");
        for option in longs(&command) {
            assert!(page.contains(&format!("{option}\\fR")), "{option} is not in {name}: {page}");
        }
        for value in command.get_arguments().flat_map(clap::Arg::get_possible_values) {
            assert!(page.contains(value.get_name()), "{} is not in {name}", value.get_name());
        }
        for below in command.get_subcommands().filter(|it| is_public(it)) {
            assert!(page.contains(&format!("{name}-{}(8)", below.get_name())), "{name}: {page}");
        }
        assert!(page.contains(".SH \"SEE ALSO\"") && page.contains("other(8)"), "{page}");
    }
}

#[test]
fn what_the_help_says_last_is_in_sections_of_its_own() {
    let pages = man_pages(Cli::command(), &[]).unwrap();
    let scan = pages["chadthrottle-audit-scan.8"].replace("\\-", "-");
    let at = |text: &str| scan.find(text).unwrap_or_else(|| panic!("no {text} in {scan}"));
    assert!(at(".SH \"EXIT STATUS\"") < at("\n0   clean"));
    assert!(at("\n0   clean") < at(".SH EXAMPLES"));
    assert!(
        at(".SH EXAMPLES") < at("\nchadthrottle-audit scan --from snapshot.json --format sarif")
    );
    assert!(!scan.contains("Exit status:") && !scan.contains("Examples:"), "{scan}");
    assert!(scan.contains("chadthrottle-audit(8)"), "the page above is named: {scan}");
}

#[test]
fn notes_are_those_paragraphs_that_have_no_heading() {
    let command = Command::new("x")
        .after_help("RATE is a rate.\nTIME is a time.\n\nIt is both.\n\nExit status: 0 done.");
    let page = &man_pages(command, &[]).unwrap()["x.8"];
    assert!(
        page.contains(".SH NOTES\nRATE is a rate.\n.br\nTIME is a time.\n.PP\nIt is both.\n"),
        "{page}"
    );
    assert!(page.contains(".SH \"EXIT STATUS\"\n.nf\n0 done.\n.fi\n"), "{page}");
}

#[test]
fn every_command_and_option_can_be_completed_in_every_shell() {
    for shell in Shell::value_variants() {
        let script = completions(&Cli::command(), *shell).unwrap();
        for (name, command) in all() {
            for option in longs(&command) {
                // Some shells list the option without its dashes.
                assert!(
                    script.contains(option.trim_start_matches('-')),
                    "{shell}: {name} {option}"
                );
            }
            assert!(script.contains(command.get_name()), "{shell}: {name}");
        }
    }
}

#[test]
fn no_shell_offers_what_is_hidden() {
    for shell in Shell::value_variants() {
        let script = completions(&Cli::command(), *shell).unwrap();
        assert!(script.contains("explain") && !script.contains("gate-command"), "{shell}");
    }
}

/// Returns what a real bash offers after these words.
fn offered(words: &[&str]) -> Vec<String> {
    let script = completions(&Cli::command(), Shell::Bash).unwrap();
    in_bash(&script, &[&["chadthrottle-audit"], words].concat())
}

#[test]
fn bash_offers_the_options_of_every_command() {
    for (name, command) in all() {
        let below = name.strip_prefix("chadthrottle-audit").unwrap();
        let mut words: Vec<_> = below.split('-').filter(|it| !it.is_empty()).collect();
        words.push("-");
        let offered = offered(&words);
        for option in longs(&command) {
            assert!(offered.contains(&option), "{name}: {option} is not in {offered:?}");
        }
    }
}

#[test]
fn bash_offers_findings_attach_types_and_formats() {
    use auditor::judge::Finding;
    use kernel::AttachType;
    let offers = |words: &[&str], values: &[&str]| {
        let offered = offered(words);
        for value in values {
            assert!(offered.iter().any(|it| it == value), "{words:?}: {value}: {offered:?}");
        }
    };
    offers(&["explain", ""], &Finding::ALL.map(Finding::name));
    let attach_types: Vec<_> = AttachType::all().map(AttachType::name).collect();
    offers(&["scan", "--attach-type", ""], &attach_types);
    offers(&["gate", "--format", ""], &["text", "sarif"]);
    assert_eq!(offered(&["explain", "stack"]), ["stacked_duplicate"]);
    assert_eq!(offered(&["gate", "--format", "prom"]), [""; 0], "gate does not have it");
}

#[test]
fn findings_attach_types_and_formats_can_be_completed() {
    use auditor::judge::Finding;
    use kernel::AttachType;
    let findings = Finding::ALL.map(Finding::name);
    let attach_types: Vec<_> = AttachType::all().map(AttachType::name).collect();
    // clap_complete writes the values of positional arguments only for bash and zsh; `completions` adds them for fish.
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let script = completions(&Cli::command(), shell).unwrap();
        for value in findings.iter().chain(&attach_types).chain(&["sarif"]) {
            assert!(script.contains(value), "{shell}: {value}");
        }
    }
}

#[test]
fn a_format_that_a_command_does_not_have_is_in_none_of_its_help() {
    for (name, command) in all() {
        let arguments = command.get_arguments();
        let mut formats = arguments.filter(|it| it.get_long() == Some("format"));
        let Some(format) = formats.next() else { continue };
        let values = format.get_possible_values();
        let values: Vec<&str> = values.iter().map(clap::builder::PossibleValue::get_name).collect();
        let others =
            ["chadthrottle-audit-gate", "chadthrottle-audit-diff", "chadthrottle-audit-clean"];
        let is_offered = !others.contains(&&*name);
        assert_eq!(values.contains(&"prometheus"), is_offered, "{name}: {values:?}");
        let page = &man_pages(Cli::command(), &[]).unwrap()[&format!("{name}.8")];
        let page = page.to_lowercase();
        assert_eq!(page.contains("prometheus"), is_offered, "{name}: {page}");
    }
}

#[test]
fn what_a_command_leaves_is_looked_for_whatever_its_name_is() {
    for (name, command) in all() {
        let mut arguments = command.get_arguments();
        let Some(programs) = arguments.find(|it| it.get_long() == Some("program")) else {
            continue;
        };
        let is_comparison =
            ["chadthrottle-audit-gate", "chadthrottle-audit-diff"].contains(&&*name);
        let expected = if is_comparison { "*" } else { "chadthrottle*" };
        assert_eq!(programs.get_default_values(), [expected], "{name}");
    }
}
