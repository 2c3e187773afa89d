//! Requests to the API server: deadlines, the content of responses, and whether a request may have changed something.

use std::fmt::Debug;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::{Either, select};
use futures_util::pin_mut;
use hyper::header::RETRY_AFTER;
use hyper::{Method, Request};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use k8s_openapi::api::networking::v1::Ingress;
use kube::api::{
    DeleteParams, GetParams, ListParams, LogParams, Patch, PatchParams, PostParams, Preconditions,
};
use kube::client::Body;
use kube::core::{ObjectList, request};
use kube::{Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::failure::{ErrorStatus, Failure, MessagePolicy, is_ambiguous};
use crate::domain::MonotonicTime;
use crate::ports::{Clock, ErrorKind, Outcome, PortError};

/// Maximum number of objects in a page of a list.
const PAGE: u32 = 500;
/// How often a list is started again after the token of a page has expired.
const MAX_LIST_ATTEMPTS: u32 = 4;
/// The status of the response to an expired page token.
const EXPIRED: u16 = 410;

/// A kind of object in the namespace.
pub(super) trait Kind: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned {
    /// Whether messages of the server about the object may be included in errors.
    const MESSAGES: MessagePolicy = MessagePolicy::Include;
}

impl Kind for ConfigMap {}
impl Kind for Deployment {}
impl Kind for Ingress {}
impl Kind for Job {}
impl Kind for Pod {}
impl Kind for Secret {
    const MESSAGES: MessagePolicy = MessagePolicy::Omit;
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

    /// Returns whether something was changed, or may have been.
    pub(super) fn has_sent_change(&self) -> bool {
        self.changes_sent.load(Ordering::Relaxed) > 0
    }

    pub(super) fn namespace(&self) -> &'a str {
        &self.client.namespace
    }

    /// Returns the outcome of a change, or of the deadline if it passes first.
    pub(super) async fn outcome<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Outcome<T> {
        match self.within(work).await {
            Ok(done) => Outcome::Applied(done),
            Err(failure) => failure.into_outcome(),
        }
    }

    /// Returns the result of a read, or an error if the deadline passes first.
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
    pub(super) async fn get<K: Kind>(&self, name: &str) -> Result<Option<K>, Failure> {
        self.get_as::<K, K>(name).await
    }

    /// Returns an object as JSON, with the fields that this version of its type does not have.
    pub(super) async fn get_json<K: Kind>(&self, name: &str) -> Result<Option<Value>, Failure> {
        self.get_as::<K, Value>(name).await
    }

    async fn get_as<K: Kind, T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Failure> {
        let request = self.requests::<K>().get(name, &GetParams::default());
        match self.send(request, K::MESSAGES).await {
            Ok(object) => Ok(Some(object)),
            Err(failure) if failure.kind == ErrorKind::NotFound => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Lists the objects that match a label selector.
    ///
    /// The token of the next page can expire, for example when the server compacts its history; the list then starts
    /// again: <https://kubernetes.io/docs/reference/using-api/api-concepts/#retrieving-large-results-sets-in-chunks>.
    pub(super) async fn list<K: Kind>(&self, labels: &str) -> Result<Vec<K>, Failure> {
        for _ in 0..MAX_LIST_ATTEMPTS {
            if let Some(objects) = self.list_once(labels).await? {
                return Ok(objects);
            }
        }
        Err(Failure::new(
            ErrorKind::Unavailable,
            "a list of the API server expired repeatedly before its last page",
        ))
    }

    /// Lists all pages once; `None` when the token of a page has expired.
    async fn list_once<K: Kind>(&self, labels: &str) -> Result<Option<Vec<K>>, Failure> {
        let mut objects = Vec::new();
        let mut page = ListParams::default().labels(labels).limit(PAGE);
        loop {
            let response = self.raw(self.requests::<K>().list(&page)).await?;
            if response.status == EXPIRED && page.continue_token.is_some() {
                return Ok(None);
            }
            let list: ObjectList<K> = response.object(K::MESSAGES)?;
            objects.extend(list.items);
            match list.metadata.continue_ {
                Some(token) if !token.is_empty() => page = page.continue_token(&token),
                Some(_) | None => return Ok(Some(objects)),
            }
        }
    }

    /// Returns the last part of a container's log; `None` if the container has no log.
    pub(super) async fn log(&self, pod: &str, container: &str) -> Result<Option<String>, Failure> {
        let part = LogParams {
            container: Some(container.to_owned()),
            limit_bytes: Some(65_536),
            tail_lines: Some(200),
            ..LogParams::default()
        };
        let response = self.raw(self.requests::<Pod>().logs(pod, &part)).await?;
        match response.status {
            200 => Ok(Some(String::from_utf8_lossy(&response.body).into_owned())),
            // The container never started, or was deleted with its pod.
            400 | 404 => Ok(None),
            status => Err(response.failure(status, MessagePolicy::Include)),
        }
    }

    /// Creates an object, which is of the kind `K` or JSON for one.
    pub(super) async fn create<K: Kind>(&self, object: &impl Serialize) -> Result<K, Failure> {
        let request =
            encoded(object).and_then(|object| self.requests::<K>().create(&PostParams::default(), object));
        self.change(request, K::MESSAGES).await
    }

    pub(super) async fn patch<K: Kind>(&self, name: &str, patch: Patch<Value>) -> Result<K, Failure> {
        let request = self.requests::<K>().patch(name, &PatchParams::default(), &patch);
        self.change(request, K::MESSAGES).await
    }

    /// Deletes the object with this uid, and the objects it owns in the background. Succeeds if the object does not
    /// exist or has another uid.
    pub(super) async fn delete<K: Kind>(&self, name: &str, uid: Option<&str>) -> Result<(), Failure> {
        let mut options = DeleteParams::background();
        options.preconditions =
            uid.map(|uid| Preconditions { uid: Some(uid.to_owned()), ..Preconditions::default() });
        match self.change::<Value>(self.requests::<K>().delete(name, &options), K::MESSAGES).await {
            Ok(_) => Ok(()),
            Err(failure) if matches!(failure.kind, ErrorKind::NotFound | ErrorKind::Conflict) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// Returns whether the API server authorizes this client for the given action.
    pub(super) async fn is_allowed(&self, attributes: ResourceAttributes) -> Result<bool, Failure> {
        let resource_attributes = Some(attributes);
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes,
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        let requests = request::Request::new(SelfSubjectAccessReview::url_path(&(), None));
        let request = encoded(&review).and_then(|review| requests.create(&PostParams::default(), review));
        let response: SelfSubjectAccessReview = self.send(request, MessagePolicy::Include).await?;
        Ok(response.status.is_some_and(|status| status.allowed))
    }

    fn requests<K: Kind>(&self) -> request::Request {
        request::Request::new(K::url_path(&(), Some(self.namespace())))
    }

    /// Sends a request that changes something. Without a reliable response, the request may still take effect.
    async fn change<T: DeserializeOwned>(
        &self,
        request: EncodedRequest,
        message_policy: MessagePolicy,
    ) -> Result<T, Failure> {
        self.changes_sent.fetch_add(1, Ordering::Relaxed);
        let response = self.send(request, message_policy).await;
        if response.as_ref().is_err_and(|failure| !failure.maybe_applied) {
            self.changes_sent.fetch_sub(1, Ordering::Relaxed);
        }
        response
    }

    async fn send<T: DeserializeOwned>(
        &self,
        request: EncodedRequest,
        message_policy: MessagePolicy,
    ) -> Result<T, Failure> {
        let changes = request.as_ref().is_ok_and(changes);
        let response = self.raw(request).await?;
        let maybe_applied = changes && (response.status < 300 || is_ambiguous(response.status));
        response
            .object(message_policy)
            .map_err(|failure| if maybe_applied { failure.into_maybe_applied() } else { failure })
    }

    async fn raw(&self, request: EncodedRequest) -> Result<RawResponse, Failure> {
        let request =
            request.map_err(|_| Failure::new(ErrorKind::Invalid, "the request cannot be encoded"))?;
        let changes = changes(&request);
        let no_response = |failure: Failure| if changes { failure.into_maybe_applied() } else { failure };
        let sent = self.client.client.send(request.map(Body::from)).await;
        let response = sent.map_err(|error| match reached(&error) {
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

/// A request, or why it cannot be encoded.
type EncodedRequest = Result<Request<Vec<u8>>, request::Error>;

fn encoded(object: &impl Serialize) -> Result<Vec<u8>, request::Error> {
    serde_json::to_vec(object).map_err(request::Error::SerializeBody)
}

fn changes(request: &Request<Vec<u8>>) -> bool {
    request.method() != Method::GET
}

struct RawResponse {
    status: u16,
    retry_after: Option<u64>,
    body: Vec<u8>,
}

impl RawResponse {
    /// Returns the object in a response.
    fn object<T: DeserializeOwned>(&self, message_policy: MessagePolicy) -> Result<T, Failure> {
        match self.status {
            200..=299 => serde_json::from_slice(&self.body).map_err(|_| {
                Failure::new(
                    ErrorKind::Unavailable,
                    "the response of the API server is not the requested object",
                )
            }),
            status => Err(self.failure(status, message_policy)),
        }
    }

    fn failure(&self, status: u16, message_policy: MessagePolicy) -> Failure {
        let object: ErrorStatus = serde_json::from_slice(&self.body).unwrap_or_default();
        Failure::from_response(status, &object, self.retry_after, message_policy)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_groups() {
        assert_eq!(Pod::url_path(&(), Some("sites")), "/api/v1/namespaces/sites/pods");
        assert_eq!(Job::url_path(&(), Some("sites")), "/apis/batch/v1/namespaces/sites/jobs");
    }
}
