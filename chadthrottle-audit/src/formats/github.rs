//! Writes workflow commands, which GitHub Actions shows as annotations.
//!
//! A line is a command only if it begins with `::`. So a name in our output must neither begin a line nor end
//! a property.

use terminal::escape;

use crate::results::{COVERAGE, Check, Outcome, Problem, Results};

/// Renders a result. Problems become errors, and unseen things become warnings. Things that people should look at
/// become notices. One more annotation has the conclusion.
pub(super) fn render(results: &Results) -> String {
    let mut lines = Vec::new();
    for check in &results.checks {
        // The coverage rule reports unseen things once.
        if let Outcome::Failed(problems) | Outcome::Noted(problems) = &check.outcome {
            lines.extend(problems.iter().map(|problem| annotation(results, check, problem)));
        }
    }
    let title = property(&results.tool.name);
    lines.push(format!("::notice title={title}::{}", data(&results.conclusion)));
    lines.join("\n") + "\n"
}

fn annotation(results: &Results, check: &Check, problem: &Problem) -> String {
    let level = match check.outcome {
        Outcome::Noted(_) => "notice",
        _ if check.rule == COVERAGE => "warning",
        _ => "error",
    };
    let title = property(&format!("{}: {}", results.tool.name, check.rule));
    let remedy = problem.remedy.as_ref().map(|remedy| format!("%0A-> {}", data(remedy)));
    let (what, why) = (data(&problem.what), data(&problem.why));
    format!("::{level} title={title}::{what}: {why}{}", remedy.unwrap_or_default())
}

/// Escapes a property's value, which ends at `,` and `::`.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

/// Escapes a message, which ends with the line. The runner decodes these three sequences.
fn data(text: &str) -> String {
    escape(text).replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}
