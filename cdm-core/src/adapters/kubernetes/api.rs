//! One request to the API server: its path, its deadline, what the answer says, and whether it may have changed
//! something.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::{Either, select};
use futures_util::pin_mut;
use hyper::header::{CONTENT_TYPE, RETRY_AFTER};
use hyper::{Method, Request};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

use super::failure::{Failure, Words, leaves_open};
use crate::domain::MonotonicTime;
use crate::ports::{Clock, ErrorKind, Outcome, PortError};

/// How many objects a page of a list has at most.
const PAGE: usize = 500;
/// How often a list is begun whose pages expire.
const LISTS: u32 = 4;
/// The status of an answer to a token that has expired.
const EXPIRED: u16 = 410;

/// A kind of object, by its name in paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Resource {
    pub(super) group: &'static str,
    pub(super) version: &'static str,
    pub(super) kind: &'static str,
    pub(super) plural: &'static str,
    words: Words,
}

const fn resource(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
) -> Resource {
    Resource { group, version, kind, plural, words: Words::Kept }
}

pub(super) const CONFIG_MAPS: Resource = resource("", "v1", "ConfigMap", "configmaps");
pub(super) const SECRETS: Resource =
    Resource { words: Words::Dropped, ..resource("", "v1", "Secret", "secrets") };
pub(super) const PODS: Resource = resource("", "v1", "Pod", "pods");
pub(super) const DEPLOYMENTS: Resource = resource("apps", "v1", "Deployment", "deployments");
pub(super) const JOBS: Resource = resource("batch", "v1", "Job", "jobs");
pub(super) const INGRESSES: Resource = resource("networking.k8s.io", "v1", "Ingress", "ingresses");
pub(super) const HTTP_ROUTES: Resource =
    resource("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes");

impl Resource {
    pub(super) fn api_version(self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    fn path(self, namespace: &str) -> String {
        let root = if self.group.is_empty() { "api" } else { "apis" };
        format!("/{root}/{}/namespaces/{namespace}/{}", self.api_version(), self.plural)
    }
}

/// What a patch is written in.
#[derive(Clone, Copy, Debug)]
pub(super) enum Patch<'a> {
    /// RFC 6902: a list of operations, all of them or none.
    Json(&'a [Value]),
    /// RFC 7386.
    Merge(&'a Value),
}

/// One call of the port: the requests that it makes, and until when.
#[derive(Debug)]
pub(super) struct Session<'a> {
    client: &'a ClientHandle,
    clock: &'a dyn Clock,
    deadline: MonotonicTime,
    /// How many requests that change something were sent and not refused.
    begun: AtomicUsize,
}

/// The client and the namespace that it works in.
pub(super) struct ClientHandle {
    pub(super) client: Client,
    pub(super) namespace: String,
}

impl std::fmt::Debug for ClientHandle {
    /// Without the client: it holds credentials.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientHandle").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl<'a> Session<'a> {
    pub(super) const fn new(client: &'a ClientHandle, clock: &'a dyn Clock, deadline: MonotonicTime) -> Self {
        Self { client, clock, deadline, begun: AtomicUsize::new(0) }
    }

    pub(super) fn clock(&self) -> &'a dyn Clock {
        self.clock
    }

