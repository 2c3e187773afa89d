//! Brings what the feed tells to webhooks' receivers: each message at least once and in order, one receiver apart from
//! the other, and none of them in the way of work.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{join_all, select};
use futures_util::stream::{FuturesUnordered, StreamExt};

use super::wake_signal::WakeSignal;
use super::{Worker, poll_while};
use crate::domain::webhook::{SigningKey, Topic, Webhook, Webhooks, message_id};
use crate::domain::{Fence, Uid};
use crate::ports::{
    CallContext, Credentials, DeliveryError, FeedEvent, Message, Mutation, Outcome, Ports, StoredSecret,
    WebhookSender, WriteBatch, WriteError,
};

/// How often a process looks whether there are webhooks, as long as there are none.
const REST: Duration = Duration::from_secs(30);
/// Events read at once; so many that are nobody's topic are passed by in memory before that is stored.
const PAGE: usize = 100;
/// How often a record that changed meanwhile is read anew.
const TRIES: u32 = 8;
/// The answer of a receiver that wants nothing any more.
const GONE: u16 = 410;

/// A process's share in sending. Of all processes the one that the record names sends; when that one is lost, another
/// takes its place. A webhook's place is stored after each message, so that no more than one is sent again.
#[derive(Debug)]
pub struct WebhookDispatcher {
    worker: Arc<Worker>,
    postman: Arc<dyn WebhookSender>,
    wake_signal: WakeSignal,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The webhooks that messages are being brought to.
    busy: BTreeSet<u64>,
    /// How far each one's events were passed by that it is not told of.
    passed: HashMap<u64, u64>,
    keys: HashMap<Uid, SigningKey>,
}

impl WebhookDispatcher {
    /// Sends with `postman`, for the process of `worker`, which tells who of the others is lost.
    pub fn new(worker: Arc<Worker>, postman: Arc<dyn WebhookSender>) -> Self {
        Self { worker, postman, wake_signal: WakeSignal::default(), state: Mutex::default() }
    }

    /// Asks it to stop: the message under way is the last one.
    pub fn stop(&self) {
        self.wake_signal.stop();
    }

    /// Tells it that there may be a new webhook.
    pub fn wake(&self) {
        self.wake_signal.ring();
    }

    /// Looks once, and brings all that is due. For tests; servers use [`WebhookDispatcher::run`].
    pub async fn run_once(&self) {
        let found = self.find().await.unwrap_or_default();
        join_all(found.into_iter().map(|webhook| self.deliver(webhook))).await;
    }

    /// Brings messages until [`WebhookDispatcher::stop`].
    pub async fn run(&self) {
        let mut work = FuturesUnordered::new();
        while !self.wake_signal.stopping() {
            let found = poll_while(self.find(), &mut work, &mut Vec::new()).await;
            let pause = if found.is_some() { self.worker.settings().scan } else { REST };
            work.extend(found.unwrap_or_default().into_iter().map(|webhook| self.deliver(webhook)));
            poll_while(self.idle(pause), &mut work, &mut Vec::new()).await;
        }
        while work.next().await.is_some() {}
        self.release().await;
    }

