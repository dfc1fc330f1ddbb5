//! The command line, without root: what is typed wrong is said plainly, with exit status 64.

use assert_cmd::Command;
use bpf::limits::Rate;
use predicates::prelude::*;
use predicates::str::contains;
use testkit::completion::in_bash;

fn chadthrottle() -> Command {
    Command::new(env!("CARGO_BIN_EXE_chadthrottle"))
}

fn refused(args: &[&str], why: &str) {
    chadthrottle().args(args).assert().code(64).stdout("").stderr(contains(why));
}

/// Once, as one sentence, whichever option it was and however it begins.
#[test]
fn nonsense_rates_are_refused_with_a_sentence() {
    for rate in ["0", "-1M", "ten", "10Mb", "10mib", "1e9", "", "500", "101G", "--upload"] {
        for option in ["--upload", "--download"] {
            let why = format!("error: \"{rate}\" is not a rate: ");
            refused(&["limit", "--cgroup", "/x", option, rate], &why);
            refused(&["limit", "--cgroup", "/x", &format!("{option}={rate}")], &why);
        }
    }
    refused(&["limit", "--cgroup", "/x", "--upload", "fast"], &Rate::units());
    refused(&["limit", "--cgroup", "/x", "--download", "-5M"], "a rate has no sign");
    refused(&["limit", "--cgroup", "/x", "--upload", "0"], "1 kB/s (1K) to 100 GB/s (100G)");
}

#[test]
fn a_target_and_a_rate_are_needed() {
    refused(&["limit", "--upload", "1M"], "--cgroup <PATH>|--pid <PID>");
    refused(&["limit", "--cgroup", "/x"], "--download <RATE>|--upload <RATE>");
    refused(&["limit", "--cgroup", "/x", "--pid", "1", "--upload", "1M"], "cannot be used with");
    refused(&["limit", "--pid", "0", "--upload", "1M"], "--pid");
    for none in ["0", "-5", "abc", "4294967296", "1.5", "", "--upload"] {
        let why = format!("invalid value '{none}' for '--pid <PID>': this is no process id");
        if !none.is_empty() {
            refused(&["limit", "--upload", "1M", "--pid", none], &why);
        }
        refused(&["limit", "--upload", "1M", &format!("--pid={none}")], "no process id");
    }
}

#[test]
fn times_are_checked() {
    refused(&["limit", "--cgroup", "/x", "--upload", "1M", "--burst", "2h"], "at most 1h");
    let duration = |time, why| {
        refused(&["limit", "--cgroup", "/x", "--upload", "1M", "--duration", time], "--duration");
        refused(&["limit", "--cgroup", "/x", "--upload", "1M", "--duration", time], why);
    };
    duration("soon", "write a number with a unit");
    duration("3", "write a number with a unit");
    for signed in ["-1s", "-1", "+1s", "-.5s"] {
        duration(signed, "a time has no sign");
        let limit = ["limit", "--cgroup", "/x", "--upload", "1M", "--burst", signed];
        refused(&limit, &format!("'{signed}' is no burst: a time has no sign"));
    }
    duration("--once", "write a number with a unit");
    for nothing in ["0s", "0", "1us", "999us"] {
        duration(nothing, "give at least 1ms");
    }
    for endless in ["2years", "100000000000years", "18446744073709551615s"] {
        duration(endless, "leave --duration out");
    }
}

#[test]
fn a_pinned_throttle_has_no_duration() {
    refused(
        &["limit", "--cgroup", "/x", "--upload", "1M", "--attach", "pinned", "--duration", "1s"],
        "chadthrottle rm",
    );
}

#[test]
fn a_guard_waits_for_a_cgroup_and_holds_whatever_it_sends() {
    let limit = ["limit", "--cgroup", "/x", "--upload", "1M", "--guard"];
    for (more, why) in [
        (&["--attach", "pinned"][..], "--guard needs a process"),
        (&["--traffic", "local"], "--guard holds all of the traffic"),
        (&["--once"], "cannot be used with"),
    ] {
        refused(&[&limit[..], more].concat(), why);
    }
}

#[test]
fn who_names_no_command_is_not_offered_hidden_ones() {
    for args in [&["-v"][..], &[]] {
        let said = chadthrottle().args(args).output().unwrap();
        assert_eq!(said.status.code(), Some(64));
        let said = String::from_utf8(said.stderr).unwrap();
        assert!(said.contains("rearm") && !said.contains("ids"), "{said}");
    }
}

#[test]
fn rm_needs_an_id() {
    refused(&["rm"], "<ID>");
}

#[test]
fn every_command_takes_q_and_v_and_tells_its_exit_statuses() {
    for command in ["limit", "list", "rm", "doctor"] {
        let statuses = contains("Exit status:").and(contains("  64  ")).and(contains("  70  "));
        let options = contains("--quiet...").and(contains("--verbose..."));
        chadthrottle().args([command, "--help"]).assert().code(0).stdout(statuses.and(options));
    }
}

