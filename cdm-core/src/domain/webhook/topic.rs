//! What a webhook may be told.

use std::fmt;

use crate::domain::name::NameError;

/// A kind of message: whose status changed, and to what; or that an operation's step came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(&'static str);

impl Topic {
    /// Every one of them.
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

    /// The topic of that name.
    ///
    /// # Errors
    /// Every other text.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let rule = "an event is `operation.` and one of queued, running, waiting, step, parked, succeeded, failed, \
                    cancelled; or `rollout.` and one of waiting, running, paused, halted, aborted, succeeded, failed";
        let known = Self::ALL.into_iter().find(|topic| topic.0 == text);
        known.ok_or_else(|| NameError::new("an event", rule, text))
    }

    /// What an entry of the feed is about: a rollout's or an operation's, with its first word.
    pub fn of(rollout: bool, what: &str) -> Option<Self> {
        let whose = if rollout { "rollout." } else { "operation." };
        let word = what.split(' ').next()?;
        Self::ALL.into_iter().find(|topic| topic.0.strip_prefix(whose) == Some(word))
    }

    /// Those that a webhook is told which does not choose: whatever came to its end, or stands still until somebody asks.
    pub fn usual() -> Vec<Self> {
        let rests = |topic: &Self| {
            let (_, word) = topic.0.split_once('.').unwrap_or_default();
            !matches!(word, "queued" | "running" | "waiting" | "step")
        };
        Self::ALL.into_iter().filter(rests).collect()
    }

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}
