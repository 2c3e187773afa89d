//! The health gate: the checks of a site before and after its move, and the judgement of a response.
//!
//! A response is evidence only about the service that is known to have sent it. After a move the route can lead to the
//! old service for a while: a response from there says nothing about the new service. A probe without a connection, or
//! with the response of a gateway, is inconclusive, and not evidence against the image.

use std::time::Duration;

use super::super::{Color, NameError};

/// The response that a site of a rollout must return.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthGate {
    path: String,
    status: u16,
    contains: Option<String>,
    latency: Option<u32>,
    settle: Duration,
}

/// The response of a site to a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeResponse {
    /// The HTTP status of the response.
    pub status: u16,
    /// Whether the body contains the required text; `true` if the gate requires none.
    pub contains: bool,
    /// The latency, measured from the established connection.
    pub took: Duration,
    /// The service that sent the response. `None` if the response does not state it.
    pub by: Option<Color>,
}

/// The judgement of a response about a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// The site works on the service.
    Healthy,
    /// The site does not work on the service, for this reason.
    Unhealthy(String),
    /// Inconclusive, for this reason.
    NotYet(String),
}

impl HealthGate {
    /// The limit of characters of a path and of a text.
    pub const MAX_CHARS: usize = 500;
    /// The greatest settle time that a gate accepts.
    pub const MAX_SETTLE: Duration = Duration::from_secs(300);
    /// The default settle time.
    pub const DEFAULT_SETTLE: Duration = Duration::from_secs(30);
    /// The least latency that a ratio is applied to: below it, a ratio reflects the machine more than the image.
    const MIN_BASELINE: Duration = Duration::from_millis(50);

    /// Creates a gate that requires status 200 for a path and query.
    ///
    /// # Errors
    /// The path does not start with `/`, is longer than [`HealthGate::MAX_CHARS`], or contains `#` or a character that
    /// is not visible ASCII.
    pub fn new(path: &str) -> Result<Self, NameError> {
        let plain = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        if !path.starts_with('/') || !plain || path.len() > Self::MAX_CHARS {
            let rule = "a path starts with `/` and has at most 500 visible ASCII characters and no `#`";
            return Err(NameError::new("a gate's path", rule, path));
        }
        let path = path.to_owned();
        Ok(Self { path, status: 200, contains: None, latency: None, settle: Self::DEFAULT_SETTLE })
    }

    /// Sets the required status.
    ///
    /// # Errors
    /// The status is not in the range 200 to 599.
    pub fn with_status(self, status: u16) -> Result<Self, NameError> {
        if (200..=599).contains(&status) {
            return Ok(Self { status, ..self });
        }
        Err(NameError::new("a gate's status", "a status is a number from 200 to 599", &status.to_string()))
    }

    /// Sets a text that the body must contain.
    ///
    /// # Errors
    /// The text is empty, or has more than [`HealthGate::MAX_CHARS`] characters.
    pub fn with_text(self, text: &str) -> Result<Self, NameError> {
        if text.is_empty() || text.chars().count() > Self::MAX_CHARS {
            return Err(NameError::new("a gate's text", "a text has 1 to 500 characters", text));
        }
        Ok(Self { contains: Some(text.to_owned()), ..self })
    }

    /// Sets the limit of the latency after the move, in thousandths of the latency before.
    ///
    /// # Errors
    /// The ratio is less than 1 (1,000 thousandths) or greater than 100.
    pub fn with_latency(self, thousandths: u32) -> Result<Self, NameError> {
        if (1_000..=100_000).contains(&thousandths) {
            return Ok(Self { latency: Some(thousandths), ..self });
        }
        let rule = "a ratio of latencies is from 1 to 100";
        Err(NameError::new("a gate's ratio", rule, &format!("{}", f64::from(thousandths) / 1_000.0)))
    }

    /// Sets the settle time: how long the route can take after a move until it leads to the new service.
    ///
    /// # Errors
    /// The time is greater than [`HealthGate::MAX_SETTLE`].
    pub fn with_settle(self, settle: Duration) -> Result<Self, NameError> {
        if settle <= Self::MAX_SETTLE {
            return Ok(Self { settle, ..self });
        }
        let rule = "a route settles within 300 seconds";
        Err(NameError::new("a gate's settle time", rule, &settle.as_secs().to_string()))
    }

    /// Returns the path and query of the probes.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the required status.
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// Returns the text that the body must contain.
    pub fn text(&self) -> Option<&str> {
        self.contains.as_deref()
    }

    /// Returns the limit of the latency after the move, in thousandths of the latency before.
    pub const fn latency(&self) -> Option<u32> {
        self.latency
    }

    /// Returns the settle time of the route.
    pub const fn settle(&self) -> Duration {
        self.settle
    }

    /// Judges a response through the route of a site that was moved to `service`. `before` is the latency before the
    /// move, and `settled` states that the settle time is over.
    ///
    /// A response that is known to be from the other service never counts. A response from an unknown service counts
    /// only after the settle time. A response that is correct but too slow is inconclusive until then, since the first
    /// request warms the site up.
    pub fn judge(
        &self,
        response: &ProbeResponse,
        service: Color,
        before: Option<Duration>,
        settled: bool,
    ) -> Judgement {
        match response.by {
            Some(by) if by != service && !crate::bug!(OldAnswerCounts) => {
                return Judgement::NotYet(format!("the route still leads to `{by}`"));
            }
            None if !settled => {
                return Judgement::NotYet("the response does not state which service sent it".to_owned());
            }
            // A gateway can name a service whose pods it could not reach.
            Some(_) | None if matches!(response.status, 502..=504) && response.status != self.status => {
                let status = response.status;
                return Judgement::NotYet(format!("the status {status} may be the response of a gateway"));
            }
            Some(_) | None => {}
        }
        if let Some(why) = self.wrong(response) {
            return Judgement::Unhealthy(why);
        }
        match self.too_slow(response.took, before) {
            Some(why) if settled => Judgement::Unhealthy(why),
            Some(why) => Judgement::NotYet(why),
            None => Judgement::Healthy,
        }
    }

    /// Judges a response to a probe that was sent to `service` directly, without the route. A response that is not known
    /// to be from that service is inconclusive.
    pub fn judge_direct(&self, response: &ProbeResponse, service: Color) -> Judgement {
        if response.by != Some(service) {
            let status = response.status;
            return Judgement::NotYet(format!("the response with status {status} is not from `{service}`"));
        }
        self.wrong(response).map_or(Judgement::Healthy, Judgement::Unhealthy)
    }

    fn wrong(&self, response: &ProbeResponse) -> Option<String> {
        if response.status != self.status {
            return Some(format!("`{}` answers {} instead of {}", self.path, response.status, self.status));
        }
        (!response.contains)
            .then(|| format!("the response of `{}` does not contain the required text", self.path))
    }

    fn too_slow(&self, took: Duration, before: Option<Duration>) -> Option<String> {
        let (thousandths, before) = (u128::from(self.latency?), before?);
        let limit = before.max(Self::MIN_BASELINE).as_millis() * thousandths / 1_000;
        (took.as_millis() > limit)
            .then(|| format!("`{}` takes {} ms, more than {limit} ms", self.path, took.as_millis()))
    }
}
