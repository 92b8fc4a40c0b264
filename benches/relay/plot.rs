//! The latency distributions, drawn: times along one axis, the share of requests that were slower along the other, both
//! by powers of ten, so that the tail has as much room as the middle.

use std::fmt::Write as _;
use std::time::Duration;

use super::statistics::Times;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 60.0;

/// From 0.1 ms to 1 s.
const SHORTEST_MS: f64 = 0.1;
const DECADES: f64 = 4.0;
/// From all requests to one in ten thousand.
const SHARE_DECADES: f64 = 4.0;

/// Legible on a light page and on a dark one, and told apart without red and green.
const COLOURS: [&str; 4] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7"];

/// An SVG with one line for each distribution.
pub(crate) fn svg(title: &str, lines: &[(String, &Times)]) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
         font-family=\"sans-serif\" font-size=\"13\">\n<title>{title}</title>\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n\
         <text x=\"{LEFT}\" y=\"24\" font-size=\"15\">{title}</text>\n"
    );
    axes(&mut svg);
    for (at, (name, times)) in lines.iter().enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        let _ = writeln!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/>",
            points(times)
        );
        let y = TOP + 18.0 + 18.0 * at as f64;
        let x = WIDTH - RIGHT - 250.0;
        let _ = writeln!(
            svg,
            "<line x1=\"{x}\" y1=\"{y}\" x2=\"{}\" y2=\"{y}\" stroke=\"{colour}\" stroke-width=\"3\"/>\
             <text x=\"{}\" y=\"{}\">{name}</text>",
            x + 20.0,
            x + 28.0,
            y + 4.0
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn axes(svg: &mut String) {
    let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
    for (at, label) in ["0.1 ms", "1 ms", "10 ms", "100 ms", "1 s"].iter().enumerate() {
        let x = x_of(SHORTEST_MS * 10f64.powi(at as i32));
        let _ = writeln!(
            svg,
            "<line x1=\"{x}\" y1=\"{TOP}\" x2=\"{x}\" y2=\"{bottom}\" stroke=\"#d0d0d0\"/>\
             <text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
            bottom + 18.0
        );
    }
    for (at, label) in ["all", "1 in 10", "1 in 100", "1 in 1,000", "1 in 10,000"].iter().enumerate() {
        let y = y_of(0.1f64.powi(at as i32));
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" y1=\"{y}\" x2=\"{right}\" y2=\"{y}\" stroke=\"#d0d0d0\"/>\
             <text x=\"{}\" y=\"{}\" text-anchor=\"end\" font-size=\"11\">{label}</text>",
            LEFT - 6.0,
            y + 4.0
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">longer than this took so many of the requests</text>",
        (LEFT + right) / 2.0,
        HEIGHT - 18.0
    );
}

/// The share of slower requests falls from all to none: points at the ranks that are seen apart on the paper.
fn points(times: &Times) -> String {
    let steps = 200;
    let mut points = String::new();
    for step in 0..=steps {
        let slower = 10f64.powf(-SHARE_DECADES * f64::from(step) / f64::from(steps));
        if slower * (times.count() as f64) < 1.0 {
            break;
        }
        let time: Duration = times.percentile(1.0 - slower);
        let _ = write!(points, "{:.1},{:.1} ", x_of(time.as_secs_f64() * 1e3), y_of(slower));
    }
    points
}

fn x_of(ms: f64) -> f64 {
    let share = (ms.max(SHORTEST_MS) / SHORTEST_MS).log10() / DECADES;
    LEFT + share.min(1.0) * (WIDTH - RIGHT - LEFT)
}

/// One in ten thousand lies at the bottom.
fn y_of(slower: f64) -> f64 {
    TOP - slower.log10() / SHARE_DECADES * (HEIGHT - BOTTOM - TOP)
}