#[test]
fn the_published_schema_of_list_is_that_of_its_types() {
    let made = chadthrottle().args(["generate", "schema", "list"]).output().unwrap();
    let published = include_str!("../../docs/schema/list.schema.json");
    assert!(
        String::from_utf8(made.stdout).unwrap() == published,
        "docs/schema/list.schema.json is out of date: write it with `chadthrottle generate schema list`"
    );
}

#[test]
fn completions_know_every_value_and_where_paths_go() {
    let made = chadthrottle().args(["generate", "completions", "fish"]).output().unwrap();
    let text = String::from_utf8(made.stdout).unwrap();
    for values in ["shape", "pinned", "internet", "json", "list", "__fish_complete_directories"] {
        assert!(text.contains(values), "{values}: {text}");
    }
}

#[test]
fn bash_offers_the_ids_that_the_program_tells() {
    let made = chadthrottle().args(["generate", "completions", "bash"]).output().unwrap();
    // In its place stands a function: the ledger of this host is none of a test's business.
    let script = format!(
        "chadthrottle() {{ [ \"$*\" = ids ] && printf '7\\nweb\\n'; echo no >&2; }}\n{}",
        String::from_utf8(made.stdout).unwrap()
    );
    let offered = |words: &[&str]| in_bash(&script, &[&["chadthrottle"], words].concat());
    for command in ["rm", "rearm"] {
        let all = offered(&[command, ""]);
        assert!(["7", "web", "--help"].iter().all(|it| all.iter().any(|one| one == it)), "{all:?}");
        assert_eq!(offered(&[command, "7", "w"]), ["web"], "{command}");
    }
    assert_eq!(offered(&["list", "w"]), [""; 0]);
    assert!(!offered(&[""]).contains(&"ids".to_owned()), "it is hidden");
}

#[test]
fn zsh_and_fish_ask_the_program_for_ids() {
    for shell in ["zsh", "fish"] {
        let made = chadthrottle().args(["generate", "completions", shell]).output().unwrap();
        let script = String::from_utf8(made.stdout).unwrap();
        let asks = script.matches("$(chadthrottle ids 2>/dev/null)").count()
            + script.matches("\"(chadthrottle ids 2>/dev/null)").count();
        assert_eq!(asks, 2, "{shell}: for rm and for rearm: {script}");
    }
}

#[test]
fn no_terminal_obeys_an_argument() {
    let evil = "\x1b[31m\x07";
    let said = chadthrottle().args(["limit", "--cgroup", "/x", "--upload", evil]).output().unwrap();
    assert_eq!(said.status.code(), Some(64));
    let said = String::from_utf8(said.stderr).unwrap();
    assert!(said.starts_with("error: "), "{said:?}");
    assert!(said.chars().all(|it| it == '\n' || !it.is_control()), "{said:?}");
}

#[test]
fn help_names_units_and_needs() {
    chadthrottle()
        .args(["limit", "--help"])
        .assert()
        .success()
        .stdout(contains(Rate::units()).and(contains("CAP_BPF")).and(contains("Linux 5.12")));
}

#[test]
fn man_pages_and_completions_are_generated() {
    let folder = std::env::temp_dir().join(format!("chadtest-man-{}", std::process::id()));
    chadthrottle().args(["generate", "man"]).arg(&folder).assert().success();
    let page = std::fs::read_to_string(folder.join("chadthrottle-limit.8"));
    std::fs::remove_dir_all(&folder).unwrap();
    let page = page.unwrap();
    assert!(page.contains("download\\-queue") && page.contains(".SH NOTES"), "{page}");
    chadthrottle()
        .args(["generate", "completions", "zsh"])
        .assert()
        .success()
        .stdout(contains("download-queue"));
    refused(&["generate", "completions", "dos"], "'dos'");
}

#[test]
fn the_published_schemas_are_those_of_the_types() {
    let published = include_str!("../../docs/schema/doctor.schema.json");
    let output = chadthrottle().args(["generate", "schema", "doctor"]).output().unwrap();
    assert!(
        output.stdout == published.as_bytes(),
        "docs/schema/doctor.schema.json is out of date: write it with `chadthrottle generate schema doctor`"
    );
}

#[test]
fn standard_output_that_cannot_be_written_is_told_as_the_auditor_tells_it() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_chadthrottle"))
        .args(["generate", "schema", "list"])
        .stdout(full)
        .output()
        .unwrap();
    let expected =
        "error: cannot write to standard output: No space left on device (write: ENOSPC)\n";
    assert_eq!(
        (output.status.code(), &*String::from_utf8_lossy(&output.stderr)),
        (Some(70), expected)
    );
}
