//! The health gate: what a site has to answer before and after its move, and what an answer says.
//!
//! An answer speaks only for the service that it is known to come from. Right after a switch a route may still lead to
//! the old service for a while; what is proved to come from there says nothing of the new one. What says nothing at all,
//! because no connection came about or a gateway answered in the site's place, is no evidence against the image.

use std::time::Duration;

use super::super::{Color, NameError};

/// What a site of a rollout has to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthGate {
    path: String,
    status: u16,
    contains: Option<String>,
    latency: Option<u32>,
    settle: Duration,
}

/// What a site answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeResponse {
    /// The status.
    pub status: u16,
    /// Whether the body has the text that was asked for; `true` where none was.
    pub contains: bool,
    /// How long it took, from the connection's being there.
    pub took: Duration,
    /// The service that it is known to come from.
    pub by: Option<Color>,
}

/// What an answer says of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// The site works on it.
    Healthy,
    /// It does not, and why.
    Unhealthy(String),
    /// Nothing yet; and why.
    NotYet(String),
}

impl HealthGate {
    /// Most characters of a path, and of a text.
    pub const LONGEST: usize = 500;
    /// How long a route may take to lead to the new service, at most.
    pub const LONGEST_SETTLE: Duration = Duration::from_secs(300);
    /// That, where nobody says otherwise.
    pub const SETTLE: Duration = Duration::from_secs(30);
    /// An answer that was quicker before counts as this: below, a factor says more of the machine than of the image.
    const QUICK: Duration = Duration::from_millis(50);

    /// A check of a path that has to be answered with 200.
    ///
    /// # Errors
    /// A path that does not begin with `/`, is longer than [`HealthGate::LONGEST`], or has anything but visible ASCII.
    pub fn new(path: &str) -> Result<Self, NameError> {
        let plain = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        if !path.starts_with('/') || !plain || path.len() > Self::LONGEST {
            let rule = "a path begins with `/` and has at most 500 visible ASCII characters and no `#`";
            return Err(NameError::new("a gate's path", rule, path));
        }
        let path = path.to_owned();
        Ok(Self { path, status: 200, contains: None, latency: None, settle: Self::SETTLE })
    }

    /// With another status.
    ///
    /// # Errors
    /// Anything but 200 to 599.
    pub fn with_status(self, status: u16) -> Result<Self, NameError> {
        if (200..=599).contains(&status) {
            return Ok(Self { status, ..self });
        }
        Err(NameError::new("a gate's status", "a status is a number from 200 to 599", &status.to_string()))
    }

    /// With a text that the body has to have.
    ///
    /// # Errors
    /// An empty text, or one of more than [`HealthGate::LONGEST`] characters.
    pub fn with_text(self, text: &str) -> Result<Self, NameError> {
        if text.is_empty() || text.chars().count() > Self::LONGEST {
            return Err(NameError::new("a gate's text", "a text has 1 to 500 characters", text));
        }
        Ok(Self { contains: Some(text.to_owned()), ..self })
    }

    /// With how many thousandths of the time before an answer may take after the move.
    ///
    /// # Errors
    /// Less than 1, more than 100 times.
    pub fn with_latency(self, thousandths: u32) -> Result<Self, NameError> {
        if (1_000..=100_000).contains(&thousandths) {
            return Ok(Self { latency: Some(thousandths), ..self });
        }
        let rule = "a ratio of latencies is from 1 to 100";
        Err(NameError::new("a gate's ratio", rule, &format!("{}", f64::from(thousandths) / 1_000.0)))
    }

    /// With how long a route may take to lead to the new service.
    ///
    /// # Errors
    /// More than [`HealthGate::LONGEST_SETTLE`].
    pub fn with_settle(self, settle: Duration) -> Result<Self, NameError> {
        if settle <= Self::LONGEST_SETTLE {
            return Ok(Self { settle, ..self });
        }
        let rule = "a route settles within 300 seconds";
        Err(NameError::new("a gate's settle time", rule, &settle.as_secs().to_string()))
    }

    /// What is asked for: path and query.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The status that has to come.
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// The text that the body has to have.
    pub fn text(&self) -> Option<&str> {
        self.contains.as_deref()
    }

    /// How many thousandths of the time before an answer may take after the move.
    pub const fn latency(&self) -> Option<u32> {
        self.latency
    }

    /// How long a route may take to lead to the new service.
    pub const fn settle(&self) -> Duration {
        self.settle
    }

    /// What an answer through a site's route says of `service`, to which it was pointed; `before` is how long an answer
    /// took before that, and `settled` says that the time which a route may take is over.
    ///
    /// What is proved to be of the other service never counts, and what is proved of none counts only when the route
    /// had its time. A right answer that only took too long is asked for again until then: the first answer of a
    /// service to a site warms it up.
    pub fn judge(
        &self,
        answer: &ProbeResponse,
        service: Color,
        before: Option<Duration>,
        settled: bool,
    ) -> Judgement {
        match answer.by {
            Some(by) if by != service && !crate::bug!(OldAnswerCounts) => {
                return Judgement::NotYet(format!("the route still leads to `{by}`"));
            }
            None if !settled => {
                return Judgement::NotYet("no answer says which service it is from".to_owned());
            }
            // A gateway may name the service whose pods it could not reach.
            Some(_) | None if matches!(answer.status, 502..=504) && answer.status != self.status => {
                let status = answer.status;
                return Judgement::NotYet(format!("a gateway may answer {status} in the site's place"));
            }
            Some(_) | None => {}
        }
        if let Some(why) = self.wrong(answer) {
            return Judgement::Unhealthy(why);
        }
        match self.too_slow(answer.took, before) {
            Some(why) if settled => Judgement::Unhealthy(why),
            Some(why) => Judgement::NotYet(why),
            None => Judgement::Healthy,
        }
    }

    /// What an answer says of `service`, which was asked itself, without the route. One that is not known to come from
    /// it, because something else answered in its place, says nothing.
    pub fn judge_direct(&self, answer: &ProbeResponse, service: Color) -> Judgement {
        if answer.by != Some(service) {
            let status = answer.status;
            return Judgement::NotYet(format!("`{service}` does not answer; {status} comes in its place"));
        }
        self.wrong(answer).map_or(Judgement::Healthy, Judgement::Unhealthy)
    }

    fn wrong(&self, answer: &ProbeResponse) -> Option<String> {
        if answer.status != self.status {
            return Some(format!("`{}` answers {} instead of {}", self.path, answer.status, self.status));
        }
        (!answer.contains).then(|| format!("the answer of `{}` has not the text that it should", self.path))
    }

    fn too_slow(&self, took: Duration, before: Option<Duration>) -> Option<String> {
        let (thousandths, before) = (u128::from(self.latency?), before?);
        let most = before.max(Self::QUICK).as_millis() * thousandths / 1_000;
        (took.as_millis() > most)
            .then(|| format!("`{}` takes {} ms, more than {most} ms", self.path, took.as_millis()))
    }
}
