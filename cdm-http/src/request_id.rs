//! The id of a request, and the actor that the access log names.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use axum::http::Extensions;
use cdm_core::domain::Actor;

/// The id of a request: the `X-Request-Id` of the caller if it is valid, otherwise a generated one.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(pub(crate) String);

/// The actor of a request, for the access log; set by the inner middleware that identifies the caller.
#[derive(Clone, Debug, Default)]
pub(crate) struct AccessLog(Arc<OnceLock<Actor>>);

impl AccessLog {
    /// Returns the name of the actor; `None` before the caller is identified.
    pub(crate) fn actor(&self) -> Option<&str> {
        self.0.get().map(Actor::as_str)
    }

    /// Stores the actor of the request with these extensions.
    pub(crate) fn set_actor(extensions: &Extensions, actor: &Actor) {
        if let Some(log) = extensions.get::<Self>() {
            // The first actor stays.
            let _ = log.0.set(actor.clone());
        }
    }
}

/// Generates ids for requests without a valid one.
#[derive(Debug)]
pub(crate) struct RequestIds {
    prefix: u64,
    next: AtomicU64,
}

impl RequestIds {
    pub(crate) fn new() -> Self {
        // The seed of the hasher is random for each process and each call.
        Self { prefix: RandomState::new().build_hasher().finish(), next: AtomicU64::new(1) }
    }

    /// Generates the idempotency key of a form.
    pub(crate) fn form_key(&self) -> String {
        format!("form-{}-{:x}", self.next(), RandomState::new().build_hasher().finish())
    }

    pub(crate) fn next(&self) -> String {
        format!("{:016x}-{:x}", self.prefix, self.next.fetch_add(1, Ordering::Relaxed))
    }
}
