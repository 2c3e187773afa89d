//! The JSON types of the API, one module per resource, with their conversions from and to domain types.

pub mod audit;
pub mod enums;
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

use cdm_core::domain::Timestamp;

/// Formats a time in RFC 3339, in UTC with milliseconds.
pub(crate) fn time(at: Timestamp) -> String {
    let millis = i64::try_from(at.millis()).unwrap_or(i64::MAX);
    let moment = jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX);
    format!("{moment:.3}")
}

/// Parses a time in RFC 3339; `None` if it is not valid.
pub(crate) fn moment(text: &str) -> Option<Timestamp> {
    let moment: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(moment.as_millisecond()).ok().map(Timestamp::from_millis)
}
