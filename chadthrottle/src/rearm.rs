//! `chadthrottle rearm` arms pinned throttles on the cgroups that have their paths now.

use anyhow::Result;
use bpf::LinuxBpf;
use kernel::cgroup::cgroup2_mount;
use kernel::error::{Call, Kind};
use terminal::exit::not_done;
use throttle_core::ledger::LedgerDir;
use throttle_core::{Engine, Error, Rearmed, Spec, Started, spec_of};

use crate::adopted::tell_of_open_sockets;
use crate::cli::RearmArgs;
use crate::limit::{config, config_to_settle};
use crate::others;
use crate::settled::tell_of_settlement;
use crate::words::shown;
use crate::words::{once, print, say};

pub(crate) fn run(args: &RearmArgs) -> Result<()> {
    let ledger = LedgerDir::new(bpf::ledger::DEFAULT_DIR);
    let boot = kernel::process::boot_id()?;
    let entries = ledger.read()?.entries.into_iter().map(|(_, entry)| entry);
    let recorded: Vec<_> = entries.filter(|it| it.is_kept() && it.owner.boot_id == boot).collect();
    let all = args.ids.is_empty();
    let ids: Vec<_> =
        if all { recorded.iter().map(|entry| &entry.throttle).collect() } else { once(&args.ids) };
    let arms = ids.iter().any(|id| recorded.iter().any(|entry| entry.throttle == **id));
    let config = if arms { config()? } else { config_to_settle()? };
    let (mut engine, settlement) = Engine::start(LinuxBpf::new()?, config)?;
    tell_of_settlement(&settlement);
    if !ids.is_empty() {
        // Without the hierarchy, every cgroup would look removed.
        cgroup2_mount()?;
    }
    let mut ending = Ending::new(all);
    for id in ids {
        let entry = recorded.iter().find(|entry| entry.throttle == *id);
        let path = entry.map_or_else(|| "its path".to_owned(), |it| shown(&it.cgroup_path));
        let became = engine.rearm(id).and_then(|rearmed| {
            let Some(Rearmed { started, forgotten }) = rearmed else { return Ok(None) };
            started.notes.iter().for_each(|note| say(note));
            tell_of_others(&engine, entry.and_then(spec_of), &started);
            tell_of_open_sockets(&engine.adopt(started.id));
            engine.release(started.id).map(|()| Some(forgotten))
        });
        match ending.note(id, &path, became) {
            Some(Said::Result(text)) => ending.printed(print(&text)),
            Some(Said::Note(text)) => say(&text),
            None => {}
        }
    }
    ending.result()
}

/// What happened to one throttle.
type Became = throttle_core::Result<Option<throttle_core::Result<()>>>;

/// The message about one throttle.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Result(String),
    Note(String),
}

/// What happened to all throttles.
struct Ending {
    /// The user named no throttle, so the command handles all that need it.
    all: bool,
    waits: bool,
    errors: Vec<Error>,
    printed: Result<()>,
}

impl Ending {
    fn new(all: bool) -> Self {
        Self { all, waits: false, errors: Vec::new(), printed: Ok(()) }
    }

    /// Notes what happened to one throttle and returns the message about it. `Some` means armed again; its inner result
    /// tells whether the old state was released. `None` means that the throttle was armed already.
    fn note(&mut self, id: &str, path: &str, became: Became) -> Option<Said> {
        match became {
            Ok(Some(forgotten)) => {
                self.errors.extend(forgotten.err());
                Some(Said::Result(format!("armed {id} again on {path}\n")))
            }
            Ok(None) if self.all => None,
            Ok(None) => Some(Said::Note(format!("throttle {id} is armed on {path} already"))),
            Err(Error::Kernel(error)) if is_away(&error) => {
                self.waits = true;
                Some(Said::Note(format!("throttle {id} waits: there is no cgroup at {path}")))
            }
            Err(error) => {
                self.errors.push(error);
                None
            }
        }
    }

    /// Notes whether printing worked. A failure to print does not keep other throttles from being armed.
    fn printed(&mut self, result: Result<()>) {
        self.printed = std::mem::replace(&mut self.printed, Ok(())).and(result);
    }

    fn result(self) -> Result<()> {
        Error::collect(self.errors)?;
        if self.waits && !self.all {
            return Err(not_done("not every throttle could be armed").into());
        }
        self.printed
    }
}

