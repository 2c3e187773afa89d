//! Requests to the API server: paths, deadlines, the content of responses, and whether a request may have changed
//! something.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::{Either, select};
use futures_util::pin_mut;
use hyper::header::{CONTENT_TYPE, RETRY_AFTER};
use hyper::{Method, Request};
use kube::Client;
use kube::client::Body;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::failure::{Failure, MessagePolicy, is_ambiguous};
use crate::domain::MonotonicTime;
use crate::ports::{Clock, ErrorKind, Outcome, PortError};

/// Maximum number of objects in a page of a list.
const PAGE: usize = 500;
/// How often a list is started again after the token of a page has expired.
const MAX_LIST_ATTEMPTS: u32 = 4;
/// The status of the response to an expired page token.
const EXPIRED: u16 = 410;

/// A kind of object, with its name in paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Resource {
    pub(super) group: &'static str,
    pub(super) version: &'static str,
    pub(super) kind: &'static str,
    pub(super) plural: &'static str,
    message_policy: MessagePolicy,
}

const fn resource(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
) -> Resource {
    Resource { group, version, kind, plural, message_policy: MessagePolicy::Include }
}

pub(super) const CONFIG_MAPS: Resource = resource("", "v1", "ConfigMap", "configmaps");
pub(super) const SECRETS: Resource =
    Resource { message_policy: MessagePolicy::Omit, ..resource("", "v1", "Secret", "secrets") };
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

/// The format of a patch.
#[derive(Clone, Copy, Debug)]
pub(super) enum Patch<'a> {
    /// A JSON Patch (RFC 6902): a list of operations, applied atomically.
    Json(&'a [Value]),
    /// A JSON Merge Patch (RFC 7386).
    Merge(&'a Value),
}

/// One call of the port: sends the requests of the call, until its deadline.
#[derive(Debug)]
pub(super) struct Session<'a> {
    client: &'a ClientHandle,
    clock: &'a dyn Clock,
    deadline: MonotonicTime,
    /// The number of changing requests that were sent and not rejected.
    changes_sent: AtomicUsize,
}

/// The client and its namespace.
pub(super) struct ClientHandle {
    pub(super) client: Client,
    pub(super) namespace: String,
}

impl std::fmt::Debug for ClientHandle {
    /// Omits the client, which has credentials.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientHandle").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl<'a> Session<'a> {
    pub(super) const fn new(client: &'a ClientHandle, clock: &'a dyn Clock, deadline: MonotonicTime) -> Self {
        Self { client, clock, deadline, changes_sent: AtomicUsize::new(0) }
    }

