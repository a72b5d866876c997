//! The figures as a picture: CPU time for a request, and latency by percentile.

use std::fmt::Write;

use crate::report::{Report, Row};
use crate::wrk::PERCENTILES;

/// Colours that the colour-blind tell apart too ([Okabe and Ito](https://jfly.uni-koeln.de/color/)), on white
/// paper and, for who prefers it, on dark.
const STYLE: &str = "<style>\
    text{font:12px sans-serif;fill:#1f2328}.title{font-weight:bold}.paper{fill:#fff}.axis{stroke:#d0d7de}\
    .tick{fill:#59636e;font-size:11px}.p0{color:#707070}.p1{color:#0072b2}.p2{color:#c04a00}\
    .name{fill:currentColor}.bar{fill:currentColor}.line{fill:none;stroke:currentColor;stroke-width:2}\
    @media(prefers-color-scheme:dark){text{fill:#e6edf3}.paper{fill:#0d1117}.axis{stroke:#3d444d}\
    .tick{fill:#9198a1}.p0{color:#b0b0b0}.p1{color:#56b4e9}.p2{color:#e69f00}.name{fill:currentColor}}\
    </style>";

const WIDTH: usize = 820;
const HEAD: usize = 40;
const ROW: usize = 136;

/// Where the bars begin, and how long the longest is.
const BARS: usize = 80;
const LONGEST: f64 = 230.0;

/// Where the lines begin, how far their points are apart, and between which heights they run.
const LINES: usize = 460;
const APART: usize = 70;
const TOP: f64 = 28.0;
const FLOOR: f64 = 98.0;

/// How far two lines' names have to be apart.
const NAME: f64 = 13.0;

/// An SVG with two charts for each workload, side by side.
pub(crate) fn draw(reports: &[Report]) -> String {
    let height = HEAD + reports.len() * ROW;
    let mut svg = format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}'>{STYLE}\n\
        <rect class='paper' width='{WIDTH}' height='{height}'/>\n\
        <text class='title' x='{BARS}' y='20'>CPU time for a request, µs</text>\
        <text class='title' x='{LINES}' y='20'>latency by percentile, ms</text>\n"
    );
    for (number, report) in reports.iter().enumerate() {
        let (bars, lines) = (bars(report), lines(report));
        let top = HEAD + number * ROW;
        let row = format!("<g transform='translate(0 {top})'>{bars}{lines}</g>\n");
        svg.push_str(&row);
    }
    svg + "</svg>\n"
}

fn bars(report: &Report) -> String {
    let most = report.rows.iter().map(Row::cpu).fold(1e-9, f64::max);
    let mut svg = format!("<text x='10' y='12'>{}</text>", report.workload.name);
    let end = 24 + 26 * report.rows.len();
    add(
        &mut svg,
        format_args!("<path class='axis' d='M{BARS} 24V{end}'/>"),
    );
    for (number, row) in report.rows.iter().enumerate() {
        let (y, length) = (28 + number * 26, LONGEST * row.cpu() / most);
        let (text, value) = (y + 13, BARS as f64 + length + 6.0);
        add(
            &mut svg,
            format_args!(
                "<g class='p{number}'><text class='name' x='{}' y='{text}' text-anchor='end'>{}</text>\
                <rect class='bar' x='{BARS}' y='{y}' width='{length:.1}' height='18'/>\
                <text x='{value:.1}' y='{text}'>{:.1}</text></g>",
                BARS - 8,
                row.name,
                row.cpu()
            ),
        );
    }
    svg
}

fn lines(report: &Report) -> String {
    let last = PERCENTILES.len() - 1;
    let latencies = report.rows.iter().map(|row| row.latency(last));
    let most = latencies.fold(1e-9, f64::max);
    let y = |latency: f64| FLOOR - (FLOOR - TOP) * latency / most;
    let mut svg = axes(most, y);
    for (number, row) in report.rows.iter().enumerate() {
        let point = |index: usize| format!("{},{:.1}", x(index), y(row.latency(index)));
        let points: Vec<_> = (0..PERCENTILES.len()).map(point).collect();
        let points = points.join(" ");
        add(
            &mut svg,
            format_args!("<g class='p{number}'><polyline class='line' points='{points}'/></g>"),
        );
    }
    for (number, at) in names(report.rows.iter().map(|row| y(row.latency(last)))) {
        let row = &report.rows[number];
        add(
            &mut svg,
            format_args!(
                "<g class='p{number}'><text class='name' x='{}' y='{:.1}'>{} {:.2}</text></g>",
                x(last) + 8,
                at + 4.0,
                row.name,
                row.latency(last)
            ),
        );
    }
    svg
}

/// From nothing to the highest latency, and from percentile to percentile.
fn axes(most: f64, y: impl Fn(f64) -> f64) -> String {
    let mut svg = String::new();
    for latency in [0.0, most / 2.0, most] {
        let (from, to, at) = (LINES - 12, x(PERCENTILES.len() - 1), y(latency));
        add(
            &mut svg,
            format_args!(
                "<path class='axis' d='M{from} {at:.1}H{to}'/>\
                <text class='tick' x='{}' y='{:.1}' text-anchor='end'>{latency:.1}</text>",
                from - 5,
                at + 4.0
            ),
        );
    }
    for (index, percentile) in PERCENTILES.iter().enumerate() {
        let (x, y) = (x(index), FLOOR + 15.0);
        add(
            &mut svg,
            format_args!(
                "<text class='tick' x='{x}' y='{y}' text-anchor='middle'>{percentile}</text>"
            ),
        );
    }
    svg
}

fn x(index: usize) -> usize {
    LINES + index * APART
}

/// Returns the height of each line's name: at the end of the line, without an overlap.
fn names(ends: impl Iterator<Item = f64>) -> Vec<(usize, f64)> {
    let mut names: Vec<_> = ends.enumerate().collect();
    names.sort_by(|one, other| other.1.total_cmp(&one.1)); // the lowest first
    for index in 1..names.len() {
        names[index].1 = names[index].1.min(names[index - 1].1 - NAME);
    }
    names
}

fn add(svg: &mut String, part: std::fmt::Arguments<'_>) {
    svg.write_fmt(part)
        .expect("writing to a String does not fail");
}