    /// Whether something was changed, or may have been.
    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed) > 0
    }

    pub(super) fn namespace(&self) -> &'a str {
        &self.client.namespace
    }

    /// What a change comes to by the deadline.
    pub(super) async fn outcome<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Outcome<T> {
        match self.within(work).await {
            Ok(done) => Outcome::Applied(done),
            Err(failure) => failure.into_outcome(),
        }
    }

    /// What a look sees by the deadline.
    pub(super) async fn answer<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, PortError> {
        self.within(work).await.map_err(Failure::into_error)
    }

    async fn within<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        if self.clock.monotonic() >= self.deadline {
            return Err(Failure::late());
        }
        let late = self.clock.sleep_until(self.deadline);
        pin_mut!(work);
        match select(work, late).await {
            Either::Left((done, _)) => done,
            Either::Right(((), _)) if self.has_begun() => Err(Failure::late().opened()),
            Either::Right(((), _)) => Err(Failure::late()),
        }
    }

    /// An object; `None` where there is none.
    pub(super) async fn get(&self, resource: Resource, name: &str) -> Result<Option<Value>, Failure> {
        let path = self.object(resource, name);
        absent(self.send(Method::GET, path, None, resource.words).await)
    }

    /// Every object with these labels.
    ///
    /// A token that goes on to the next page expires, by a compaction of the server's history for instance; then the list
    /// begins again: <https://kubernetes.io/docs/reference/using-api/api-concepts/#retrieving-large-results-sets-in-chunks>.
    pub(super) async fn list(&self, resource: Resource, labels: &str) -> Result<Vec<Value>, Failure> {
        for _ in 0..LISTS {
            if let Some(objects) = self.list_once(resource, labels).await? {
                return Ok(objects);
            }
        }
        Err(Failure::new(ErrorKind::Unavailable, "the API server let every list expire before its last page"))
    }

    /// The same in one go; `None` when a page's token had expired.
    async fn list_once(&self, resource: Resource, labels: &str) -> Result<Option<Vec<Value>>, Failure> {
        let mut objects = Vec::new();
        let mut next = String::new();
        loop {
            let path = format!(
                "{}?limit={PAGE}&labelSelector={}&continue={}",
                resource.path(self.namespace()),
                encoded(labels),
                encoded(&next)
            );
            let answer = self.raw(Method::GET, path, None).await?;
            if answer.status == EXPIRED && !next.is_empty() {
                return Ok(None);
            }
            let page = answer.object(resource.words)?;
            let items = page.get("items").and_then(Value::as_array);
            objects.extend(items.into_iter().flatten().cloned());
            match page.pointer("/metadata/continue").and_then(Value::as_str) {
                Some(token) if !token.is_empty() => next = token.to_owned(),
                Some(_) | None => return Ok(Some(objects)),
            }
        }
    }

    /// What a container printed, its last part; `None` where there is nothing to be had.
    pub(super) async fn log(&self, pod: &str, container: &str) -> Result<Option<String>, Failure> {
        let path = format!(
            "{}/log?container={}&tailLines=200&limitBytes=65536",
            self.object(PODS, pod),
            encoded(container)
        );
        let answer = self.raw(Method::GET, path, None).await?;
        match answer.status {
            200 => Ok(Some(String::from_utf8_lossy(&answer.body).into_owned())),
            // It never started, or is gone with its pod.
            400 | 404 => Ok(None),
            status => Err(answer.failure(status, Words::Kept)),
        }
    }

    pub(super) async fn create(&self, resource: Resource, object: &Value) -> Result<Value, Failure> {
        let path = resource.path(self.namespace());
        self.change(Method::POST, path, ("application/json", object), resource.words).await
    }

    pub(super) async fn patch(
        &self,
        resource: Resource,
        name: &str,
        patch: Patch<'_>,
    ) -> Result<Value, Failure> {
        let path = self.object(resource, name);
        match patch {
            Patch::Json(operations) => {
                let content = ("application/json-patch+json", &json!(operations));
                self.change(Method::PATCH, path, content, resource.words).await
            }
            Patch::Merge(value) => {
                let content = ("application/merge-patch+json", value);
                self.change(Method::PATCH, path, content, resource.words).await
            }
        }
    }

    /// Deletes that object of that uid, and in the background what it owns. What is not there, or is another one by now,
    /// is deleted already.
    pub(super) async fn delete(
        &self,
        resource: Resource,
        name: &str,
        uid: Option<&str>,
    ) -> Result<(), Failure> {
        let mut options = json!({
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
        });
        if let Some(uid) = uid {
            options["preconditions"] = json!({ "uid": uid });
        }
        let path = self.object(resource, name);
        let content = ("application/json", &options);
        match self.change(Method::DELETE, path, content, resource.words).await {
            Ok(_) => Ok(()),
            Err(failure) if matches!(failure.kind, ErrorKind::NotFound | ErrorKind::Conflict) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// Asks the server whether this client may do something.
    pub(super) async fn may(&self, attributes: &Value) -> Result<bool, Failure> {
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": { "resourceAttributes": attributes },
        });
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews".to_owned();
        let content = Some(("application/json", &review));
        let answer = self.send(Method::POST, path, content, Words::Kept).await?;
        Ok(answer.pointer("/status/allowed").and_then(Value::as_bool) == Some(true))
    }

    fn object(&self, resource: Resource, name: &str) -> String {
        format!("{}/{}", resource.path(self.namespace()), encoded(name))
    }

    /// Sends what changes something. Without an answer that can be relied on it may still take effect.
    async fn change(
        &self,
        method: Method,
        path: String,
        content: (&'static str, &Value),
        words: Words,
    ) -> Result<Value, Failure> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        let answer = self.send(method, path, Some(content), words).await;
        if answer.as_ref().is_err_and(|failure| !failure.open) {
            self.begun.fetch_sub(1, Ordering::Relaxed);
        }
        answer
    }

    async fn send(
        &self,
        method: Method,
        path: String,
        content: Option<(&'static str, &Value)>,
        words: Words,
    ) -> Result<Value, Failure> {
        let changes = method != Method::GET;
        let answer = self.raw(method, path, content).await?;
        let open = changes && (answer.status < 300 || leaves_open(answer.status));
        answer.object(words).map_err(|failure| if open { failure.opened() } else { failure })
    }

    async fn raw(
        &self,
        method: Method,
        path: String,
        content: Option<(&'static str, &Value)>,
    ) -> Result<Answer, Failure> {
        let changes = method != Method::GET;
        let request = Request::builder().method(method).uri(path);
        let request = match content {
            Some((format, value)) => {
                request.header(CONTENT_TYPE, format).body(Body::from(value.to_string().into_bytes()))
            }
            None => request.body(Body::empty()),
        };
        let request =
            request.map_err(|_| Failure::new(ErrorKind::Invalid, "the request cannot be written"))?;
        let silent = |failure: Failure| if changes { failure.opened() } else { failure };
        let response = self.client.client.send(request).await.map_err(|error| match reached(&error) {
            Reached::No => Failure::new(ErrorKind::Unavailable, "the API server cannot be reached"),
            Reached::Perhaps => {
                silent(Failure::new(ErrorKind::Unavailable, "the API server does not answer"))
            }
        })?;
        let status = response.status().as_u16();
        let retry_after =
            response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let body =
            response.into_body().collect_bytes().await.map_err(|_| {
                silent(Failure::new(ErrorKind::Unavailable, "the API server's answer broke off"))
            })?;
        Ok(Answer { status, retry_after, body: body.to_vec() })
    }
}

struct Answer {
    status: u16,
    retry_after: Option<u64>,
    body: Vec<u8>,
}

impl Answer {
    /// The object that a read was answered with.
    fn object(&self, words: Words) -> Result<Value, Failure> {
        match self.status {
            200..=299 => serde_json::from_slice(&self.body)
                .map_err(|_| Failure::new(ErrorKind::Unavailable, "the API server's answer is not JSON")),
            status => Err(self.failure(status, words)),
        }
    }

    fn failure(&self, status: u16, words: Words) -> Failure {
        let object = serde_json::from_slice(&self.body).unwrap_or(Value::Null);
        Failure::answered(status, &object, self.retry_after, words)
    }
}

fn absent(answer: Result<Value, Failure>) -> Result<Option<Value>, Failure> {
    match answer {
        Ok(object) => Ok(Some(object)),
        Err(failure) if failure.kind == ErrorKind::NotFound => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// Whether a request without an answer had left.
enum Reached {
    No,
    Perhaps,
}

fn reached(error: &kube::Error) -> Reached {
    let kube::Error::Service(error) = error else { return Reached::Perhaps };
    match error.downcast_ref::<hyper_util::client::legacy::Error>() {
        Some(error) if error.is_connect() => Reached::No,
        Some(_) | None => Reached::Perhaps,
    }
}

/// A text as a part of a path or a query.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_one_segment() {
        assert_eq!(encoded("cdm/uid in (a,b)"), "cdm%2Fuid%20in%20%28a%2Cb%29");
        assert_eq!(encoded("../x?y#z"), "..%2Fx%3Fy%23z");
        assert_eq!(encoded("rrr-install-78"), "rrr-install-78");
    }

    #[test]
    fn paths_are_those_of_the_groups() {
        assert_eq!(PODS.path("sites"), "/api/v1/namespaces/sites/pods");
        assert_eq!(JOBS.path("sites"), "/apis/batch/v1/namespaces/sites/jobs");
    }
}