    fn ports(&self) -> &Ports {
        self.worker.ports()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn idle(&self, pause: Duration) {
        let clock = &self.ports().clock;
        select(Box::pin(self.wake_signal.heard()), clock.sleep_until(clock.monotonic().after(pause))).await;
    }

    /// The webhooks that are due and at rest, marked as busy; `None` where there is nothing to be told to anybody.
    async fn find(&self) -> Option<Vec<Webhook>> {
        let mut webhooks = self.ports().store.webhooks().await.ok()?;
        {
            let mut state = self.state();
            state.passed.retain(|number, _| webhooks.of(*number).is_some());
            state.keys.retain(|uid, _| webhooks.list.iter().any(|webhook| webhook.uid == *uid));
        }
        if !webhooks.any_live() {
            return None;
        }
        if !self.is_courier(&webhooks) {
            if webhooks.dispatcher.as_ref().is_some_and(|other| !self.worker.lost(other)) {
                return Some(Vec::new());
            }
            webhooks.dispatcher = Some(self.worker.lease().worker().clone());
            let Outcome::Applied(()) = self.write(webhooks.clone()).await else { return Some(Vec::new()) };
        }
        let now = self.ports().clock.wall();
        let mut state = self.state();
        let due = webhooks.list.into_iter().filter(|webhook| webhook.due(now));
        Some(due.filter(|webhook| state.busy.insert(webhook.number)).collect())
    }

    fn is_courier(&self, webhooks: &Webhooks) -> bool {
        webhooks.dispatcher.as_ref() == Some(self.worker.lease().worker())
    }

    /// Leaves the sending to whoever looks next. Should that fail, another finds out by the lease.
    async fn release(&self) {
        if let Ok(webhooks) = self.ports().store.webhooks().await
            && self.is_courier(&webhooks)
        {
            let _ = self.write(Webhooks { dispatcher: None, ..webhooks }).await;
        }
    }

    async fn deliver(&self, webhook: Webhook) {
        // `None` when an attempt failed, or somebody else has it now; the next look goes on from what is stored.
        let _ = self.bring(&webhook).await;
        self.state().busy.remove(&webhook.number);
    }

    async fn bring(&self, webhook: &Webhook) -> Option<()> {
        let mut cursor = self.state().passed.get(&webhook.number).copied().unwrap_or(0).max(webhook.cursor);
        let mut unstored = 0;
        loop {
            let events = self.ports().store.events(Some(cursor), PAGE).await.ok()?;
            if events.is_empty() {
                return Some(());
            }
            for (number, event) in events {
                if self.wake_signal.stopping() {
                    return Some(());
                }
                let topic = Topic::of(event.rollout.is_some(), &event.what);
                match topic.filter(|topic| webhook.wants(*topic)) {
                    None => unstored += 1,
                    Some(topic) => {
                        self.tell(webhook, number, topic, event).await?;
                        unstored = 0;
                    }
                }
                cursor = number;
                self.state().passed.insert(webhook.number, cursor);
            }
            if unstored >= PAGE {
                self.change(webhook, |webhook| webhook.pass(cursor)).await?;
                unstored = 0;
            }
        }
    }

    /// Makes one attempt and stores what came of it; `None` when the next event is not to be told now.
    async fn tell(&self, webhook: &Webhook, number: u64, topic: Topic, event: FeedEvent) -> Option<()> {
        if crate::bug!(WebhookPlaceFirst) {
            self.change(webhook, |webhook| webhook.mark_delivered(number)).await?;
        }
        let sent = self.post(webhook, number, topic, event).await;
        let now = self.ports().clock.wall();
        let kept = self.change(webhook, |webhook| match &sent {
            Ok(()) => webhook.mark_delivered(number),
            Err((Some(DeliveryError::Rejected { status: GONE, .. }), why)) => webhook.stop(now, why),
            Err((Some(DeliveryError::Rejected { retry_after, .. }), why)) => {
                webhook.failed(now, why.clone(), *retry_after);
            }
            Err((_, why)) => webhook.failed(now, why.clone(), None),
        });
        kept.await?;
        sent.ok()
    }

    async fn post(
        &self,
        webhook: &Webhook,
        number: u64,
        topic: Topic,
        event: FeedEvent,
    ) -> Result<(), (Option<DeliveryError>, String)> {
        let key = self.key(webhook).await.map_err(|why| (None, why.to_owned()))?;
        let message = Message {
            url: webhook.url.clone(),
            id: message_id(webhook.number, number),
            at: self.ports().clock.wall(),
            key,
            topic,
            event,
        };
        let sent = self.postman.post(&message).await;
        sent.map_err(|undelivered| (Some(undelivered), undelivered.to_string()))
    }

    /// A webhook's key never changes, so it is read once.
    async fn key(&self, webhook: &Webhook) -> Result<SigningKey, &'static str> {
        if let Some(key) = self.state().keys.get(&webhook.uid) {
            return Ok(key.clone());
        }
        match self.ports().secrets.read(&webhook.key()).await {
            Ok(Some(StoredSecret::Value(Credentials::Webhook(key)))) => {
                self.state().keys.insert(webhook.uid, key.clone());
                Ok(key)
            }
            Ok(_) => Err("its key is not in the secret store; remove the webhook and create it anew"),
            Err(_) => Err("the secret store does not answer"),
        }
    }

    /// Edits a webhook, if it is still there and this is still the courier.
    async fn change(&self, of: &Webhook, edit: impl Fn(&mut Webhook) + Send) -> Option<()> {
        for _ in 0..TRIES {
            let mut webhooks = self.ports().store.webhooks().await.ok()?;
            if !self.is_courier(&webhooks) {
                return None;
            }
            edit(webhooks.of_mut(of.number).filter(|webhook| webhook.uid == of.uid)?);
            match self.write(webhooks).await {
                Outcome::Applied(()) => return Some(()),
                Outcome::NotApplied(WriteError::Conflict(_)) => {}
                Outcome::NotApplied(_) | Outcome::Unknown(_) => return None,
            }
        }
        None
    }

    async fn write(&self, webhooks: Webhooks) -> Outcome<(), WriteError> {
        let ports = self.ports();
        let call = CallContext {
            deadline: ports.clock.monotonic().after(self.worker.settings().call),
            write: ports.entropy.write(),
            fence: Fence::default(),
        };
        ports.store.write(&call, &WriteBatch::of(vec![Mutation::Webhooks(Box::new(webhooks))])).await
    }
}
