//! Writes messages to standard error. `-q` and `-v` say how many.
//!
//! Notes and warnings are `tracing` events. Errors are not, so nothing silences them. Anybody may have chosen a name in
//! a message, so this module escapes all of them.

use std::fmt::{self, Debug, Display, Write as _};
use std::io::{self, Write as _};
use std::process::ExitCode;

use bpf::advice::explained;
use clap::Parser;
use clap::builder::styling::{AnsiColor, Style};
use clap::error::{ContextKind, ContextValue};
use clap_verbosity_flag::{LogLevel, Verbosity, VerbosityFilter};
use nix::errno::Errno;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::escape::escape;
use crate::exit::USAGE;

/// How much to say: notes by default, less with each `-q`, and technical details with `-v`.
pub type Loudness = Verbosity<Notes>;

/// Makes notes the default.
#[derive(Debug, Clone, Copy, Default)]
pub struct Notes;

impl LogLevel for Notes {
    fn default_filter() -> VerbosityFilter {
        VerbosityFilter::Info
    }

    fn verbose_help() -> Option<&'static str> {
        Some(
            "Tell on standard error how things are done; -vv tells all that the kernel's verifier said",
        )
    }

    fn quiet_help() -> Option<&'static str> {
        Some("Hide the notes; -qq hides the warnings as well")
    }
}

/// Parses the command line.
///
/// # Errors
/// The user asks for help or the version, or the command line is wrong. This prints the message and returns the exit
/// status.
pub fn parse<C: Parser>() -> Result<C, ExitCode> {
    C::try_parse().map_err(|mut error| {
        leave_out_hidden(&mut error, &C::command());
        if !error.use_stderr() {
            // A closed stream is no reason to fail.
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        if has_control_characters() {
            // clap quotes the argument without escaping it.
            error.render().to_string().lines().for_each(|line| say(escape(line)));
        } else {
            let _ = error.print();
        }
        USAGE.into()
    })
}

/// Removes hidden commands from an error, because clap names them if a command is missing.
fn leave_out_hidden(error: &mut clap::Error, command: &clap::Command) {
    let Some(ContextValue::Strings(names)) = error.get(ContextKind::ValidSubcommand) else {
        return;
    };
    let hidden: Vec<_> = command.get_subcommands().filter(|it| it.is_hide_set()).collect();
    let is_shown = |name: &&String| !hidden.iter().any(|it| it.get_name() == name.as_str());
    let shown = names.iter().filter(is_shown).cloned().collect();
    error.insert(ContextKind::ValidSubcommand, ContextValue::Strings(shown));
}

/// Tells whether an argument has characters that a terminal would obey.
fn has_control_characters() -> bool {
    std::env::args_os().any(|it| it.to_string_lossy().chars().any(char::is_control))
}

/// Starts printing notes and warnings, as many as the user wants. Without this call nothing prints them.
pub fn start(loudness: &Loudness) {
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(loudness.tracing_level_filter())
        .with_writer(anstream::stderr)
        // A closed stream is no reason to fail.
        .log_internal_errors(false)
        .event_format(Plain { is_whole: loudness.tracing_level_filter() >= LevelFilter::TRACE })
        .finish();
    // Setting it fails only if a test has started it twice.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// Prints an error, even with `-q`.
pub fn error(error: &anyhow::Error) {
    say(format_args!("{} {}", label(Level::ERROR), escape(&told(error))));
    error.chain().filter_map(|cause| cause.downcast_ref::<kernel::Error>()?.log()).for_each(log);
}

/// Words an error with its causes, and with advice if the kernel refused.
pub fn told(error: &anyhow::Error) -> String {
    let word = |cause: &(dyn std::error::Error + 'static)| match cause.downcast_ref() {
        Some(refused) => explained(refused),
        None => cause.to_string(),
    };
    error.chain().map(word).collect::<Vec<_>>().join(": ")
}

/// The target of an event with a log of many lines as its message.
const LOG: &str = "log";

/// How many lines of a long log to keep: some from its beginning, and more from its end, which has the reason.
const FIRST: usize = 10;
const LAST: usize = 40;

/// Logs the output of libbpf and the verifier at the level `debug`. Only `-vv` shows all of a long log.
///
/// A library can do the same without this crate, through an event with the level `debug` and the target `log`.
pub fn log(text: &str) {
    tracing::debug!(target: LOG, "{text}");
}

/// Words the error for a failed write: where and why, with the call and its errno at the end.
pub fn cannot_write(to: impl Display, call: &str, error: &io::Error) -> String {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(errno) => format!("cannot write to {to}: {} ({call}: {errno:?})", errno.desc()),
        None => format!("cannot write to {to}: {error}"),
    }
}

/// Prints a warning that the user may want to act on.
pub fn warning(text: impl Display) {
    tracing::warn!("{text}");
}

/// Prints a note.
pub fn note(text: impl Display) {
    tracing::info!("{text}");
}

/// Prints a line, even with `-q`. Ignores errors, because the exit status still tells the result.
pub fn say(line: impl Display) {
    let _ = writeln!(anstream::stderr(), "{line}");
}

/// Prints a question without a line break.
pub fn ask(question: impl Display) {
    let mut stderr = anstream::stderr();
    let _ = write!(stderr, "{question}").and_then(|()| stderr.flush());
}

/// Returns the label of a level: `error:`, as clap prints it, `warning:`, `note:` and so on.
fn label(level: Level) -> String {
    let (word, style) = match level {
        Level::ERROR => ("error", Style::new().fg_color(Some(AnsiColor::Red.into()))),
        Level::WARN => ("warning", Style::new().fg_color(Some(AnsiColor::Yellow.into()))),
        Level::INFO => ("note", Style::new()),
        Level::DEBUG => ("debug", Style::new()),
        Level::TRACE => ("trace", Style::new()),
    };
    let style = style.bold();
    format!("{style}{word}:{style:#}")
}

/// Formats an event as `note: the text (method=iter, ms=12)`.
struct Plain {
    /// Whether to keep all lines of a long log.
    is_whole: bool,
}

impl Plain {
    /// Writes each line of a log, or only some lines of a long one.
    fn log(&self, text: &str, writer: &mut Writer<'_>) -> fmt::Result {
        let lines: Vec<_> = text.lines().collect();
        let mut say = |line: &str| writeln!(writer, "{} {}", label(Level::DEBUG), escape(line));
        if lines.len() <= FIRST + LAST || self.is_whole {
            return lines.iter().try_for_each(|line| say(line));
        }
        let left_out = lines.len() - FIRST - LAST;
        lines[..FIRST].iter().try_for_each(|line| say(line))?;
        say(&format!("… {left_out} lines left out (-vv shows all)"))?;
        lines[lines.len() - LAST..].iter().try_for_each(|line| say(line))
    }
}

impl<S, N> FormatEvent<S, N> for Plain
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut said = Said::default();
        event.record(&mut said);
        if event.metadata().target() == LOG {
            return self.log(&said.message, &mut writer);
        }
        write!(writer, "{} {}", label(*event.metadata().level()), escape(&said.message))?;
        if !said.fields.is_empty() {
            write!(writer, " ({})", escape(&said.fields))?;
        }
        writeln!(writer)
    }
}

