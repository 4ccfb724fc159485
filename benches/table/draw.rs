//! The picture: how the cost of a chat grows with the channels, and the rows that have a floor to compare with.

use std::path::Path;

use anyhow::{Context, Result};
use plotters::prelude::*;

use super::rows::{Row, short};

/// In pixels; the text grows with whoever shows it.
const SIZE: (u32, u32) = (960, 420);

/// Linger in both protocols, then the peers.
const COLORS: [RGBColor; 5] = [
    RGBColor(0xc4, 0x3a, 0x31),
    RGBColor(0xe3, 0x8b, 0x2c),
    RGBColor(0x55, 0x55, 0x55),
    RGBColor(0x2f, 0x6d, 0xb5),
    RGBColor(0x3b, 0x8f, 0x5a),
];

/// The highest ratio that is drawn to scale.
const RATIO_MAX: f64 = 4.0;

/// A server's CPU time per chat by number of channels.
pub(crate) struct Curve {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// Writes the picture.
pub(crate) fn draw(file: &Path, caption: &str, curves: &[Curve], rows: &[Row]) -> Result<()> {
    picture(file, caption, curves, rows).map_err(|error| anyhow::anyhow!("{error}")).context("cannot draw")
}

fn picture(
    file: &Path,
    caption: &str,
    curves: &[Curve],
    rows: &[Row],
) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::new(file, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let root = root.titled(caption, ("sans-serif", 14))?;
    let (left, right) = root.split_horizontally(SIZE.0 / 2);
    growth(&left, curves)?;
    ratios(&right, rows)?;
    root.present()?;
    Ok(())
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn growth(area: &Area<'_>, curves: &[Curve]) -> Result<(), Box<dyn std::error::Error>> {
    let all = || curves.iter().flat_map(|curve| &curve.points);
    let (mut low, mut high) = (f64::MAX, f64::MIN_POSITIVE);
    all().for_each(|&(_, cost)| (low, high) = (low.min(cost), high.max(cost)));
    let (mut first, mut last) = (f64::MAX, f64::MIN_POSITIVE);
    all().for_each(|&(channels, _)| (first, last) = (first.min(channels), last.max(channels)));
    let mut chart = ChartBuilder::on(area)
        .caption("server CPU per chat, all channels talking", ("sans-serif", 14))
        .margin(10)
        .x_label_area_size(36)
        .y_label_area_size(48)
        .build_cartesian_2d((first..last).log_scale(), 0.0..high * 1.35)?;
    chart
        .configure_mesh()
        .x_desc("channels, one chat under way each")
        .y_desc("µs")
        .x_label_formatter(&|channels| short(*channels))
        .light_line_style(WHITE)
        .draw()?;
    for (curve, color) in curves.iter().zip(COLORS) {
        let points = || curve.points.iter().copied();
        chart
            .draw_series(LineSeries::new(points(), color.stroke_width(2)).point_size(3))?
            .label(curve.name.as_str())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
    }
    let legend = SeriesLabelPosition::UpperLeft;
    chart.configure_series_labels().position(legend).background_style(WHITE).border_style(BLACK).draw()?;
    Ok(())
}

/// A bar for each row: Linger's figure in units of the floor's, and where the goal is.
fn ratios(area: &Area<'_>, rows: &[Row]) -> Result<(), Box<dyn std::error::Error>> {
    let rows: Vec<_> = rows.iter().filter(|row| row.ratio().is_some()).collect();
    let area = area.titled("linger in units of the floor; the mark is the goal", ("sans-serif", 14))?;
    let (width, height) = area.dim_in_pixel();
    let (margin, step) = (10, (height as i32 - 10) / rows.len().max(1) as i32);
    let scale =
        |ratio: f64| margin + (ratio.min(RATIO_MAX) / RATIO_MAX * f64::from(width as i32 - 70)) as i32;
    let text = ("sans-serif", 13).into_font();
    for (at, row) in rows.iter().enumerate() {
        let Some(ratio) = row.ratio() else { continue };
        let (top, color) = (at as i32 * step, if row.met() == Some(true) { COLORS[4] } else { COLORS[0] });
        area.draw(&Text::new(row.what, (margin, top + 2), text.clone()))?;
        let (above, below) = (top + 18, top + step.min(40) - 2);
        area.draw(&Rectangle::new([(margin, above), (scale(ratio), below)], color.filled()))?;
        area.draw(&Text::new(short(ratio), (margin + 6, above + 3), text.color(&WHITE)))?;
        if let super::rows::Goal::TimesFloor(times) = row.goal {
            let mark = [(scale(times), above - 2), (scale(times), below + 2)];
            area.draw(&PathElement::new(mark, BLACK.stroke_width(2)))?;
        }
    }
    Ok(())
}
