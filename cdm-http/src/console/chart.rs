//! The chart of a rollout: finished sites over time, and the ends of its waves.

use std::fmt::Write;

use cdm_core::domain::Timestamp;
use cdm_core::domain::rollout::{ProgressSample, Rollout};

use super::format::{count, count_of, duration};
use crate::api::Time;

/// The dimensions of a chart. The chart is drawn for wide and for narrow screens, so its text has the same size on
/// both.
#[derive(Clone, Copy, Debug)]
struct Size {
    name: &'static str,
    width: f64,
    height: f64,
}

const SIZES: [Size; 2] = [
    Size { name: "wide", width: 1_000.0, height: 240.0 },
    Size { name: "narrow", width: 340.0, height: 200.0 },
];
/// Margins: numbers on the left, times below.
const LEFT: f64 = 60.0;
const BELOW: f64 = 24.0;
const ABOVE: f64 = 10.0;
const RIGHT: f64 = 4.0;
/// The smallest distance between two numbers.
const MIN_LABEL_DISTANCE: f64 = 15.0;

/// Returns the chart as SVG in both sizes; an empty string before a worker has claimed the rollout.
pub(crate) fn chart(rollout: &Rollout, now: Timestamp) -> String {
    let Some(first) = rollout.samples.first().copied() else { return String::new() };
    let counts = rollout.counts();
    let (failed, end) = (counts.failed + counts.parked, rollout.finished_at.unwrap_or(now));
    let mut samples = rollout.samples.clone();
    samples.push(ProgressSample { at: end, succeeded: counts.succeeded, failed });
    let from = Time(first.at).to_string().get(11..19).unwrap_or_default().to_owned();
    let label = format!(
        "{} of {} done, {} failed or parked, {} after {from}",
        count(counts.succeeded),
        count_of(rollout.total, "site", "sites"),
        count(failed),
        duration(end.since(first.at)),
    );
    let to = format!("after {}", duration(end.since(first.at)));
    SIZES
        .map(|size| {
            let shapes = draw(rollout, &samples, size, (&from, &to));
            let Size { name, width, height } = size;
            format!(
                "<svg class=\"progress {name}\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
                 aria-label=\"{label}\">{shapes}</svg>"
            )
        })
        .concat()
}

/// Returns the elements of the chart in one size.
fn draw(rollout: &Rollout, samples: &[ProgressSample], size: Size, (from, to): (&str, &str)) -> String {
    let (begin, end) = (samples.first().map(|sample| sample.at), samples.last().map(|sample| sample.at));
    let (Some(begin), Some(end)) = (begin, end) else { return String::new() };
    let (right, base) = (size.width - RIGHT, size.height - BELOW);
    let span = end.since(begin).as_secs_f64().max(0.001);
    let x = |at: Timestamp| LEFT + (right - LEFT) * (at.since(begin).as_secs_f64() / span).min(1.0);
    let total = f64::from(rollout.total.max(1));
    let y = |sites: u32| base - (base - ABOVE) * (f64::from(sites) / total).min(1.0);

    let mut svg = String::new();
    // Drawn from the top: if waves end close together, the last one keeps its number.
    let mut previous_label = f64::NEG_INFINITY;
    for wave in rollout.waves.iter().rev() {
        let at = y(wave.end);
        let _ =
            write!(svg, "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>");
        if at - previous_label >= MIN_LABEL_DISTANCE && base - at >= MIN_LABEL_DISTANCE {
            let number = count(wave.end);
            let _ = write!(
                svg,
                "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{number}</text>",
                LEFT - 8.0,
                at + 4.0
            );
            previous_label = at;
        }
    }
    // The area of failed sites is behind the area of succeeded sites and reaches above it, so the upper edge is the
    // number of all finished sites.
    for (kind, edge) in [
        (
            "bad",
            &(|sample: &ProgressSample| y(sample.succeeded + sample.failed))
                as &dyn Fn(&ProgressSample) -> f64,
        ),
        ("good", &|sample: &ProgressSample| y(sample.succeeded)),
    ] {
        let mut points = format!("{:.1},{base:.1}", x(begin));
        for sample in samples {
            let _ = write!(points, " {:.1},{:.1}", x(sample.at), edge(sample));
        }
        let _ = write!(svg, "<polygon class=\"{kind}\" points=\"{points} {:.1},{base:.1}\"/>", x(end));
    }
    let _ = write!(svg, "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{base}\" y2=\"{base}\"/>");
    let below = size.height - 6.0;
    let _ = write!(svg, "<text x=\"{LEFT}\" y=\"{below}\">{from}</text>");
    let _ = write!(svg, "<text x=\"{right}\" y=\"{below}\" text-anchor=\"end\">{to}</text>");
    svg
}