/// The text of an event.
#[derive(Default)]
struct Said {
    message: String,
    fields: String,
}

impl Visit for Said {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a String cannot fail.
        let _ = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            let comma = if self.fields.is_empty() { "" } else { ", " };
            write!(self.fields, "{comma}{}={value:?}", field.name())
        };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Returns the output of `talk` at that level.
    fn printed(level: LevelFilter, talk: impl FnOnce()) -> String {
        let text = Arc::new(Mutex::new(Vec::new()));
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(level)
            .with_writer(Shared(Arc::clone(&text)))
            .event_format(Plain { is_whole: level >= LevelFilter::TRACE })
            .finish();
        tracing::subscriber::with_default(subscriber, talk);
        let text = text.lock().unwrap();
        String::from_utf8(anstream::adapter::strip_bytes(&text).into_vec()).unwrap()
    }

    #[derive(Clone)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl<'a> tracing_subscriber::fmt::MakeWriter<'a> for Shared {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    fn all() {
        warning("the limit is off");
        note("12 gaps");
        tracing::debug!(method = "iter", cgroups = 7, "looked");
    }

    #[test]
    fn each_line_begins_with_what_it_is_and_more_is_said_to_who_wants_more() {
        let warning = "warning: the limit is off\n";
        let note = "note: 12 gaps\n";
        let debug = "debug: looked (method=iter, cgroups=7)\n";
        assert_eq!(printed(LevelFilter::INFO, all), [warning, note].concat());
        assert_eq!(printed(LevelFilter::WARN, all), warning);
        assert_eq!(printed(LevelFilter::ERROR, all), "");
        assert_eq!(printed(LevelFilter::DEBUG, all), [warning, note, debug].concat());
    }

    #[test]
    fn of_a_long_log_the_beginning_and_the_end_are_said_and_all_to_who_wants_all() {
        let text = |lines: u32| (1..=lines).map(|it| it.to_string()).collect::<Vec<_>>().join("\n");
        let said = |level, lines| {
            let printed = printed(level, || log(&text(lines)));
            printed.lines().map(|line| line.replace("debug: ", "")).collect::<Vec<_>>()
        };
        let long = said(LevelFilter::DEBUG, 1_000);
        assert_eq!(long.len(), 51);
        assert_eq!(long[9..12], ["10", "… 950 lines left out (-vv shows all)", "961"]);
        assert_eq!(long[50], "1000");
        assert_eq!(said(LevelFilter::DEBUG, 50).len(), 50);
        assert_eq!(said(LevelFilter::TRACE, 1_000).len(), 1_000);
        assert_eq!(said(LevelFilter::INFO, 1_000).len(), 0);
    }

    #[test]
    fn no_terminal_obeys_a_note() {
        let evil = "\x1b[31m\nerror: x";
        let text = printed(LevelFilter::DEBUG, || {
            note(evil);
            tracing::debug!(evil, "looked");
        });
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.starts_with(r"note: \x1b[31m\nerror: x"), "{text}");
    }
}
