//! Webhooks over HTTP: the host name is resolved once, all its addresses are checked, and the connection goes to a
//! checked address.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use serde::Serialize;

use super::{Outbound, OutboundError, OutboundRequest};
use crate::domain::Timestamp;
use crate::domain::webhook::{Allowed, Receiver};
use crate::ports::{Clock, DeliveryError, Message, WebhookSender};

/// Timeout of name resolution, connection and response together.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The body of a response is not read: the status decides.
const MAX_BODY: usize = 0;

/// Resolves host names before a request, so that the caller can reject addresses that are not allowed.
#[async_trait]
pub trait Resolver: Send + Sync + fmt::Debug + 'static {
    /// Resolves the addresses of a host name.
    ///
    /// # Errors
    /// [`OutboundError::NoAddress`] when the name has no address, [`OutboundError::ConnectTimeout`] after the timeout.
    async fn resolve(
        &self,
        name: &str,
        port: u16,
        timeout: Duration,
    ) -> Result<Vec<SocketAddr>, OutboundError>;
}

#[async_trait]
impl Resolver for Outbound {
    async fn resolve(
        &self,
        name: &str,
        port: u16,
        timeout: Duration,
    ) -> Result<Vec<SocketAddr>, OutboundError> {
        Self::resolve(self, name, port, timeout).await
    }
}

/// Sends webhooks to public addresses, and to the private addresses that are allowed.
#[derive(Debug)]
pub struct HttpWebhookSender {
    outbound: Outbound,
    resolver: Arc<dyn Resolver>,
    allowed: Vec<Allowed>,
    clock: Arc<dyn Clock>,
}

impl HttpWebhookSender {
    /// Creates a sender that resolves host names with `resolver`. Outside tests, `resolver` is `outbound`.
    pub fn new(
        outbound: Outbound,
        resolver: Arc<dyn Resolver>,
        allowed: Vec<Allowed>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { outbound, resolver, allowed, clock }
    }
}

#[async_trait]
impl WebhookSender for HttpWebhookSender {
    async fn post(&self, message: &Message) -> Result<(), DeliveryError> {
        let receiver =
            Receiver::parse(&message.url, &self.allowed).map_err(|_unshown| DeliveryError::NotAllowed)?;
        let started = self.clock.monotonic();
        let found =
            self.resolver.resolve(receiver.host(), receiver.port(), TIMEOUT).await.map_err(undelivered)?;
        let to = receiver.choose(&found).ok_or(DeliveryError::PrivateAddress)?;
        let remaining = TIMEOUT.saturating_sub(self.clock.monotonic().since(started));
        let request = request(to, &receiver, message).map_err(undelivered)?;
        let received = self.outbound.send(request, MAX_BODY, remaining).await.map_err(undelivered)?;
        if (200..300).contains(&received.status) {
            Ok(())
        } else {
            let retry_after = received.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
            let retry_after = retry_after.and_then(|text| pause(text, message.at));
            Err(DeliveryError::Rejected { status: received.status, retry_after })
        }
    }
}

/// The body of a message by the Standard Webhooks specification: its type, the time of the event, and the data, which
/// is the event in the feed.
#[derive(Serialize)]
struct Body<'a> {
    r#type: &'static str,
    timestamp: String,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    subject: Option<String>,
    operation: Option<String>,
    rollout: Option<String>,
    what: &'a str,
}

impl<'a> Body<'a> {
    fn of(message: &'a Message) -> Self {
        let event = &message.event;
        let millis = i64::try_from(event.at.millis()).unwrap_or(i64::MAX);
        let moment = jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX);
        Self {
            r#type: message.topic.as_str(),
            timestamp: format!("{moment:.3}"),
            data: Data {
                subject: event.subject.as_ref().map(ToString::to_string),
                operation: event.operation.as_ref().map(ToString::to_string),
                rollout: event.rollout.map(|number| format!("rollout-{number}")),
                what: &event.what,
            },
        }
    }
}

fn request(to: SocketAddr, receiver: &Receiver, message: &Message) -> Result<OutboundRequest, OutboundError> {
    let body = serde_json::to_string(&Body::of(message)).map_err(|_| OutboundError::InvalidRequest)?;
    let signature = message.key.sign(&message.id, message.at, body.as_bytes());
    let seconds = (message.at.millis() / 1_000).to_string();
    let value = |text: &str| HeaderValue::from_str(text).map_err(|_| OutboundError::InvalidRequest);
    let default_port = if receiver.tls() { 443 } else { 80 };
    Ok(OutboundRequest {
        to,
        tls: receiver.tls(),
        name: receiver.host().to_owned(),
        port: (receiver.port() != default_port).then(|| receiver.port()),
        method: Method::POST,
        target: receiver.target().to_owned(),
        headers: vec![
            (USER_AGENT, HeaderValue::from_static("cdm-webhook")),
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (HeaderName::from_static("webhook-id"), value(&message.id)?),
            (HeaderName::from_static("webhook-timestamp"), value(&seconds)?),
            (HeaderName::from_static("webhook-signature"), value(&signature)?),
        ],
        body: body.into(),
    })
}

/// Parses `Retry-After` (RFC 9110, 10.2.3): a number of seconds, or a date.
fn pause(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    let at = Timestamp::from_millis(u64::try_from(at.as_millisecond()).ok()?);
    Some(at.since(now))
}

fn undelivered(error: OutboundError) -> DeliveryError {
    match error {
        OutboundError::NoAddress => DeliveryError::Unreachable("the host name has no address"),
        OutboundError::InvalidRequest => DeliveryError::Unreachable("the request is not valid HTTP"),
        OutboundError::Unreachable => DeliveryError::Unreachable("the connection failed"),
        OutboundError::Tls => DeliveryError::Unreachable("the certificate is not accepted"),
        OutboundError::ConnectTimeout => DeliveryError::Unreachable("the connection timed out"),
        OutboundError::TimedOut => DeliveryError::NoAnswer("the response timed out"),
        OutboundError::Broken => DeliveryError::NoAnswer("the response is incomplete or not valid HTTP"),
    }
}
