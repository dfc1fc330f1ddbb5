//! Tests workflow commands by reading them as GitHub's runner does.

use auditor::facts::{Snapshot, Subject};
use terminal::Medium;

use super::hostile::{HOSTILE, hostile};
use crate::formats::Format;
use crate::formats::render;
use crate::story::made;
use crate::story::*;

fn text(host: &Snapshot) -> String {
    render(&made(host), Format::Github, Medium::FILE).unwrap()
}

/// A command as the runner understands it, with its name, properties and message decoded.
#[derive(Debug, PartialEq)]
struct Command {
    name: String,
    properties: Vec<(String, String)>,
    message: String,
}

fn decoded(text: &str) -> String {
    text.replace("%0D", "\r")
        .replace("%0A", "\n")
        .replace("%3A", ":")
        .replace("%2C", ",")
        .replace("%25", "%")
}

fn commands(text: &str) -> Vec<Command> {
    // The runner also takes a carriage return for the end of a line.
    let lines = text.split(['\n', '\r']).filter(|line| !line.is_empty());
    let command = |line: &str| {
        let (head, message) = line.strip_prefix("::").unwrap().split_once("::").unwrap();
        let (name, properties) = head.split_once(' ').unwrap();
        let property = |pair: &str| {
            let (key, value) = pair.split_once('=').unwrap();
            (key.to_owned(), decoded(value))
        };
        Command {
            name: name.to_owned(),
            properties: properties.split(',').map(property).collect(),
            message: decoded(message),
        }
    };
    lines.map(command).collect()
}

#[test]
fn a_leak_is_an_error_a_gap_a_warning_and_the_verdict_a_notice() {
    let mut host = whole(orphan());
    host.gap(Subject::Pins);
    let commands = commands(&text(&host));
    let names: Vec<_> = commands.iter().map(|command| command.name.as_str()).collect();
    assert_eq!(names, ["error", "warning", "notice"]);
    let title = |command: &Command| {
        command.properties[..]
            == [("title".to_owned(), "chadthrottle-audit: orphaned_attachment".to_owned())]
    };
    assert!(title(&commands[0]), "{commands:?}");
    let message = &commands[0].message;
    assert!(
        message.starts_with("program 41 (chadthrottle_in) on /cgroup-9310, cgroup_inet_ingress: "),
        "{message}"
    );
    assert!(message.ends_with("\n-> `chadthrottle-audit clean` detaches it"), "{message}");
    assert_eq!(commands[1].message, "/x: denied");
    assert!(commands[2].message.starts_with("leaks: 1 leaked attachment on 1 cgroup"));
}

#[test]
fn a_clean_host_has_a_notice_only() {
    let commands = commands(&text(&whole(host())));
    assert_eq!(commands.len(), 1);
    assert_eq!(commands[0].name, "notice");
    assert!(commands[0].message.starts_with("clean: "), "{commands:?}");
}

#[test]
fn what_is_unowned_and_a_full_place_are_notices() {
    let mut host = whole(unowned());
    host.look().attachments.last_mut().unwrap().slots_used = 64;
    let commands = commands(&text(&host));
    assert_eq!(commands.len(), 3, "{commands:?}");
    assert!(commands.iter().all(|command| command.name == "notice"), "{commands:?}");
    let titles: Vec<_> = commands.iter().map(|command| command.properties[0].1.as_str()).collect();
    let expected =
        ["chadthrottle-audit: unowned", "chadthrottle-audit: full_place", "chadthrottle-audit"];
    assert_eq!(titles, expected);
}

#[test]
fn a_name_cannot_inject_a_command_or_a_property() {
    let mut host = hostile();
    host.tool.name = HOSTILE.into();
    let commands = commands(&text(&host));
    let names: Vec<_> = commands.iter().map(|command| command.name.as_str()).collect();
    assert_eq!(names, ["error", "warning", "notice"]);
    for command in &commands {
        assert_eq!(command.properties.len(), 1, "{command:?}");
        assert_eq!(command.properties[0].0, "title");
    }
    // The decoded message equals a terminal's text. The percent signs of the name stay as they are.
    assert!(commands[0].message.contains(r"on /a\n::error::x\r\n::set-output"), "{commands:?}");
    assert!(commands[0].message.contains("%0A%25:,=#{}?é"), "{commands:?}");
    assert!(commands[0].properties[0].1.contains("%0A%25:,=#{}?é"), "{commands:?}");
}
