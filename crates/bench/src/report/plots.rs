//! Bar charts as SVG, in colours that can be read on white and on black.

use std::error::Error;
use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::table::number;
use crate::measure::{Metric, Spread};
use crate::results::Results;
use crate::workloads::{DEFAULTS, FLOOR, ONE_PAGE, ONE_PAGE_SLEEPING, TRACED};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Bars under headings.
struct Chart {
    title: &'static str,
    groups: Vec<Group>,
    /// Longer bars are cut off here.
    most: f64,
    /// A line that the bars are compared with.
    mark: Option<f64>,
}

struct Group {
    heading: String,
    bars: Vec<(&'static str, Spread)>,
}

const WIDTH: i32 = 760;
const LEFT: i32 = 190;
const RIGHT: i32 = 90;
const TOP: i32 = 44;
const BAR: i32 = 16;
const HEADING: i32 = 24;
const TEXT: RGBColor = RGBColor(0x80, 0x80, 0x80);

/// Writes the charts whose workloads were run.
pub(super) fn draw(results: &Results, dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    let charts = [("time", time(results)), ("latency", latency(results)), ("boot", boot(results))];
    for (name, chart) in charts {
        if !chart.groups.is_empty() {
            chart.draw(&dir.join(format!("{name}.svg")))?;
        }
    }
    Ok(())
}

/// Total times against the floor's.
fn time(results: &Results) -> Chart {
    let workloads = results.workloads.iter().filter_map(|workload| {
        let ratio = |of| results.ratio(workload.workload.name, Metric::TimeMs, of, FLOOR);
        let names = [ONE_PAGE, DEFAULTS, TRACED].into_iter();
        let bars: Vec<_> = names.filter_map(|name| Some((name, ratio(name)?))).collect();
        let heading = workload.workload.name.to_owned();
        (!bars.is_empty()).then_some(Group { heading, bars })
    });
    Chart {
        title: "Time to finish, floor = 1 (median and spread of ratios; shorter is better)",
        groups: workloads.collect(),
        most: 2.0,
        mark: Some(1.0),
    }
}

/// Touch latencies while all of memory is read at random.
fn latency(results: &Results) -> Chart {
    let group = |(heading, metric): (&str, Metric)| {
        let random = results.workload("random")?;
        let names = [FLOOR, ONE_PAGE_SLEEPING, ONE_PAGE, DEFAULTS].into_iter();
        let bars = names.filter_map(|name| Some((name, random.contender(name)?.spread(metric)?)));
        Some(Group { heading: heading.to_owned(), bars: bars.collect() })
    };
    let groups = [("p50", Metric::P50Us), ("p99", Metric::P99Us), ("p99.9", Metric::P999Us)];
    let groups: Vec<Group> = groups.into_iter().filter_map(group).collect();
    Chart {
        title: "Latency of a touch, random reads, µs",
        most: longest(&groups),
        groups,
        mark: None,
    }
}

/// The boot-like workload, with a trace and without.
fn boot(results: &Results) -> Chart {
    let group = |name: &str| {
        let workload = results.workload(name)?;
        let bars = workload
            .contenders
            .iter()
            .filter_map(|contender| Some((contender.name, contender.spread(Metric::TimeMs)?)));
        Some(Group { heading: name.to_owned(), bars: bars.collect() })
    };
    let groups = ["boot-traced", "boot-traced-at-work", "cold-boot"];
    let groups: Vec<Group> = groups.into_iter().filter_map(group).collect();
    Chart {
        title: "Boot-like, ms until the last touch",
        most: longest(&groups),
        groups,
        mark: None,
    }
}

fn longest(groups: &[Group]) -> f64 {
    let bars = groups.iter().flat_map(|group| &group.bars);
    bars.map(|(_, spread)| spread.median * 1.1).fold(0.0, f64::max)
}

fn colour(name: &str) -> RGBColor {
    match name {
        FLOOR => RGBColor(0x8a, 0x8f, 0x98),
        ONE_PAGE => RGBColor(0x3f, 0x8a, 0xe0),
        ONE_PAGE_SLEEPING => RGBColor(0x8f, 0x7a, 0xe0),
        DEFAULTS => RGBColor(0x1f, 0x9d, 0x6b),
        TRACED => RGBColor(0xd0, 0x7a, 0x1c),
        _ => RGBColor(0xb0, 0x6a, 0x8c),
    }
}

impl Chart {
    fn height(&self) -> i32 {
        let bars: usize = self.groups.iter().map(|group| group.bars.len()).sum();
        let count = |count: usize| i32::try_from(count).unwrap_or(0);
        TOP + count(bars) * BAR + count(self.groups.len()) * HEADING + 8
    }

