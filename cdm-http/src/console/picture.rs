//! A rollout's course as a picture: sites over time, where its waves end, and how far it is now.

use std::fmt::Write;

use cdm_core::domain::Timestamp;
use cdm_core::domain::rollout::{ProgressSample, Rollout};

use super::shape::{count, counted, lasted};
use crate::api::time;

/// Where things are. A picture is drawn for wide and for narrow screens, so that its text has one size on both.
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
/// Room for the numbers on the left and the times below.
const LEFT: f64 = 60.0;
const BELOW: f64 = 24.0;
const ABOVE: f64 = 10.0;
const RIGHT: f64 = 4.0;
/// How far apart two numbers are at least.
const LINE: f64 = 15.0;

/// The picture as SVG, in both sizes; nothing before a worker had the rollout.
pub(crate) fn picture(rollout: &Rollout, now: Timestamp) -> String {
    let Some(first) = rollout.samples.first().copied() else { return String::new() };
    let counts = rollout.counts();
    let (failed, end) = (counts.failed + counts.parked, rollout.finished_at.unwrap_or(now));
    let mut samples = rollout.samples.clone();
    samples.push(ProgressSample { at: end, succeeded: counts.succeeded, failed });
    let from = time(first.at).get(11..19).unwrap_or_default().to_owned();
    let told = format!(
        "{} of {} done, {} failed or parked, {} after {from}",
        count(counts.succeeded),
        counted(rollout.total, "site", "sites"),
        count(failed),
        lasted(end.since(first.at)),
    );
    let to = format!("after {}", lasted(end.since(first.at)));
    SIZES
        .map(|size| {
            let drawn = drawn(rollout, &samples, size, (&from, &to));
            let Size { name, width, height } = size;
            format!(
                "<svg class=\"course {name}\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
                 aria-label=\"{told}\">{drawn}</svg>"
            )
        })
        .concat()
}

fn drawn(rollout: &Rollout, samples: &[ProgressSample], size: Size, (from, to): (&str, &str)) -> String {
    let (begin, end) = (samples.first().map(|mark| mark.at), samples.last().map(|mark| mark.at));
    let (Some(begin), Some(end)) = (begin, end) else { return String::new() };
    let (right, base) = (size.width - RIGHT, size.height - BELOW);
    let span = end.since(begin).as_secs_f64().max(0.001);
    let x = |at: Timestamp| LEFT + (right - LEFT) * (at.since(begin).as_secs_f64() / span).min(1.0);
    let total = f64::from(rollout.total.max(1));
    let y = |sites: u32| base - (base - ABOVE) * (f64::from(sites) / total).min(1.0);

    let mut drawn = String::new();
    // From the top, so that of waves that lie close together the last one keeps its number.
    let mut above = f64::NEG_INFINITY;
    for wave in rollout.waves.iter().rev() {
        let at = y(wave.end);
        let _ = write!(
            drawn,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>"
        );
        if at - above >= LINE && base - at >= LINE {
            let number = count(wave.end);
            let _ = write!(
                drawn,
                "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{number}</text>",
                LEFT - 8.0,
                at + 4.0
            );
            above = at;
        }
    }
    // Failed sites lie behind those that succeeded, and reach over them: the upper edge is all that is done.
    for (kind, edge) in [
        (
            "bad",
            &(|mark: &ProgressSample| y(mark.succeeded + mark.failed)) as &dyn Fn(&ProgressSample) -> f64,
        ),
        ("good", &|mark: &ProgressSample| y(mark.succeeded)),
    ] {
        let mut points = format!("{:.1},{base:.1}", x(begin));
        for mark in samples {
            let _ = write!(points, " {:.1},{:.1}", x(mark.at), edge(mark));
        }
        let _ = write!(drawn, "<polygon class=\"{kind}\" points=\"{points} {:.1},{base:.1}\"/>", x(end));
    }
    let _ = write!(drawn, "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{base}\" y2=\"{base}\"/>");
    let below = size.height - 6.0;
    let _ = write!(drawn, "<text x=\"{LEFT}\" y=\"{below}\">{from}</text>");
    let _ = write!(drawn, "<text x=\"{right}\" y=\"{below}\" text-anchor=\"end\">{to}</text>");
    drawn
}
