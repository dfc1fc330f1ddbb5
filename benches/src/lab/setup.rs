//! Runs commands that change the lab's network, and those that undo the changes.

use std::process::{Command, Output};

use anyhow::{Context, Error, Result, anyhow};

/// Why a setting failed.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// This system does not support it. Contains the words of the failing tool.
    #[error("not here: {0}")]
    Missing(String),
    /// This system supports it, or should, but it failed.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
}

impl Refusal {
    /// Tells whether a setting stays in force that should be gone.
    pub fn is_leftover(&self) -> bool {
        matches!(self, Self::Failed(error) if error.is::<Leftover>())
    }
}

/// A setting could not be undone. Every later measurement would suffer from it, so none follows.
#[derive(Debug, thiserror::Error)]
#[error("it could not be taken back: {0}")]
pub struct Leftover(String);

/// Combines a result with the result of undoing its settings. Returns [`Leftover`] if undoing failed, with any earlier
/// failure.
///
/// # Errors
/// Returns the errors of both.
pub fn taken_back<T>(result: Result<T, Refusal>, removed: Result<()>) -> Result<T, Refusal> {
    let Err(stays) = removed else { return result };
    let told = match result {
        Ok(_) => format!("{stays:#}"),
        Err(before) => format!("{stays:#}; before that: {before}"),
    };
    Err(Refusal::Failed(Error::new(Leftover(told))))
}

/// Commands that were run, and the commands that undo them. Dropping this undoes them and can only print failures.
#[must_use = "dropping this takes it back at once"]
#[derive(Debug, Default)]
pub struct Setup {
    done: Vec<String>,
    undo: Vec<String>,
}

impl Setup {
    /// Runs a command and registers the command that undoes it. Words must not contain blanks. Later commands are
    /// undone first.
    ///
    /// # Errors
    /// Fails if the command fails. It then undoes the earlier commands.
    pub fn run(&mut self, command: &str, undo: Option<&str>) -> Result<(), Refusal> {
        if let Err(refusal) = run(command) {
            return taken_back(Err(refusal), self.take_back());
        }
        self.done.push(command.to_owned());
        self.undo.extend(undo.map(str::to_owned));
        Ok(())
    }

    /// Returns the commands that were run, in order.
    pub fn done(&self) -> &[String] {
        &self.done
    }

    /// Undoes everything.
    ///
    /// # Errors
    /// Returns the first error. It still tries to undo the rest.
    pub fn remove(mut self) -> Result<()> {
        self.take_back()
    }

    fn take_back(&mut self) -> Result<()> {
        let mut first = Ok(());
        for command in std::mem::take(&mut self.undo).iter().rev() {
            let failed = run(command).map(drop).map_err(|refusal| anyhow!("{command}: {refusal}"));
            first = first.and(failed);
        }
        first
    }
}

impl Drop for Setup {
    fn drop(&mut self) {
        if let Err(error) = self.take_back() {
            eprintln!("lab: {error:#}");
        }
    }
}

/// Runs a command and returns its output.
///
/// # Errors
/// Fails if the command cannot be started, or if it fails. The error contains its error output.
pub fn run(command: &str) -> Result<String, Refusal> {
    let mut words = command.split_whitespace();
    let name = words.next().context("no command")?;
    let output = Command::new(name).args(words).output();
    let output = match output {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let how = "'scripts/setup test' installs it";
            return Err(Refusal::Missing(format!("there is no {name}; {how}")));
        }
        output => output.with_context(|| format!("cannot run {name}"))?,
    };
    judge(command, &output)
}

fn judge(command: &str, output: &Output) -> Result<String, Refusal> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim();
    Err(match lack(said) {
        Some(words) => Refusal::Missing(words),
        None => Refusal::Failed(anyhow!("{command}: {}: {said}", output.status)),
    })
}

/// The messages of `tc`, `ip` and `nft` if the kernel lacks a feature.
const LACKS: [&str; 6] = [
    "Specified qdisc kind is unknown",
    "Unknown qdisc",
    "Failed to load TC action module",
    "Failed to load TC classifier module",
    "Unknown device type",
    "Operation not supported",
];

/// Returns the line with such a message, if there is one.
fn lack(said: &str) -> Option<String> {
    let line = said.lines().find(|line| LACKS.iter().any(|lack| line.contains(lack)))?;
    Some(line.trim().trim_start_matches("Error: ").trim_end_matches('.').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_lacks_is_told_from_what_went_wrong() {
        let said =
            "Error: Failed to load TC action module.\nWe have an error talking to the kernel";
        assert_eq!(lack(said).as_deref(), Some("Failed to load TC action module"));
        assert_eq!(
            lack("Error: Specified qdisc kind is unknown.").as_deref(),
            Some("Specified qdisc kind is unknown")
        );
        assert_eq!(lack("Error: Exclusivity flag on, cannot modify."), None);
        assert_eq!(lack(""), None);
    }

    #[test]
    fn a_command_that_is_not_installed_is_missing_and_one_that_fails_has_failed() {
        let refusal = run("chadtest-no-such-command x").unwrap_err();
        assert!(
            matches!(&refusal, Refusal::Missing(why) if why.contains("scripts/setup")),
            "{refusal}"
        );
        let refusal = run("cat /chadtest/no/such/file").unwrap_err();
        assert!(matches!(refusal, Refusal::Failed(_)), "{refusal}");
        assert!(refusal.to_string().contains("No such file"), "{refusal}");
    }

    #[test]
    fn what_was_done_is_taken_back_in_reverse_also_when_part_of_it_fails() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let (a, b) = (path("a"), path("a/b"));
        let mut setup = Setup::default();
        setup.run(&format!("mkdir {a}"), Some(&format!("rmdir {a}"))).unwrap();
        setup.run(&format!("mkdir {b}"), Some(&format!("rmdir {b}"))).unwrap();
        setup.run("true", Some("false")).unwrap();
        assert_eq!(setup.done().len(), 3);
        assert!(setup.remove().unwrap_err().to_string().starts_with("false: "));
        assert!(!dir.path().join("a").exists());
    }

    #[test]
    fn what_stays_is_told_from_what_fails_with_what_went_wrong_before() {
        let failed = || Err::<(), _>(Refusal::Failed(anyhow!("it hung")));
        assert!(!taken_back(failed(), Ok(())).unwrap_err().is_leftover());
        let both = taken_back(failed(), Err(anyhow!("no such qdisc"))).unwrap_err();
        assert!(both.is_leftover());
        assert_eq!(
            both.to_string(),
            "it could not be taken back: no such qdisc; before that: it hung"
        );
        assert!(taken_back(Ok(()), Err(anyhow!("no"))).unwrap_err().is_leftover());
        let leftover = Error::new(Leftover("a qdisc".into()));
        assert!(Refusal::Failed(leftover.context("the way")).is_leftover());
    }

    #[test]
    fn half_a_setup_is_taken_back_at_once_and_what_stays_of_it_is_told() {
        let mut setup = Setup::default();
        setup.run("true", Some("false")).unwrap();
        let refusal = setup.run("cat /chadtest/no/such/file", None).unwrap_err();
        assert!(refusal.is_leftover(), "{refusal}");
        assert!(refusal.to_string().contains("No such file"), "{refusal}");
    }

    #[test]
    fn dropping_takes_back_too() {
        let dir = tempfile::tempdir().unwrap();
        let a = dir.path().join("a").display().to_string();
        let mut setup = Setup::default();
        setup.run(&format!("mkdir {a}"), Some(&format!("rmdir {a}"))).unwrap();
        drop(setup);
        assert!(!dir.path().join("a").exists());
    }
}
