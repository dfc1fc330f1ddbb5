//! Renders the result of each command in every format.

use auditor::report::Report;
use terminal::Medium;

use crate::documents::{DiffReport, GateReport};
use crate::formats::{Rendition, prometheus};
use crate::results::{Results, of_diff, of_gate, of_scan};
use crate::{remedy, text};

impl Rendition for Report {
    fn text(&self, on: Medium) -> String {
        text::render(self, on.colour, on.width)
    }

    fn json(&self) -> serde_json::Result<String> {
        Ok(serde_json::to_string_pretty(
            &self.clone().map_remedies(|steps| remedy::of_leak(&steps)),
        )? + "\n")
    }

    fn results(&self) -> Results {
        of_scan(self)
    }

    fn prometheus(&self) -> anyhow::Result<String> {
        prometheus::render(self)
    }
}

impl Rendition for DiffReport {
    fn text(&self, on: Medium) -> String {
        text::diff::render(self, on.colour)
    }

    fn json(&self) -> serde_json::Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    fn results(&self) -> Results {
        of_diff(self)
    }
}

impl Rendition for GateReport {
    fn text(&self, on: Medium) -> String {
        text::gate::render(self, on.colour)
    }

    fn json(&self) -> serde_json::Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    fn results(&self) -> Results {
        of_gate(self)
    }
}