    pub(super) fn clock(&self) -> &'a dyn Clock {
        self.clock
    }

    /// Whether something was changed, or may have been.
    pub(super) fn has_sent_change(&self) -> bool {
        self.changes_sent.load(Ordering::Relaxed) > 0
    }

    pub(super) fn namespace(&self) -> &'a str {
        &self.client.namespace
    }

    /// The outcome of a change, or of the deadline if it passes first.
    pub(super) async fn outcome<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Outcome<T> {
        match self.within(work).await {
            Ok(done) => Outcome::Applied(done),
            Err(failure) => failure.into_outcome(),
        }
    }

    /// The result of a read, or an error if the deadline passes first.
    pub(super) async fn read<T>(
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
            Either::Right(((), _)) if self.has_sent_change() => Err(Failure::late().into_maybe_applied()),
            Either::Right(((), _)) => Err(Failure::late()),
        }
    }

    /// Returns an object; `None` if it does not exist.
    pub(super) async fn get(&self, resource: Resource, name: &str) -> Result<Option<Value>, Failure> {
        let path = self.object(resource, name);
        optional(self.send(Method::GET, path, None, resource.message_policy).await)
    }

    /// Lists the objects that match a label selector.
    ///
    /// The token of the next page can expire, for example when the server compacts its history; the list then starts
    /// again: <https://kubernetes.io/docs/reference/using-api/api-concepts/#retrieving-large-results-sets-in-chunks>.
    pub(super) async fn list(&self, resource: Resource, labels: &str) -> Result<Vec<Value>, Failure> {
        for _ in 0..MAX_LIST_ATTEMPTS {
            if let Some(objects) = self.list_once(resource, labels).await? {
                return Ok(objects);
            }
        }
        Err(Failure::new(
            ErrorKind::Unavailable,
            "a list of the API server expired repeatedly before its last page",
        ))
    }

    /// Lists all pages once; `None` when the token of a page has expired.
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
            let response = self.raw(Method::GET, path, None).await?;
            if response.status == EXPIRED && !next.is_empty() {
                return Ok(None);
            }
            let page = response.object(resource.message_policy)?;
            let items = page.get("items").and_then(Value::as_array);
            objects.extend(items.into_iter().flatten().cloned());
            match page.pointer("/metadata/continue").and_then(Value::as_str) {
                Some(token) if !token.is_empty() => next = token.to_owned(),
                Some(_) | None => return Ok(Some(objects)),
            }
        }
    }

    /// Returns the last part of a container's log; `None` if the container has no log.
    pub(super) async fn log(&self, pod: &str, container: &str) -> Result<Option<String>, Failure> {
        let path = format!(
            "{}/log?container={}&tailLines=200&limitBytes=65536",
            self.object(PODS, pod),
            encoded(container)
        );
        let response = self.raw(Method::GET, path, None).await?;
        match response.status {
            200 => Ok(Some(String::from_utf8_lossy(&response.body).into_owned())),
            // The container never started, or was deleted with its pod.
            400 | 404 => Ok(None),
            status => Err(response.failure(status, MessagePolicy::Include)),
        }
    }

    pub(super) async fn create(&self, resource: Resource, object: &Value) -> Result<Value, Failure> {
        let path = resource.path(self.namespace());
        self.change(Method::POST, path, ("application/json", object), resource.message_policy).await
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
                self.change(Method::PATCH, path, content, resource.message_policy).await
            }
            Patch::Merge(value) => {
                let content = ("application/merge-patch+json", value);
                self.change(Method::PATCH, path, content, resource.message_policy).await
            }
        }
    }

    /// Deletes the object with this uid, and the objects it owns in the background. Succeeds if the object does not
    /// exist or has another uid.
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
        match self.change(Method::DELETE, path, content, resource.message_policy).await {
            Ok(_) => Ok(()),
            Err(failure) if matches!(failure.kind, ErrorKind::NotFound | ErrorKind::Conflict) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// Whether the API server authorizes this client for the given action.
    pub(super) async fn is_allowed(&self, attributes: &Value) -> Result<bool, Failure> {
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": { "resourceAttributes": attributes },
        });
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews".to_owned();
        let content = Some(("application/json", &review));
        let response = self.send(Method::POST, path, content, MessagePolicy::Include).await?;
        Ok(response.pointer("/status/allowed").and_then(Value::as_bool) == Some(true))
    }

    fn object(&self, resource: Resource, name: &str) -> String {
        format!("{}/{}", resource.path(self.namespace()), encoded(name))
    }

    /// Sends a request that changes something. Without a reliable response, the request may still take effect.
    async fn change(
        &self,
        method: Method,
        path: String,
        content: (&'static str, &Value),
        message_policy: MessagePolicy,
    ) -> Result<Value, Failure> {
        self.changes_sent.fetch_add(1, Ordering::Relaxed);
        let response = self.send(method, path, Some(content), message_policy).await;
        if response.as_ref().is_err_and(|failure| !failure.maybe_applied) {
            self.changes_sent.fetch_sub(1, Ordering::Relaxed);
        }
        response
    }

    async fn send(
        &self,
        method: Method,
        path: String,
        content: Option<(&'static str, &Value)>,
        message_policy: MessagePolicy,
    ) -> Result<Value, Failure> {
        let changes = method != Method::GET;
        let response = self.raw(method, path, content).await?;
        let maybe_applied = changes && (response.status < 300 || is_ambiguous(response.status));
        response
            .object(message_policy)
            .map_err(|failure| if maybe_applied { failure.into_maybe_applied() } else { failure })
    }

    async fn raw(
        &self,
        method: Method,
        path: String,
        content: Option<(&'static str, &Value)>,
    ) -> Result<RawResponse, Failure> {
        let changes = method != Method::GET;
        let request = Request::builder().method(method).uri(path);
        let request = match content {
            Some((format, value)) => {
                request.header(CONTENT_TYPE, format).body(Body::from(value.to_string().into_bytes()))
            }
            None => request.body(Body::empty()),
        };
        let request =
            request.map_err(|_| Failure::new(ErrorKind::Invalid, "the request cannot be encoded"))?;
        let no_response = |failure: Failure| if changes { failure.into_maybe_applied() } else { failure };
        let response = self.client.client.send(request).await.map_err(|error| match reached(&error) {
            Reached::No => Failure::new(ErrorKind::Unavailable, "the API server cannot be reached"),
            Reached::Maybe => {
                no_response(Failure::new(ErrorKind::Unavailable, "the API server did not respond"))
            }
        })?;
        let status = response.status().as_u16();
        let retry_after =
            response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let body = response.into_body().collect_bytes().await.map_err(|_| {
            no_response(Failure::new(ErrorKind::Unavailable, "the response of the API server was cut off"))
        })?;
        Ok(RawResponse { status, retry_after, body: body.to_vec() })
    }
}

struct RawResponse {
    status: u16,
    retry_after: Option<u64>,
    body: Vec<u8>,
}

impl RawResponse {
    /// The object in a response.
    fn object(&self, message_policy: MessagePolicy) -> Result<Value, Failure> {
        match self.status {
            200..=299 => serde_json::from_slice(&self.body).map_err(|_| {
                Failure::new(ErrorKind::Unavailable, "the response of the API server is not JSON")
            }),
            status => Err(self.failure(status, message_policy)),
        }
    }

    fn failure(&self, status: u16, message_policy: MessagePolicy) -> Failure {
        let object = serde_json::from_slice(&self.body).unwrap_or(Value::Null);
        Failure::from_response(status, &object, self.retry_after, message_policy)
    }
}

fn optional(response: Result<Value, Failure>) -> Result<Option<Value>, Failure> {
    match response {
        Ok(object) => Ok(Some(object)),
        Err(failure) if failure.kind == ErrorKind::NotFound => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// Whether a request without a response may have reached the server.
enum Reached {
    No,
    Maybe,
}

fn reached(error: &kube::Error) -> Reached {
    let kube::Error::Service(error) = error else { return Reached::Maybe };
    match error.downcast_ref::<hyper_util::client::legacy::Error>() {
        Some(error) if error.is_connect() => Reached::No,
        Some(_) | None => Reached::Maybe,
    }
}

/// The characters that are encoded in a part of a path or a query: all but the unreserved ones of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Percent-encodes a text as a part of a path or a query.
fn encoded(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
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
