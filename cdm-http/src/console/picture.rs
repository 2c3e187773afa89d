//! A rollout's course as a picture: sites over time, where its waves end, and how far it is now.

use std::fmt::Write;

use cdm_core::domain::Timestamp;
use cdm_core::domain::rollout::{Mark, Rollout};

use super::shape::{count, counted};
use crate::api::time;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 200.0;
/// Room for the numbers on the left and the times below.
const LEFT: f64 = 64.0;
const BELOW: f64 = 24.0;
const ABOVE: f64 = 10.0;
const RIGHT: f64 = 12.0;

/// The picture as SVG; nothing before a worker had the rollout.
pub(crate) fn picture(rollout: &Rollout, now: Timestamp) -> String {
    let Some(first) = rollout.marks.first().copied() else { return String::new() };
    let tally = rollout.tally();
    let end = rollout.finished_at.unwrap_or(now);
    let mut marks = rollout.marks.clone();
    marks.push(Mark { at: end, succeeded: tally.succeeded, failed: tally.failed + tally.parked });
    let span = end.since(first.at).as_secs_f64().max(1.0);
    let x =
        |at: Timestamp| LEFT + (WIDTH - LEFT - RIGHT) * (at.since(first.at).as_secs_f64() / span).min(1.0);
    let total = f64::from(rollout.total.max(1));
    let y = |sites: u32| HEIGHT - BELOW - (HEIGHT - BELOW - ABOVE) * (f64::from(sites) / total).min(1.0);

    let mut drawn = String::new();
    let mut begin = 0;
    for wave in &rollout.waves {
        let (at, number) = (y(wave.end), count(wave.end));
        let _ = write!(
            drawn,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>",
            WIDTH - RIGHT
        );
        // Waves that lie close together would have their numbers one over the other.
        if y(begin) - at >= 14.0 || wave.end == rollout.total {
            let _ = write!(
                drawn,
                "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{number}</text>",
                LEFT - 8.0,
                at + 4.0
            );
            begin = wave.end;
        }
    }
    let base = y(0);
    let _ = write!(
        drawn,
        "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{base}\" y2=\"{base}\"/>",
        WIDTH - RIGHT
    );
    // Failed sites lie on top of those that succeeded, so that the upper edge is all that is done.
    drawn.push_str(&area("bad", &marks, &x, &|mark| y(mark.succeeded + mark.failed), base));
    drawn.push_str(&area("good", &marks, &x, &|mark| y(mark.succeeded), base));
    let below = HEIGHT - 6.0;
    let (from, to) = (clock(first.at), clock(end));
    let _ = write!(drawn, "<text x=\"{LEFT}\" y=\"{below}\">{from}</text>");
    let _ = write!(drawn, "<text x=\"{}\" y=\"{below}\" text-anchor=\"end\">{to}</text>", WIDTH - RIGHT);

    let failed = tally.failed + tally.parked;
    let told = format!(
        "{} of {} done, {} failed or parked, from {from} to {to}",
        count(tally.succeeded),
        counted(rollout.total, "site", "sites"),
        count(failed),
    );
    format!(
        "<svg class=\"course\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{told}\">{drawn}</svg>"
    )
}

fn area(
    kind: &str,
    marks: &[Mark],
    x: &dyn Fn(Timestamp) -> f64,
    y: &dyn Fn(&Mark) -> f64,
    base: f64,
) -> String {
    let mut points = String::new();
    let (mut first, mut last) = (LEFT, LEFT);
    for (index, mark) in marks.iter().enumerate() {
        let at = x(mark.at);
        if index == 0 {
            first = at;
        }
        last = at;
        let _ = write!(points, "{at:.1},{:.1} ", y(mark));
    }
    format!("<polygon class=\"{kind}\" points=\"{first:.1},{base:.1} {points}{last:.1},{base:.1}\"/>")
}

/// The time of day, UTC.
fn clock(at: Timestamp) -> String {
    time(at).get(11..19).unwrap_or_default().to_owned()
}