    /// Where a value lies.
    #[allow(clippy::cast_possible_truncation, reason = "the value is cut off before")]
    fn x(&self, value: f64) -> i32 {
        let part = (value / self.most).clamp(0.0, 1.0);
        LEFT + (part * f64::from(WIDTH - LEFT - RIGHT)).round() as i32
    }

    fn draw(&self, path: &Path) -> Result<()> {
        let size = (WIDTH.unsigned_abs(), self.height().unsigned_abs());
        let area = SVGBackend::new(path, size).into_drawing_area();
        // The backend writes sizes smaller by this factor.
        let text = |size: f64, horizontal| {
            let style = ("sans-serif", size * 1.24).into_font().color(&TEXT);
            style.pos(Pos::new(horizontal, VPos::Center))
        };
        let (title, heading, left) =
            (text(15.0, HPos::Left), text(13.0, HPos::Left), text(12.0, HPos::Left));
        let right = text(12.0, HPos::Right);
        area.draw(&Text::new(self.title, (8, 18), title))?;
        let mut y = TOP;
        for group in &self.groups {
            area.draw(&Text::new(group.heading.clone(), (8, y + 8), heading.clone()))?;
            y += HEADING - BAR / 2;
            for (name, spread) in &group.bars {
                let middle = y + BAR / 2;
                let end = self.x(spread.median);
                area.draw(&Text::new(*name, (LEFT - 8, middle), right.clone()))?;
                let bar = [(LEFT, y + 2), (end.max(LEFT + 1), y + BAR - 2)];
                area.draw(&Rectangle::new(bar, colour(name).filled()))?;
                let ends = vec![(self.x(spread.min), middle), (self.x(spread.max), middle)];
                let tip = self.x(spread.max).max(end) + 6;
                area.draw(&PathElement::new(ends, TEXT.stroke_width(1)))?;
                area.draw(&Text::new(number(spread.median), (tip, middle), left.clone()))?;
                y += BAR;
            }
            y += BAR / 2;
        }
        if let Some(mark) = self.mark {
            let line = vec![(self.x(mark), TOP - 8), (self.x(mark), y)];
            area.draw(&PathElement::new(line, TEXT.stroke_width(1)))?;
        }
        area.present()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_is_drawn_to_scale_and_cut_off() {
        let spread = |median| Spread { median, min: median, max: median };
        let bars = vec![(FLOOR, spread(1.0)), (DEFAULTS, spread(99.0))];
        let group = Group { heading: "random".to_owned(), bars };
        let chart = Chart { title: "title", groups: vec![group], most: 2.0, mark: Some(1.0) };
        assert_eq!(chart.x(2.0) - LEFT, 2 * (chart.x(1.0) - LEFT));
        assert_eq!(chart.x(99.0), chart.x(2.0));

        let file = tempfile::NamedTempFile::new().unwrap();
        chart.draw(file.path()).unwrap();
        let svg = std::fs::read_to_string(file.path()).unwrap();
        assert!(
            ["<svg", "random", "floor", "defaults", "99"].iter().all(|part| svg.contains(part))
        );
    }
}
