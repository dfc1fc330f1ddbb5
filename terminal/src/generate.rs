//! Generates man pages and completions from a program's command line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Arg, Command};
pub use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use crate::file::write;

/// The manual section for administrators' commands.
const SECTION: &str = "8";

const NOTES: &str = "NOTES";
const SEE_ALSO: &str = "SEE ALSO";

/// Returns a program's completions for a shell.
///
/// # Errors
/// The completions are not UTF-8.
pub fn completions(command: &Command, shell: Shell) -> anyhow::Result<String> {
    let name = command.get_name();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut public(command), name, &mut script);
    let script = String::from_utf8(script)?;
    // clap_complete 4.6 uses `this` for a hyphen of the program's name in some places, and `that` in others.
    let (this, that) = (name.replace('-', "__subcmd__"), name.replace('-', "__"));
    Ok(match shell {
        Shell::Bash => script.replace(&this, &that),
        Shell::Fish => {
            let under = name.replace('-', "_");
            let below = public(command).get_subcommands().fold(String::new(), |below, it| {
                let when = format!("__fish_{under}_using_subcommand {}", it.get_name());
                below + &fish_arguments(it, name, &when)
            });
            script + &below
        }
        _ => script,
    })
}

/// Returns fish completions for the arguments of a command and of its subcommands. `clap_complete` lets fish complete
/// only options. `when` is fish's condition for the command.
fn fish_arguments(command: &Command, program: &str, when: &str) -> String {
    let values = command.get_positionals().flat_map(Arg::get_possible_values);
    let words = values.filter(|value| !value.is_hide_set()).map(|value| {
        let about = value.get_help().map(ToString::to_string).unwrap_or_default();
        let about = about.replace('\\', "\\\\").replace('\'', "\\'");
        let name = value.get_name();
        format!("complete -c {program} -n \"{when}\" -f -a {name} -d '{about}'\n")
    });
    let below = command.get_subcommands().map(|it| {
        let when = format!("{when}; and __fish_seen_subcommand_from {}", it.get_name());
        fish_arguments(it, program, &when)
    });
    words.chain(below).collect()
}

/// Returns the command without its hidden subcommands, which `clap_complete` would offer.
fn public(command: &Command) -> Command {
    let below = command.get_subcommands().filter(|it| !it.is_hide_set()).map(public);
    Command::new(command.get_name().to_owned())
        .about(command.get_about().cloned().unwrap_or_default())
        .version(command.get_version().unwrap_or_default().to_owned())
        .disable_version_flag(command.get_version().is_none())
        .args(command.get_arguments().cloned())
        .groups(command.get_groups().cloned())
        .subcommands(below)
}

/// Writes the man pages of a program and of each subcommand to a directory, which it makes if necessary. Returns the
/// files.
///
/// # Errors
/// The directory cannot be made, or a file cannot be written.
pub fn write_man_pages(
    command: Command,
    see_also: &[&str],
    dir: &Path,
) -> anyhow::Result<Vec<PathBuf>> {
    std::fs::create_dir_all(dir)
        .with_context(|| format!("cannot make the directory {}", dir.display()))?;
    let mut files = Vec::new();
    for (name, page) in man_pages(command, see_also)? {
        let file = dir.join(name);
        write(Some(&file), &page)?;
        files.push(file);
    }
    Ok(files)
}

/// Returns the man pages of a program and of each subcommand, by file name. `see_also` names pages of other programs:
/// `bpftool-cgroup(8)`.
///
/// # Errors
/// The pages are not UTF-8.
pub fn man_pages(command: Command, see_also: &[&str]) -> anyhow::Result<BTreeMap<String, String>> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let source = format!("{} {}", command.get_name(), command.get_version().unwrap_or_default());
    let mut pages = BTreeMap::new();
    add(&command, &Family { parent: None, source, see_also }, &mut pages)?;
    Ok(pages)
}

struct Family<'a> {
    parent: Option<&'a str>,
    source: String,
    see_also: &'a [&'a str],
}

fn add(
    command: &Command,
    family: &Family<'_>,
    pages: &mut BTreeMap<String, String>,
) -> anyhow::Result<()> {
    // An empty date would vanish from the page, and the next word would count as the date.
    let man = Man::new(command.clone())
        .section(SECTION)
        .date(" ")
        .source(&family.source)
        .manual("chadthrottle");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    let subcommands: Vec<_> =
        command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()).collect();
    if !subcommands.is_empty() {
        man.render_subcommands_section(&mut page)?;
    }
    for (heading, lines) in sections(command) {
        section(&heading, &lines, &mut page)?;
    }
    let ours = family.parent.map(page_name).into_iter();
    let ours = ours.chain(subcommands.iter().map(|it| page_name(name(it))));
    let others = family.see_also.iter().map(|&page| page.to_owned());
    let all: Vec<_> = ours.chain(others).collect();
    section(SEE_ALSO, &[all.join(", ")], &mut page)?;
    pages.insert(man.get_filename(), String::from_utf8(page)?);
    for subcommand in subcommands {
        let family =
            Family { parent: Some(name(command)), source: family.source.clone(), ..*family };
        add(subcommand, &family, pages)?;
    }
    Ok(())
}

fn name(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

fn page_name(name: &str) -> String {
    format!("{name}({SECTION})")
}

/// Splits the help's last part into sections. A paragraph that begins with a usual heading becomes a section with that
/// name. The other paragraphs become notes.
fn sections(command: &Command) -> Vec<(String, Vec<String>)> {
    let after = command.get_after_long_help().or_else(|| command.get_after_help());
    let after = after.map(ToString::to_string).unwrap_or_default();
    let (mut named, mut notes) = (Vec::new(), Vec::new());
    for paragraph in after.split("\n\n").filter(|paragraph| !paragraph.trim().is_empty()) {
        let heading = ["Exit status:", "Examples:"]
            .into_iter()
            .find_map(|heading| Some((heading, paragraph.trim().strip_prefix(heading)?)));
        if let Some((heading, rest)) = heading {
            named.push((heading.trim_end_matches(':').to_uppercase(), lines(rest)));
            continue;
        }
        if !notes.is_empty() {
            notes.push(String::new());
        }
        notes.extend(lines(paragraph));
    }
    let notes = (!notes.is_empty()).then(|| (NOTES.to_owned(), notes));
    notes.into_iter().chain(named).collect()
}

/// Returns the lines without their common indentation.
fn lines(text: &str) -> Vec<String> {
    let lines = || text.lines().filter(|line| !line.trim().is_empty());
    let indent = |line: &str| line.len() - line.trim_start().len();
    let least = lines().map(indent).min().unwrap_or_default();
    lines().map(|line| line.get(least..).unwrap_or(line).to_owned()).collect()
}

/// Writes one section. Text is filled but keeps its line breaks. Tables and commands stay unchanged.
fn section(heading: &str, lines: &[String], page: &mut Vec<u8>) -> std::io::Result<()> {
    let is_filled = [NOTES, SEE_ALSO].contains(&heading);
    let mut roff = Roff::default();
    roff.control("SH", [heading]);
    if !is_filled {
        roff.control("nf", []);
    }
    let mut before = "";
    for line in lines {
        match (line.is_empty(), before.is_empty()) {
            (true, _) if is_filled => _ = roff.control("PP", []),
            (false, false) if is_filled => _ = roff.control("br", []).text([roman(line)]),
            _ => _ = roff.text([roman(line)]),
        }
        before = line;
    }
    if !is_filled {
        roff.control("fi", []);
    }
    roff.to_writer(page)
}
