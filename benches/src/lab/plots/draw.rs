//! Draws panels with groups of bars. A line on each bar goes from the lowest run to the highest.

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::super::systems::Name;
use super::scale::{place, ticks};
use super::{Group, Kind, Panel};

const WIDTH: i32 = 1000;
const HEAD: i32 = 96;
const PANEL: i32 = 230;
/// The margins around the bars of a panel, in pixels.
const LEFT: i32 = 72;
const RIGHT: i32 = 16;
const TOP: i32 = 30;
const BOTTOM: i32 = 34;

const INK: RGBColor = RGBColor(34, 34, 34);
const FAINT: RGBColor = RGBColor(216, 216, 216);
const GREY: RGBColor = RGBColor(110, 110, 110);
const GOOD: RGBColor = RGBColor(226, 242, 226);

/// Returns a system's colour. People with colour blindness can tell these apart (palette of Okabe and Ito).
fn colour(name: Name) -> RGBColor {
    match name {
        Name::Ours => RGBColor(0, 114, 178),
        Name::OursFq => RGBColor(86, 180, 233),
        Name::OursQueue => RGBColor(90, 90, 200),
        Name::Ours20 => RGBColor(170, 210, 250),
        Name::Ours60 => RGBColor(120, 170, 220),
        Name::Ours1000 => RGBColor(0, 60, 110),
        Name::Bucket20 => RGBColor(204, 121, 167),
        Name::Bucket250 => RGBColor(230, 159, 0),
        Name::Htb => RGBColor(0, 158, 115),
        Name::Tbf => RGBColor(160, 200, 90),
        Name::Police => RGBColor(213, 94, 0),
        Name::Nft => RGBColor(130, 90, 70),
        Name::None => RGBColor(140, 140, 140),
    }
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws the plot as SVG.
pub(super) fn svg(kind: &Kind, panels: &[Panel], machine: &str) -> Result<String> {
    let height = HEAD + PANEL * i32::try_from(panels.len())?;
    let mut text = String::new();
    {
        let size = (WIDTH.unsigned_abs(), height.unsigned_abs());
        let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
        let drawn = draw(&area, kind, panels, machine).and_then(|()| Ok(area.present()?));
        drawn.map_err(|error| anyhow!("cannot draw: {error}"))?;
    }
    Ok(text)
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

fn draw(area: &Area<'_>, kind: &Kind, panels: &[Panel], machine: &str) -> Drawn {
    area.fill(&WHITE)?;
    words(area, kind.title, (16, 22), 20, INK, HPos::Left)?;
    words(area, machine, (16, 44), 12, GREY, HPos::Left)?;
    let shaded =
        kind.good.map_or_else(String::new, |good| format!(" Shaded: within {good} {}.", kind.unit));
    let note = format!(
        "Medians; the line goes from the lowest run to the highest; x: not measured, see the table.{shaded}"
    );
    words(area, &note, (16, 60), 12, GREY, HPos::Left)?;
    legend(area, panels)?;
    let (low, high) = range(kind, panels);
    for (panel, top) in panels.iter().zip((HEAD..).step_by(PANEL.unsigned_abs() as usize)) {
        let frame = Frame::new(top, low, high);
        frame.axis(area, kind)?;
        frame.panel(area, panel)?;
    }
    Ok(())
}

fn legend(area: &Area<'_>, panels: &[Panel]) -> Drawn {
    let mut x = 16;
    for name in Name::ALL.iter().filter(|name| panels.iter().any(|it| it.systems.contains(name))) {
        area.draw(&Rectangle::new([(x, 74), (x + 12, 86)], colour(*name).filled()))?;
        words(area, name.name(), (x + 18, 80), 13, INK, HPos::Left)?;
        x += 40 + 8 * i32::try_from(name.name().len())?;
    }
    Ok(())
}

/// Returns the lowest and the highest value of all panels. One scale for all makes them comparable.
fn range(kind: &Kind, panels: &[Panel]) -> (f64, f64) {
    let bars = panels.iter().flat_map(|panel| &panel.groups).flat_map(|group| &group.bars);
    let good = kind.good.unwrap_or(0.0);
    bars.filter_map(|(_, spread)| *spread)
        .fold((-good, good), |(low, high), spread| (low.min(spread.min), high.max(spread.max)))
}

/// The area of a panel's bars.
struct Frame {
    top: i32,
    bottom: i32,
    ticks: Vec<f64>,
}

impl Frame {
    fn new(panel_top: i32, low: f64, high: f64) -> Self {
        let ticks = ticks(low, high.max(0.1));
        Self { top: panel_top + TOP, bottom: panel_top + PANEL - BOTTOM, ticks }
    }

    /// Returns the vertical position of a value, in pixels.
    fn y(&self, value: f64) -> i32 {
        let first = self.ticks.first().copied().map_or(0.0, place);
        let last = self.ticks.last().copied().map_or(1.0, place);
        let part = (place(value) - first) / (last - first);
        let height = f64::from(self.bottom - self.top);
        // The value is inside the picture, which has about a thousand pixels.
        #[allow(clippy::cast_possible_truncation)]
        let up = (part * height).round() as i32;
        self.bottom - up
    }

    fn axis(&self, area: &Area<'_>, kind: &Kind) -> Drawn {
        let (left, right) = (LEFT, WIDTH - RIGHT);
        if let Some(good) = kind.good {
            let band = [(left, self.y(good)), (right, self.y(-good))];
            area.draw(&Rectangle::new(band, GOOD.filled()))?;
        }
        for &tick in &self.ticks {
            let y = self.y(tick);
            let style = if tick == 0.0 { INK } else { FAINT };
            area.draw(&PathElement::new([(left, y), (right, y)], style.stroke_width(1)))?;
            let sign = if tick > 0.0 && self.ticks[0] < 0.0 { "+" } else { "" };
            let label = format!("{sign}{tick} {}", kind.unit);
            words(area, &label, (left - 8, y), 12, INK, HPos::Right)?;
        }
        Ok(())
    }

    fn panel(&self, area: &Area<'_>, panel: &Panel) -> Drawn {
        words(area, &panel.title, (LEFT, self.top - 14), 14, INK, HPos::Left)?;
        let groups = i32::try_from(panel.groups.len())?.max(1);
        let width = (WIDTH - LEFT - RIGHT) / groups;
        for (group, left) in panel.groups.iter().zip((LEFT..).step_by(usize::try_from(width)?)) {
            self.group(area, panel, group, left, width)?;
        }
        Ok(())
    }

    fn group(&self, area: &Area<'_>, panel: &Panel, group: &Group, left: i32, width: i32) -> Drawn {
        words(area, &group.label, (left + width / 2, self.bottom + 14), 12, INK, HPos::Center)?;
        // Only systems in this group get a bar. The bars stand side by side in its middle.
        let places: Vec<_> = panel
            .systems
            .iter()
            .filter_map(|name| group.bars.iter().find(|(system, _)| system == name))
            .collect();
        let count = i32::try_from(places.len())?.max(1);
        let bar = (width * 4 / 5 / count).clamp(3, 26);
        let first = left + (width - bar * count) / 2;
        for ((name, spread), x) in places.into_iter().zip((first..).step_by(usize::try_from(bar)?))
        {
            let middle = x + bar / 2;
            let Some(spread) = spread else {
                words(area, "x", (middle, self.y(0.0) - 7), 12, GREY, HPos::Center)?;
                continue;
            };
            let (zero, y) = (self.y(0.0), self.y(spread.median));
            // A bar of 0 has to be visible too.
            let corners = [(x + 1, zero.min(y) - 1), (x + bar - 1, zero.max(y) + 1)];
            area.draw(&Rectangle::new(corners, colour(*name).filled()))?;
            let line = [(middle, self.y(spread.min)), (middle, self.y(spread.max))];
            area.draw(&PathElement::new(line, INK.stroke_width(1)))?;
        }
        Ok(())
    }
}

fn words(
    area: &Area<'_>,
    text: &str,
    at: (i32, i32),
    size: i32,
    colour: RGBColor,
    align: HPos,
) -> Drawn {
    let style = ("sans-serif", size).into_font().color(&colour).pos(Pos::new(align, VPos::Center));
    area.draw(&Text::new(text.to_owned(), at, style))?;
    Ok(())
}
