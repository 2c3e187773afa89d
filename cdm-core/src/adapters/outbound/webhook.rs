//! Webhooks over HTTP: the name is looked up once, all that is found is judged, and the bytes go to what was judged.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hyper::Method;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use serde::Serialize;

use super::{Asked, Outbound, OutboundError};
use crate::domain::Timestamp;
use crate::domain::webhook::{Allowed, Receiver};
use crate::ports::{Clock, DeliveryError, Message, WebhookSender};

/// How long look-up, connection, and answer take together at most.
const PATIENCE: Duration = Duration::from_secs(10);
/// Nothing of an answer's body is waited for: the status decides.
const MOST_BODY: usize = 0;

/// Looks names up.
#[async_trait]
pub trait Lookup: Send + Sync + fmt::Debug + 'static {
    /// The addresses of a name.
    ///
    /// # Errors
    /// [`OutboundError::NoAddress`], [`OutboundError::Slow`].
    async fn look_up(
        &self,
        name: &str,
        port: u16,
        timeout: Duration,
    ) -> Result<Vec<SocketAddr>, OutboundError>;
}

#[async_trait]
impl Lookup for Outbound {
    async fn look_up(
        &self,
        name: &str,
        port: u16,
        timeout: Duration,
    ) -> Result<Vec<SocketAddr>, OutboundError> {
        self.resolve(name, port, timeout).await
    }
}

/// Sends webhooks to addresses out on the internet, and to those inside that are allowed.
#[derive(Debug)]
pub struct HttpPostman {
    outbound: Outbound,
    lookup: Arc<dyn Lookup>,
    allowed: Vec<Allowed>,
    clock: Arc<dyn Clock>,
}

impl HttpPostman {
    /// Asks `lookup` for addresses, which is `outbound` itself but for tests.
    pub fn new(
        outbound: Outbound,
        lookup: Arc<dyn Lookup>,
        allowed: Vec<Allowed>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { outbound, lookup, allowed, clock }
    }
}

#[async_trait]
impl WebhookSender for HttpPostman {
    async fn post(&self, message: &Message) -> Result<(), DeliveryError> {
        let receiver =
            Receiver::parse(&message.url, &self.allowed).map_err(|_unshown| DeliveryError::NotAllowed)?;
        let started = self.clock.monotonic();
        let found =
            self.lookup.look_up(receiver.host(), receiver.port(), PATIENCE).await.map_err(undelivered)?;
        let to = receiver.choose(&found).ok_or(DeliveryError::PrivateAddress)?;
        let left = PATIENCE.saturating_sub(self.clock.monotonic().since(started));
        let asked = asked(to, &receiver, message).map_err(undelivered)?;
        let answered = self.outbound.ask(asked, MOST_BODY, left).await.map_err(undelivered)?;
        if (200..300).contains(&answered.status) {
            Ok(())
        } else {
            let retry_after = answered.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
            let retry_after = retry_after.and_then(|text| pause(text, message.at));
            Err(DeliveryError::Rejected { status: answered.status, retry_after })
        }
    }
}

/// A message's body, by the Standard Webhooks specification: what kind it is of, when it happened, and the data, which
/// is the feed's event.
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

fn asked(to: SocketAddr, receiver: &Receiver, message: &Message) -> Result<Asked, OutboundError> {
    let body = serde_json::to_string(&Body::of(message)).map_err(|_| OutboundError::NoRequest)?;
    let signature = message.key.sign(&message.id, message.at, body.as_bytes());
    let seconds = (message.at.millis() / 1_000).to_string();
    let value = |text: &str| HeaderValue::from_str(text).map_err(|_| OutboundError::NoRequest);
    let usual = if receiver.tls() { 443 } else { 80 };
    Ok(Asked {
        to,
        tls: receiver.tls(),
        name: receiver.host().to_owned(),
        port: (receiver.port() != usual).then(|| receiver.port()),
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

/// What `Retry-After` asks for (RFC 9110, 10.2.3): a count of seconds, or a date.
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
        OutboundError::NoAddress => DeliveryError::Unreachable("the name has no address"),
        OutboundError::NoRequest => DeliveryError::Unreachable("the request is no HTTP"),
        OutboundError::Unreachable => DeliveryError::Unreachable("no connection comes about"),
        OutboundError::Tls => DeliveryError::Unreachable("the certificate is not accepted"),
        OutboundError::Slow => DeliveryError::Unreachable("no connection in time"),
        OutboundError::TimedOut => DeliveryError::NoAnswer("no answer in time"),
        OutboundError::Broken => DeliveryError::NoAnswer("the answer breaks off, or is no HTTP"),
    }
}
