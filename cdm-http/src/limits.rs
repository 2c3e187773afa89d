//! How often one token may ask, and how often one address may fail to say who it is.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use cdm_core::domain::{Actor, UserName};
use cdm_core::ports::Clock;
use governor::clock::Clock as _;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::keyed::DefaultKeyedStateStore;
use governor::{Quota, RateLimiter};

use crate::app::HttpSettings;

/// How often somebody may be signed in as at once,
const ATTEMPTS: NonZeroU32 = NonZeroU32::MIN.saturating_add(9);
/// and how many further attempts each minute brings.
const ATTEMPTS_AGAIN: NonZeroU32 = NonZeroU32::MIN.saturating_add(1);
/// From how many keys on, those that have long been silent are forgotten.
const CROWD: usize = 4_096;

type Keyed<K> = RateLimiter<K, DefaultKeyedStateStore<K>, Ticks, NoOpMiddleware<Nanos>>;

/// The limits of one server.
#[derive(Debug)]
pub(crate) struct Limits {
    clock: Ticks,
    tokens: Keyed<Actor>,
    addresses: Keyed<Option<IpAddr>>,
    people: Keyed<UserName>,
}

impl Limits {
    pub(crate) fn new(settings: &HttpSettings, clock: &Arc<dyn Clock>) -> Self {
        let clock = Ticks(Arc::clone(clock));
        let requests = Quota::per_second(settings.rate).allow_burst(settings.burst);
        let failures = Quota::per_minute(settings.failures);
        let people = Quota::per_minute(ATTEMPTS_AGAIN).allow_burst(ATTEMPTS);
        Self {
            tokens: RateLimiter::new(requests, DefaultKeyedStateStore::default(), clock.clone()),
            addresses: RateLimiter::new(failures, DefaultKeyedStateStore::default(), clock.clone()),
            people: RateLimiter::new(people, DefaultKeyedStateStore::default(), clock.clone()),
            clock,
        }
    }

    /// Counts a request of a token; how long to wait where it is one too many.
    pub(crate) fn request(&self, actor: &Actor) -> Result<(), Duration> {
        self.count(&self.tokens, actor)
    }

    /// Counts a failed authentication, likewise.
    pub(crate) fn failure(&self, address: Option<IpAddr>) -> Result<(), Duration> {
        self.count(&self.addresses, &address.map(network))
    }

    /// Counts an attempt to sign in as somebody, likewise: before it is judged, so that guessing stops with it.
    pub(crate) fn attempt(&self, name: &UserName) -> Result<(), Duration> {
        self.count(&self.people, name)
    }

    fn count<K: std::hash::Hash + Eq + Clone>(&self, limiter: &Keyed<K>, key: &K) -> Result<(), Duration> {
        if limiter.len() > CROWD {
            limiter.retain_recent();
        }
        limiter.check_key(key).map_err(|until| until.wait_time_from(self.clock.now()))
    }
}

/// An address that one party cannot change at will: of version 6, its network.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() & !u128::from(u64::MAX)).into()),
    }
}

/// The clock port as the limiter wants it.
#[derive(Clone, Debug)]
struct Ticks(Arc<dyn Clock>);

impl governor::clock::Clock for Ticks {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Duration::from_millis(self.0.monotonic().millis()).into()
    }
}
