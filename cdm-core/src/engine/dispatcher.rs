//! Sends events of the feed to the receivers of webhooks: each event at least once, in order, and each webhook
//! independently of the others and of operations.

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

/// The interval at which the webhooks are read while none is active.
const IDLE_INTERVAL: Duration = Duration::from_secs(30);
/// The number of events of one read, and the number of skipped events after which the cursor of a webhook is stored.
const PAGE: usize = 100;
/// The limit of attempts to edit a record that changes concurrently.
const TRIES: u32 = 8;
/// The status 410 of a receiver that wants no further messages.
const GONE: u16 = 410;

/// The webhook dispatcher of a process.
///
/// Only the process that the record of the webhooks names sends. When the lease of its worker has expired, another
/// process takes over. The cursor of a webhook is stored after each message, so that a takeover repeats at most one
/// message of each webhook.
#[derive(Debug)]
pub struct WebhookDispatcher {
    worker: Arc<Worker>,
    sender: Arc<dyn WebhookSender>,
    wake_signal: WakeSignal,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The numbers of the webhooks that messages are sent to at present.
    busy: BTreeSet<u64>,
    /// By webhook: the number of the last event that was sent or skipped, which can be ahead of the stored cursor.
    cursors: HashMap<u64, u64>,
    /// The signing keys that were read, by the uid of the webhook.
    keys: HashMap<Uid, SigningKey>,
}

impl WebhookDispatcher {
    /// Creates a dispatcher that sends with `sender`. `worker` is the worker of the same process, and determines which
    /// other workers are lost.
    pub fn new(worker: Arc<Worker>, sender: Arc<dyn WebhookSender>) -> Self {
        Self { worker, sender, wake_signal: WakeSignal::default(), state: Mutex::default() }
    }

    /// Stops the dispatcher after the message in progress.
    pub fn stop(&self) {
        self.wake_signal.stop();
    }

    /// Notifies the dispatcher of a new webhook.
    pub fn wake(&self) {
        self.wake_signal.notify();
    }

    /// Reads the webhooks once, and sends all events that are due. For tests; servers use [`WebhookDispatcher::run`].
    pub async fn run_once(&self) {
        let found = self.find().await.unwrap_or_default();
        join_all(found.into_iter().map(|webhook| self.deliver(webhook))).await;
    }

    /// Sends events until [`WebhookDispatcher::stop`] is called.
    pub async fn run(&self) {
        let mut work = FuturesUnordered::new();
        while !self.wake_signal.stopping() {
            let found = poll_while(self.find(), &mut work, &mut Vec::new()).await;
            let pause = if found.is_some() { self.worker.settings().scan } else { IDLE_INTERVAL };
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
        select(Box::pin(self.wake_signal.notified()), clock.sleep_until(clock.monotonic().after(pause)))
            .await;
    }

    /// Returns the webhooks that are due and idle, and marks them as busy. Returns `None` if no webhook is active, or if
    /// the store does not respond.
    async fn find(&self) -> Option<Vec<Webhook>> {
        let mut webhooks = self.ports().store.webhooks().await.ok()?;
        {
            let mut state = self.state();
            state.cursors.retain(|number, _| webhooks.of(*number).is_some());
            state.keys.retain(|uid, _| webhooks.list.iter().any(|webhook| webhook.uid == *uid));
        }
        if !webhooks.any_live() {
            return None;
        }
        if !self.is_dispatcher(&webhooks) {
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

    fn is_dispatcher(&self, webhooks: &Webhooks) -> bool {
        webhooks.dispatcher.as_ref() == Some(self.worker.lease().worker())
    }

    /// Releases the role of the dispatcher. If the write fails, another process takes over once the lease has expired.
    async fn release(&self) {
        if let Ok(webhooks) = self.ports().store.webhooks().await
            && self.is_dispatcher(&webhooks)
        {
            let _ = self.write(Webhooks { dispatcher: None, ..webhooks }).await;
        }
    }

    async fn deliver(&self, webhook: Webhook) {
        // `None`: an attempt failed, or another process sends now. The next pass continues from the stored cursor.
        let _ = self.send_events(&webhook).await;
        self.state().busy.remove(&webhook.number);
    }

    async fn send_events(&self, webhook: &Webhook) -> Option<()> {
        let mut cursor = self.state().cursors.get(&webhook.number).copied().unwrap_or(0).max(webhook.cursor);
        let mut unstored_skips = 0;
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
                    None => unstored_skips += 1,
                    Some(topic) => {
                        self.send_event(webhook, number, topic, event).await?;
                        unstored_skips = 0;
                    }
                }
                cursor = number;
                self.state().cursors.insert(webhook.number, cursor);
            }
            if unstored_skips >= PAGE {
                self.change(webhook, |webhook| webhook.pass(cursor)).await?;
                unstored_skips = 0;
            }
        }
    }

    /// Makes one attempt and stores the result. Returns `None` if the next event must not be sent now.
    async fn send_event(&self, webhook: &Webhook, number: u64, topic: Topic, event: FeedEvent) -> Option<()> {
        if crate::bug!(WebhookPlaceFirst) {
            self.change(webhook, |webhook| webhook.mark_delivered(number)).await?;
        }
        let sent = self.post(webhook, number, topic, event).await;
        let now = self.ports().clock.wall();
        let stored = self.change(webhook, |webhook| match &sent {
            Ok(()) => webhook.mark_delivered(number),
            Err((Some(DeliveryError::Rejected { status: GONE, .. }), why)) => webhook.stop(now, why),
            Err((Some(DeliveryError::Rejected { retry_after, .. }), why)) => {
                webhook.failed(now, why.clone(), *retry_after);
            }
            Err((_, why)) => webhook.failed(now, why.clone(), None),
        });
        stored.await?;
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
        let sent = self.sender.post(&message).await;
        sent.map_err(|error| (Some(error), error.to_string()))
    }

    /// Returns the signing key of a webhook. The key never changes, so that it is read once.
    async fn key(&self, webhook: &Webhook) -> Result<SigningKey, &'static str> {
        if let Some(key) = self.state().keys.get(&webhook.uid) {
            return Ok(key.clone());
        }
        match self.ports().secrets.read(&webhook.key()).await {
            Ok(Some(StoredSecret::Value(Credentials::Webhook(key)))) => {
                self.state().keys.insert(webhook.uid, key.clone());
                Ok(key)
            }
            Ok(_) => Err("its key is not in the secret store; delete the webhook and create it again"),
            Err(_) => Err("the secret store does not respond"),
        }
    }

    /// Edits the record of a webhook, if it still exists and this process is still the dispatcher.
    async fn change(&self, of: &Webhook, edit: impl Fn(&mut Webhook) + Send) -> Option<()> {
        for _ in 0..TRIES {
            let mut webhooks = self.ports().store.webhooks().await.ok()?;
            if !self.is_dispatcher(&webhooks) {
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
