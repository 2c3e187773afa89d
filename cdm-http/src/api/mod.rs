//! What goes over the wire: one file per kind of thing, each with the rule that makes it of a domain value.

pub mod audit;
pub mod event;
pub mod freeze;
pub mod gate;
pub mod list;
pub mod operation;
pub mod plan;
pub mod rollout;
pub mod services;
pub mod site;
pub mod token;
pub mod user;
pub mod webhook;
pub mod words;

use cdm_core::domain::Timestamp;

/// A moment as users see it: RFC 3339, UTC, milliseconds.
pub(crate) fn time(at: Timestamp) -> String {
    let millis = i64::try_from(at.millis()).unwrap_or(i64::MAX);
    let moment = jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX);
    format!("{moment:.3}")
}

/// A moment that a user wrote; `None` for what is none.
pub(crate) fn moment(text: &str) -> Option<Timestamp> {
    let moment: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(moment.as_millisecond()).ok().map(Timestamp::from_millis)
}