/// Prints which other limits apply beside a throttle that was armed again, and which programs it puts out of force.
fn tell_of_others(engine: &Engine<LinuxBpf>, spec: Option<Spec>, started: &Started) {
    match spec {
        Some(spec) => {
            let ours = engine.programs_of(started.id);
            others::tell(&others::around(&spec.cgroup, &ours), &spec, started);
        }
        None => others::tell_of_displaced(&started.displaced),
    }
}

/// Tells whether an error means that there is no cgroup.
fn is_away(error: &kernel::Error) -> bool {
    error.call() == Call::OpenCgroup && error.kind() == Kind::Vanished
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;
    use crate::words::exit_status;

    fn became(word: &str) -> Became {
        match word {
            "armed" => Ok(Some(Ok(()))),
            "left" => Ok(Some(Err(became("refused").unwrap_err()))),
            "already" => Ok(None),
            "away" => Err(kernel::Error::new(Call::OpenCgroup, "/a", Errno::ENOENT).into()),
            // The throttle waits for its cgroup only, not for anything else that is gone.
            "gone" => Err(kernel::Error::new(Call::ObjGet, "/b", Errno::ENOENT).into()),
            "missing" => Err(Error::NoSuchRecord("7".to_owned())),
            "refused" => Err(kernel::Error::new(Call::LinkCreate, "/a", Errno::EPERM).into()),
            other => unreachable!("{other}"),
        }
    }

    /// Returns the message about each throttle and the exit status. `+` marks a result and `-` a note.
    fn ended(all: bool, words: &str) -> (String, u8, String) {
        let mut ending = Ending::new(all);
        let mut said = String::new();
        for word in words.split(' ').filter(|word| !word.is_empty()) {
            said.push_str(match ending.note("1", "/a", became(word)) {
                Some(Said::Result(text)) if text == "armed 1 again on /a\n" => "+",
                Some(Said::Note(text)) if text.contains("1 is armed on /a already") => "-",
                Some(Said::Note(text)) if text.contains("1 waits: there is no cgroup at /a") => "w",
                None => " ",
                Some(other) => unreachable!("{other:?}"),
            });
        }
        let error = ending.result().err();
        (
            said,
            error.as_ref().map_or(0, exit_status),
            error.map(|it| it.to_string()).unwrap_or_default(),
        )
    }

    #[test]
    fn whatever_is_not_armed_of_what_was_named_makes_the_status_and_is_told() {
        let refused = became("refused").unwrap_err().to_string();
        let missing = became("missing").unwrap_err().to_string();
        let waits = "not every throttle could be armed".to_owned();
        let gone = became("gone").unwrap_err().to_string();
        let cases = [
            (true, "", "", 0, vec![]),
            (true, "armed already away", "+ w", 0, vec![]),
            (true, "refused armed", " +", 1, vec![&refused]),
            (false, "armed", "+", 0, vec![]),
            (false, "already", "-", 0, vec![]),
            (false, "away", "w", 1, vec![&waits]),
            (false, "away armed", "w+", 1, vec![&waits]),
            (false, "armed away already", "+w-", 1, vec![&waits]),
            (true, "gone armed", " +", 1, vec![&gone]),
            (false, "gone", " ", 1, vec![&gone]),
            (false, "missing armed", " +", 64, vec![&missing]),
            (false, "refused armed", " +", 1, vec![&refused]),
            (false, "left", "+", 1, vec![&refused]),
            (true, "left armed", "++", 1, vec![&refused]),
            (false, "refused away missing", " w ", 1, vec![&refused, &missing]),
        ];
        for (all, words, said, status, told) in cases {
            let ended = ended(all, words);
            assert_eq!((&*ended.0, ended.1), (said, status), "{words}");
            assert!(told.iter().all(|it| ended.2.contains(*it)), "{words}: {}", ended.2);
        }
    }

    #[test]
    fn that_a_result_cannot_be_printed_is_told_though_a_later_one_is() {
        let mut ending = Ending::new(false);
        ending.printed(Err(anyhow::anyhow!("cannot write")));
        ending.printed(Ok(()));
        assert_eq!(exit_status(&ending.result().unwrap_err()), 70);
    }
}
