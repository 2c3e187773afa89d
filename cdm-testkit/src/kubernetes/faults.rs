//! Injected faults, and the log of requests.

use std::time::Duration;

/// A request that the server received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Name of the user; empty if the token is unknown.
    pub user: String,
    /// Verb as Roles name it: `get`, `list`, `watch`, `create`, `update`, `patch`, `delete` or
    /// `deletecollection`.
    pub verb: String,
    /// Resource as Roles name it, such as `pods/log`.
    pub resource: String,
    /// Namespace; empty for all namespaces or a cluster-scoped kind.
    pub namespace: String,
    /// Name of the object; empty if the request names no object.
    pub name: String,
    /// Status code of the response; 0 if there was no response.
    pub code: u16,
}

/// Selects requests. An empty field matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestMatcher {
    /// The verb to match, such as `patch`; empty for every verb.
    pub verb: &'static str,
    /// The resource to match, such as `jobs`; empty for every resource.
    pub resource: &'static str,
    /// Matches names with this prefix.
    pub name: String,
}

impl RequestMatcher {
    /// Returns a matcher of requests with this verb for this resource.
    pub fn of(verb: &'static str, resource: &'static str) -> Self {
        Self { verb, resource, name: String::new() }
    }

    /// Returns whether verb, resource and name of the request all match.
    pub fn matches(&self, request: &Request) -> bool {
        (self.verb.is_empty() || self.verb == request.verb)
            && (self.resource.is_empty() || self.resource == request.resource)
            && request.name.starts_with(&self.name)
    }
}

/// When a fault is injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultTiming {
    /// Before the request takes effect, so that it has no effect.
    Before,
    /// After the request took effect, so that the client cannot know its outcome.
    After,
}

/// What a fault does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Responds with this status code, and with a `Retry-After` header if seconds are given.
    Respond(u16, Option<u64>),
    /// Closes the connection without a response.
    Reset,
    /// Delays the request by this duration of the server's clock.
    Delay(Duration),
    /// Discards the server's history first, so that a page or a watch from an earlier version has expired.
    Compaction,
}

/// A fault that applies to matching requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which requests the fault may affect.
    pub matcher: RequestMatcher,
    /// How many matching requests pass first.
    pub skip: usize,
    /// How many matching requests are affected then.
    pub times: usize,
    /// Whether the fault is injected before or after the effect.
    pub timing: FaultTiming,
    /// What the fault does.
    pub kind: FaultKind,
}

impl Fault {
    /// Returns a fault of the next matching request.
    pub fn next(matcher: RequestMatcher, timing: FaultTiming, kind: FaultKind) -> Self {
        Self { matcher, skip: 0, times: 1, timing, kind }
    }

    /// Returns the same fault, after `skip` matching requests.
    #[must_use]
    pub fn after(mut self, skip: usize) -> Self {
        self.skip = skip;
        self
    }

    /// Returns the same fault, for `times` requests.
    #[must_use]
    pub fn times(mut self, times: usize) -> Self {
        self.times = times;
        self
    }
}

/// The remaining faults, and the log of requests.
#[derive(Debug, Default)]
pub(super) struct RequestLog {
    pub(super) faults: Vec<Fault>,
    pub(super) requests: Vec<Request>,
    /// Number of earlier requests that were removed from the log.
    forgotten: usize,
}

impl RequestLog {
    /// Records a request; returns its number and the fault to inject into it.
    pub(super) fn record(&mut self, request: Request) -> (usize, Option<(FaultTiming, FaultKind)>) {
        let mut matched = None;
        for fault in self.faults.iter_mut().filter(|fault| fault.matcher.matches(&request)) {
            if fault.skip > 0 {
                fault.skip -= 1;
            } else if matched.is_none() && fault.times > 0 {
                fault.times -= 1;
                matched = Some((fault.timing, fault.kind));
            }
        }
        self.faults.retain(|fault| fault.times > 0);
        self.requests.push(request);
        (self.forgotten + self.requests.len() - 1, matched)
    }

    pub(super) fn forget_requests(&mut self) {
        self.forgotten += self.requests.len();
        self.requests.clear();
    }

    /// Records the status code of a response.
    pub(super) fn record_code(&mut self, number: usize, code: u16) {
        let index = number.checked_sub(self.forgotten);
        if let Some(request) = index.and_then(|index| self.requests.get_mut(index)) {
            request.code = code;
        }
    }
}
