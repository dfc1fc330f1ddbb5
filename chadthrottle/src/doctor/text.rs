//! Formats the doctor's answer as text.

use std::fmt::Write;

use comfy_table::{Table, presets};
use terminal::escape;

use super::report::{Diagnosis, Grade};

pub(super) fn text(diagnosis: &Diagnosis) -> String {
    let table = |rows: Vec<Vec<String>>| {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).force_no_tty();
        for row in rows {
            table.add_row(row);
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        table.trim_fmt()
    };
    let checks = diagnosis.checks.iter().map(|check| {
        let grade = match check.grade {
            Grade::Ok => "ok",
            Grade::Lesser => "-",
            Grade::Unknown => "?",
            Grade::Missing => "NO",
        };
        let says = match &check.advice {
            Some(advice) => format!("{} ({advice})", escape(&check.says)),
            None => escape(&check.says),
        };
        vec![grade.to_owned(), check.what.clone(), says]
    });
    let mut text = format!("Linux {}\n{}\n", escape(&diagnosis.kernel), table(checks.collect()));
    if !diagnosis.limits.is_empty() {
        let rows = diagnosis.limits.iter();
        let rows = rows.map(|held| vec![held.traffic.clone(), held.how.clone()]).collect();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "\nWhat 'chadthrottle limit' would do:\n{}", table(rows));
    }
    text
}
