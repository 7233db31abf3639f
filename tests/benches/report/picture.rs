//! The pictures: one line for each that is compared, and a panel for each measure, both logarithmic
//! or both from 0.

use anyhow::{Result, anyhow};
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

use crate::commands::Commands;
use crate::lookups::Lookups;
use crate::peers::REFERENCE;

const ROW: i32 = 26;
const NAMES: i32 = 230;
const PANEL: i32 = 330;
const HEAD: i32 = 40;
const FOOT: i32 = 40;

const OURS: RGBColor = RGBColor(0x1b, 0x6c, 0xa8);
const OTHERS: RGBColor = RGBColor(0x8a, 0x8a, 0x8a);

/// One that is compared.
struct Line {
    name: String,
    ours: bool,
    /// One for each panel.
    values: Vec<Option<f64>>,
}

/// One measure.
struct Panel {
    title: &'static str,
    unit: &'static str,
    decimals: usize,
    logarithmic: bool,
}

/// Size, and time of a look-up at points.
pub(crate) fn lookups(lookups: &Lookups) -> Result<String> {
    let peers = lookups.peers.iter().filter(|peer| peer.bytes.is_some());
    let lines = peers
        .filter(|peer| !peer.name.ends_with("printed"))
        .map(|peer| Line {
            name: peer.name.clone(),
            ours: peer.name.contains("packed"),
            values: vec![
                peer.bytes.map(|bytes| bytes as f64 / 1e6),
                Some(peer.points.typical),
            ],
        });
    let lines: Vec<Line> = lines.collect();
    draw(
        &lines,
        &[
            Panel {
                title: "size, MB",
                unit: "",
                decimals: 2,
                logarithmic: true,
            },
            Panel {
                title: "look-up at return addresses and traps, ns",
                unit: "",
                decimals: 0,
                logarithmic: true,
            },
        ],
        Some(REFERENCE),
    )
}

/// Time and memory of builds.
pub(crate) fn builds(commands: &Commands) -> Result<String> {
    let lines = commands.builds.iter().map(|run| Line {
        name: run.name.clone(),
        ours: run.name.starts_with("lineinfo"),
        values: vec![
            Some(run.wall.as_secs_f64()),
            Some(run.peak_kb as f64 / 1024.0),
        ],
    });
    let lines: Vec<Line> = lines.collect();
    draw(
        &lines,
        &[
            Panel {
                title: "wall time, s",
                unit: " s",
                decimals: 2,
                logarithmic: false,
            },
            Panel {
                title: "peak of memory, MB",
                unit: " MB",
                decimals: 0,
                logarithmic: false,
            },
        ],
        None,
    )
}

/// A thin line goes through the values of the one named `reference`.
fn draw(lines: &[Line], panels: &[Panel], reference: Option<&str>) -> Result<String> {
    let height = HEAD + ROW * lines.len() as i32 + FOOT;
    let width = NAMES + PANEL * panels.len() as i32;
    let mut svg = String::new();
    {
        let size = (width as u32, height as u32);
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        root.fill(&WHITE).map_err(failed)?;
        let (names, mut rest) = root.split_horizontally(NAMES);
        for (row, line) in (0..).zip(lines) {
            let color = if line.ours { OURS } else { BLACK };
            let style = ("sans-serif", 14).into_font().color(&color);
            let at = (12, HEAD + ROW * row + ROW / 2 - 6);
            names
                .draw(&Text::new(line.name.clone(), at, style))
                .map_err(failed)?;
        }
        for (number, panel) in panels.iter().enumerate() {
            let (area, after) = rest.split_horizontally(PANEL);
            rest = after;
            let values: Vec<Option<f64>> = lines.iter().map(|line| line.values[number]).collect();
            let known = || values.iter().copied().flatten();
            let least = known().fold(f64::MAX, f64::min);
            let most = known().fold(0.0, f64::max);
            if panel.logarithmic {
                // Room for the label of the last.
                let range = (least / 1.6..most * 4.0).log_scale();
                draw_panel(&area, lines, &values, panel, range, least / 1.6, reference)?;
            } else {
                draw_panel(
                    &area,
                    lines,
                    &values,
                    panel,
                    0.0..most * 1.3,
                    0.0,
                    reference,
                )?;
            }
        }
        root.present().map_err(failed)?;
    }
    Ok(svg)
}

fn draw_panel<X>(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    lines: &[Line],
    values: &[Option<f64>],
    panel: &Panel,
    range: X,
    origin: f64,
    reference: Option<&str>,
) -> Result<()>
where
    X: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64>,
{
    let rows = lines.len() as f64;
    let mut chart = ChartBuilder::on(area)
        .caption(panel.title, ("sans-serif", 15))
        .margin_right(8)
        .margin_top(8)
        .x_label_area_size(FOOT as u32)
        .build_cartesian_2d(range, rows..0.0)
        .map_err(failed)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .x_labels(6)
        .light_line_style(TRANSPARENT)
        .x_label_style(("sans-serif", 12))
        .draw()
        .map_err(failed)?;
    let referred = lines
        .iter()
        .position(|line| Some(line.name.as_str()) == reference);
    if let Some(value) = referred.and_then(|row| values[row]) {
        let through = PathElement::new([(value, 0.0), (value, rows)], OTHERS);
        chart.draw_series([through]).map_err(failed)?;
    }
    for (row, (line, value)) in lines.iter().zip(values).enumerate() {
        let Some(value) = *value else { continue };
        let color = if line.ours { OURS } else { OTHERS };
        let middle = row as f64 + 0.5;
        let bar = Rectangle::new(
            [(origin, middle - 0.32), (value, middle + 0.32)],
            color.filled(),
        );
        let label = format!("{value:.*}{}", panel.decimals, panel.unit);
        let style = ("sans-serif", 12).into_font().color(&BLACK);
        let label = EmptyElement::at((value, middle)) + Text::new(label, (5, -6), style);
        chart.draw_series([bar]).map_err(failed)?;
        chart.draw_series([label]).map_err(failed)?;
    }
    Ok(())
}

fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("draw: {error}")
}
