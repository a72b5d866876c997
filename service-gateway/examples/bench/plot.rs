//! The figures as a picture: CPU time for a request, and latency by percentile.

use std::fmt::Write;

use crate::report::{Report, Row};
use crate::wrk::PERCENTILES;

/// Told apart by the colour-blind too ([Okabe and Ito](https://jfly.uni-koeln.de/color/)).
const COLOURS: [&str; 3] = ["#999999", "#0072b2", "#d55e00"];

const ROW: usize = 110;

/// An SVG with two charts for each workload, side by side.
pub(crate) fn draw(reports: &[Report]) -> String {
    let height = 30 + reports.len() * ROW;
    let mut svg = format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 760 {height}' font-family='sans-serif' font-size='11'>\
        <rect width='760' height='{height}' fill='white'/>\n\
        <text x='10' y='18'>CPU time for a request, µs</text><text x='400' y='18'>latency by percentile, ms</text>\n"
    );
    for (number, report) in reports.iter().enumerate() {
        let top = 30 + number * ROW;
        let _ = writeln!(
            svg, // writing to a String does not fail
            "<g transform='translate(0 {top})'>{}{}</g>",
            bars(report),
            lines(report)
        );
    }
    svg + "</svg>\n"
}

fn bars(report: &Report) -> String {
    let most = report.rows.iter().map(Row::cpu).fold(1e-9, f64::max);
    let mut svg = format!(
        "<text x='10' y='12' font-weight='bold'>{}</text>",
        report.workload.name
    );
    for (number, row) in report.rows.iter().enumerate() {
        let (y, width) = (20 + number * 24, 230.0 * row.cpu() / most);
        let _ = write!(
            svg,
            "<text x='10' y='{}'>{}</text><rect x='70' y='{y}' width='{width:.1}' height='16' fill='{}'/>\
            <text x='{:.1}' y='{}'>{:.1}</text>",
            y + 12,
            row.name,
            COLOURS[number],
            75.0 + width,
            y + 12,
            row.cpu()
        );
    }
    svg
}

fn lines(report: &Report) -> String {
    let most = report
        .rows
        .iter()
        .map(|row| row.latency(3))
        .fold(1e-9, f64::max);
    let x = |index: usize| 420 + index * 90;
    let mut svg = String::from("<path d='M410 84H720' stroke='#ccc'/>");
    for (index, percentile) in PERCENTILES.iter().enumerate() {
        let _ = write!(
            svg,
            "<text x='{}' y='98' text-anchor='middle' fill='#666'>{percentile}</text>",
            x(index)
        );
    }
    for (number, row) in report.rows.iter().enumerate() {
        let point = |index: usize| {
            format!(
                "{},{:.1}",
                x(index),
                84.0 - 70.0 * row.latency(index) / most
            )
        };
        let points: Vec<_> = (0..PERCENTILES.len()).map(point).collect();
        let end = 84.0 - 70.0 * row.latency(3) / most;
        let _ = write!(
            svg,
            "<polyline points='{}' fill='none' stroke='{}' stroke-width='2'/>\
            <text x='696' y='{end:.1}' fill='{}'>{:.2}</text>",
            points.join(" "),
            COLOURS[number],
            COLOURS[number],
            row.latency(3)
        );
    }
    svg
}
