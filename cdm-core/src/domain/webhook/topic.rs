//! The topics that a webhook can subscribe to.

use std::fmt;

use crate::domain::name::NameError;

/// A kind of message: a new status of an operation or rollout, or the end of an operation's step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(&'static str);

impl Topic {
    /// Every topic, in the order of the documentation.
    pub const ALL: [Self; 15] = [
        Self("operation.queued"),
        Self("operation.running"),
        Self("operation.waiting"),
        Self("operation.step"),
        Self("operation.parked"),
        Self("operation.succeeded"),
        Self("operation.failed"),
        Self("operation.cancelled"),
        Self("rollout.waiting"),
        Self("rollout.running"),
        Self("rollout.paused"),
        Self("rollout.halted"),
        Self("rollout.aborted"),
        Self("rollout.succeeded"),
        Self("rollout.failed"),
    ];

    /// Parses a topic such as `rollout.halted`.
    ///
    /// # Errors
    /// Returns an error for any other text.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let rule = "an event is `operation.` and one of queued, running, waiting, step, parked, succeeded, failed, \
                    cancelled; or `rollout.` and one of waiting, running, paused, halted, aborted, succeeded, failed";
        let known = Self::ALL.into_iter().find(|topic| topic.0 == text);
        known.ok_or_else(|| NameError::new("an event", rule, text))
    }

    /// Returns the topic of a feed entry. `what` is the entry's text; its first word decides. Returns `None` if no
    /// topic matches.
    pub fn of(rollout: bool, what: &str) -> Option<Self> {
        let prefix = if rollout { "rollout." } else { "operation." };
        let word = what.split(' ').next()?;
        Self::ALL.into_iter().find(|topic| topic.0.strip_prefix(prefix) == Some(word))
    }

    /// Returns the topics of a webhook that names none: every status that ends an operation or rollout, and every
    /// status that waits for a user.
    pub fn usual() -> Vec<Self> {
        let is_final_or_blocked = |topic: &Self| {
            let (_, word) = topic.0.split_once('.').unwrap_or_default();
            !matches!(word, "queued" | "running" | "waiting" | "step")
        };
        Self::ALL.into_iter().filter(is_final_or_blocked).collect()
    }

    /// Returns the topic's name, such as `rollout.halted`.
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}
