//! Faults on demand, and the list of what was asked.

use std::time::Duration;

/// One request that the server heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Who asked; empty where the token was unknown.
    pub user: String,
    /// As Roles name it: `get`, `list`, `watch`, `create`, `update`, `patch`, `delete` or `deletecollection`.
    pub verb: String,
    /// As Roles name it, such as `pods/log`.
    pub resource: String,
    /// Empty for none.
    pub namespace: String,
    /// Empty for none.
    pub name: String,
    /// What was answered; 0 when there was no answer.
    pub code: u16,
}

/// Which requests; what is empty means any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matching {
    /// With this verb.
    pub verb: &'static str,
    /// About this resource.
    pub resource: &'static str,
    /// With a name that begins so.
    pub name: String,
}

impl Matching {
    /// Requests with this verb about this resource.
    pub fn of(verb: &'static str, resource: &'static str) -> Self {
        Self { verb, resource, name: String::new() }
    }

    /// Whether it means that request.
    pub fn has(&self, request: &Request) -> bool {
        (self.verb.is_empty() || self.verb == request.verb)
            && (self.resource.is_empty() || self.resource == request.resource)
            && request.name.starts_with(&self.name)
    }
}

/// When something goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before the request had an effect: it has none.
    Before,
    /// After it: the caller cannot know.
    After,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// This code is answered, with `Retry-After` where seconds are given.
    Answer(u16, Option<u64>),
    /// The connection ends without an answer.
    Reset,
    /// Nothing happens for so long on the server's clock.
    Delay(Duration),
    /// The server forgets its history first, so that a page or a watch that goes on from an earlier version has expired.
    Compaction,
}

/// A fault that waits for its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which requests it may meet.
    pub matching: Matching,
    /// How many of these it lets pass first.
    pub skip: usize,
    /// How many it meets then.
    pub times: usize,
    /// When.
    pub moment: Moment,
    /// How.
    pub trouble: Trouble,
}

impl Fault {
    /// A fault of the next matching request.
    pub fn next(matching: Matching, moment: Moment, trouble: Trouble) -> Self {
        Self { matching, skip: 0, times: 1, moment, trouble }
    }

    /// The same fault after `skip` matching requests.
    #[must_use]
    pub fn after(mut self, skip: usize) -> Self {
        self.skip = skip;
        self
    }

    /// The same fault of `times` requests.
    #[must_use]
    pub fn times(mut self, times: usize) -> Self {
        self.times = times;
        self
    }
}

/// The faults that were not met yet, and the requests that were heard.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) faults: Vec<Fault>,
    pub(super) requests: Vec<Request>,
    /// How many requests were forgotten before those.
    forgotten: usize,
}

impl Ledger {
    /// Notes a request; answers its number and what shall go wrong with it.
    pub(super) fn heard(&mut self, request: Request) -> (usize, Option<(Moment, Trouble)>) {
        let mut met = None;
        for fault in self.faults.iter_mut().filter(|fault| fault.matching.has(&request)) {
            if fault.skip > 0 {
                fault.skip -= 1;
            } else if met.is_none() && fault.times > 0 {
                fault.times -= 1;
                met = Some((fault.moment, fault.trouble));
            }
        }
        self.faults.retain(|fault| fault.times > 0);
        self.requests.push(request);
        (self.forgotten + self.requests.len() - 1, met)
    }

    pub(super) fn forget_requests(&mut self) {
        self.forgotten += self.requests.len();
        self.requests.clear();
    }

    /// Notes what was answered.
    pub(super) fn answered(&mut self, number: usize, code: u16) {
        let place = number.checked_sub(self.forgotten);
        if let Some(request) = place.and_then(|place| self.requests.get_mut(place)) {
            request.code = code;
        }
    }
}
