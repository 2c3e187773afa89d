//! How often a token may ask, and how often an address, a name or a device may fail to prove who it is.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cdm_core::domain::{Actor, Uid, UserName};
use cdm_core::ports::Clock;
use governor::clock::Clock as _;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::keyed::DefaultKeyedStateStore;
use governor::{Quota, RateLimiter};

use crate::app::HttpSettings;

/// How often in a row a name, a device or a session may be tried,
const ATTEMPTS: u64 = 10;
/// and after how long it may be tried once more.
const ATTEMPT_AGAIN: Duration = Duration::from_secs(30);
/// and, for a code of six digits, of which three are right at a time: one guess in a thousand a day succeeds.
const CODE_AGAIN: Duration = Duration::from_mins(5);
/// How often an address may begin to sign in by a provider, and how soon once more.
#[cfg(feature = "oidc")]
const BEGUN: (u64, Duration) = (30, Duration::from_secs(2));
/// How long a key whose refusals were put into the audit has no further entry there.
const NOTED: Duration = Duration::from_secs(60);
/// How many keys of each kind are remembered at most.
const CROWD: usize = 4_096;

type Keyed<K> = RateLimiter<K, DefaultKeyedStateStore<K>, Ticks, NoOpMiddleware<Nanos>>;

/// The limits of one server.
#[derive(Debug)]
pub(crate) struct Limits {
    clock: Ticks,
    tokens: Keyed<Actor>,
    addresses: Attempts<Option<IpAddr>>,
    names: Attempts<UserName>,
    devices: Attempts<String>,
    sessions: Attempts<Uid>,
    setup: Attempts<()>,
    codes: Attempts<(String, UserName)>,
    #[cfg(feature = "oidc")]
    begun: Attempts<Option<IpAddr>>,
    noted: Attempts<Refused>,
}

/// Which limit an attempt has met.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Refused {
    /// Too many failures from there.
    Address(Option<IpAddr>),
    /// Too many failures of strangers for that name.
    Name(UserName),
    /// Too many failures of that device.
    Device(String),
    /// Too many wrong codes after a right password.
    Code(UserName),
}

/// An attempt that was counted before it is judged. What succeeds, or is not judged at all, is given back.
#[derive(Debug)]
pub(crate) struct Attempt<'a> {
    limits: &'a Limits,
    keys: Keys,
}

#[derive(Debug)]
enum Keys {
    Stranger(Option<IpAddr>, Option<UserName>),
    Device(String),
    Session(Uid),
    Setup,
    Code(String, UserName),
}

impl Attempt<'_> {
    /// Takes the attempt out of the count again.
    pub(crate) fn forgive(self) {
        match &self.keys {
            Keys::Stranger(address, name) => {
                self.limits.addresses.give_back(address);
                if let Some(name) = name {
                    self.limits.names.give_back(name);
                }
            }
            Keys::Device(device) => self.limits.devices.give_back(device),
            Keys::Session(session) => self.limits.sessions.give_back(session),
            Keys::Setup => self.limits.setup.give_back(&()),
            Keys::Code(device, name) => self.limits.codes.give_back(&(device.clone(), name.clone())),
        }
    }
}

impl Limits {
    pub(crate) fn new(settings: &HttpSettings, clock: &Arc<dyn Clock>) -> Self {
        let ticks = Ticks(Arc::clone(clock));
        let requests = Quota::per_second(settings.rate).allow_burst(settings.burst);
        let failures = u64::from(NonZeroU32::get(settings.failures));
        let attempts = (ATTEMPTS, ATTEMPT_AGAIN);
        Self {
            tokens: RateLimiter::new(requests, DefaultKeyedStateStore::default(), ticks.clone()),
            addresses: Attempts::new(clock, (failures, Duration::from_secs(60) / settings.failures.get())),
            names: Attempts::new(clock, attempts),
            devices: Attempts::new(clock, attempts),
            sessions: Attempts::new(clock, attempts),
            setup: Attempts::new(clock, attempts),
            codes: Attempts::new(clock, (ATTEMPTS, CODE_AGAIN)),
            #[cfg(feature = "oidc")]
            begun: Attempts::new(clock, BEGUN),
            noted: Attempts::new(clock, (1, NOTED)),
            clock: ticks,
        }
    }

    /// Counts a request of a token; how long to wait where it is one too many.
    pub(crate) fn request(&self, actor: &Actor) -> Result<(), Duration> {
        if self.tokens.len() > CROWD {
            self.tokens.retain_recent();
        }
        self.tokens.check_key(actor).map_err(|until| until.wait_time_from(self.clock.now()))
    }

    /// Counts a failed authentication, likewise.
    pub(crate) fn failure(&self, address: Option<IpAddr>) -> Result<(), Duration> {
        self.addresses.take(&address.map(network))
    }

    /// Counts an attempt of a stranger to sign in, before it is judged.
    ///
    /// # Errors
    /// Which limit it has met, and after how long it may be made.
    pub(crate) fn stranger(
        &self,
        address: Option<IpAddr>,
        name: Option<&UserName>,
    ) -> Result<Attempt<'_>, (Refused, Duration)> {
        let address = address.map(network);
        self.addresses.take(&address).map_err(|after| (Refused::Address(address), after))?;
        if let Some(name) = name {
            self.names.take(name).map_err(|after| (Refused::Name(name.clone()), after))?;
        }
        Ok(Attempt { limits: self, keys: Keys::Stranger(address, name.cloned()) })
    }

    /// Counts an attempt of a device from which that person has signed in before. Strangers do not use it up.
    ///
    /// # Errors
    /// As [`Limits::stranger`].
    pub(crate) fn device(&self, device: &str) -> Result<Attempt<'_>, (Refused, Duration)> {
        let device = device.to_owned();
        self.devices.take(&device).map_err(|after| (Refused::Device(device.clone()), after))?;
        Ok(Attempt { limits: self, keys: Keys::Device(device) })
    }

    /// Counts an attempt to prove within a session that it is still the same person.
    ///
    /// # Errors
    /// After how long it may be made.
    pub(crate) fn session(&self, session: Uid) -> Result<Attempt<'_>, Duration> {
        self.sessions.take(&session)?;
        Ok(Attempt { limits: self, keys: Keys::Session(session) })
    }

    /// Counts a code after a right password, likewise; of a known device apart from others.
    ///
    /// # Errors
    /// As [`Limits::stranger`].
    pub(crate) fn code(&self, device: &str, name: &UserName) -> Result<Attempt<'_>, (Refused, Duration)> {
        let key = (device.to_owned(), name.clone());
        self.codes.take(&key).map_err(|after| (Refused::Code(name.clone()), after))?;
        Ok(Attempt { limits: self, keys: Keys::Code(key.0, key.1) })
    }

    /// Counts an attempt to follow the link that makes the first user, likewise.
    ///
    /// # Errors
    /// After how long it may be made.
    pub(crate) fn setup(&self) -> Result<Attempt<'_>, Duration> {
        self.setup.take(&())?;
        Ok(Attempt { limits: self, keys: Keys::Setup })
    }

    /// Counts that an address begins to sign in by a provider.
    ///
    /// # Errors
    /// After how long it may.
    #[cfg(feature = "oidc")]
    pub(crate) fn begin(&self, address: Option<IpAddr>) -> Result<(), Duration> {
        self.begun.take(&address.map(network))
    }

    /// Whether a refusal by that limit belongs into the audit: one a minute stands for all.
    pub(crate) fn is_news(&self, refused: &Refused) -> bool {
        self.noted.take(refused).is_ok()
    }
}

/// Attempts of each key: so many in a row, and one more after each `again`. In contrast to `governor`, one can be given
/// back, and the number of keys is bounded whatever callers make up.
#[derive(Debug)]
struct Attempts<K> {
    clock: Arc<dyn Clock>,
    burst: u64,
    again: u64,
    /// When each key will have recovered from what it took, in milliseconds (GCRA's theoretical arrival time).
    recovered: Mutex<HashMap<K, u64>>,
}

impl<K: Hash + Eq + Clone> Attempts<K> {
    fn new(clock: &Arc<dyn Clock>, (burst, again): (u64, Duration)) -> Self {
        let again = u64::try_from(again.as_millis()).unwrap_or(u64::MAX).max(1);
        Self { clock: Arc::clone(clock), burst, again, recovered: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, u64>> {
        self.recovered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, key: &K) -> Result<(), Duration> {
        let now = self.clock.monotonic().millis();
        let mut all = self.lock();
        let then = all.get(key).map_or(now, |then| now.max(*then)).saturating_add(self.again);
        let most = now.saturating_add(self.again.saturating_mul(self.burst));
        if then > most {
            return Err(Duration::from_millis(then - most));
        }
        if all.len() >= CROWD && !all.contains_key(key) {
            all.retain(|_, then| *then > now);
            // The key that has taken least makes room: to free one that is used up takes more attempts than it had.
            let least = all.iter().min_by_key(|(_, then)| **then).map(|(key, _)| key.clone());
            if all.len() >= CROWD
                && let Some(least) = least
            {
                all.remove(&least);
            }
        }
        all.insert(key.clone(), then);
        Ok(())
    }

    fn give_back(&self, key: &K) {
        if let Some(then) = self.lock().get_mut(key) {
            *then = then.saturating_sub(self.again);
        }
    }
}

/// An address that one party cannot change at will: of version 6, its network.
pub(crate) fn network(address: IpAddr) -> IpAddr {
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

#[cfg(test)]
mod tests {
    use cdm_testkit::clock::SimClock;

    use super::*;

    fn limits() -> (Limits, SimClock) {
        let clock = SimClock::new();
        let port: Arc<dyn Clock> = Arc::new(clock.clone());
        (Limits::new(&HttpSettings::default(), &port), clock)
    }

    fn name(text: &str) -> UserName {
        UserName::parse(text).expect("a user name")
    }

    fn address(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, last]))
    }

    fn pass(clock: &SimClock, time: Duration) {
        clock.advance_to(clock.monotonic().after(time));
    }

    #[test]
    fn a_name_is_tried_so_often_whatever_the_address() {
        let (limits, clock) = limits();
        let ada = name("ada");
        for last in 0..10 {
            assert!(limits.stranger(address(last), Some(&ada)).is_ok());
        }
        let (refused, after) = limits.stranger(address(99), Some(&ada)).expect_err("too often");
        assert_eq!((refused, after), (Refused::Name(ada.clone()), ATTEMPT_AGAIN));
        assert!(limits.stranger(address(99), Some(&name("bob"))).is_ok(), "another one's");
        pass(&clock, ATTEMPT_AGAIN);
        assert!(limits.stranger(address(99), Some(&ada)).is_ok(), "one more");
        assert!(limits.stranger(address(99), Some(&ada)).is_err());
    }

    #[test]
    fn an_address_is_refused_before_any_password_is_judged() {
        let (limits, clock) = limits();
        for _ in 0..30 {
            assert!(limits.stranger(address(1), None).is_ok());
        }
        let (refused, after) = limits.stranger(address(1), None).expect_err("too often");
        assert_eq!((refused, after), (Refused::Address(address(1)), Duration::from_secs(2)));
        assert!(limits.failure(address(1)).is_err(), "wrong tokens count with wrong passwords");
        assert!(limits.stranger(address(2), None).is_ok());
        pass(&clock, Duration::from_secs(2));
        assert!(limits.stranger(address(1), None).is_ok());
    }

    #[test]
    fn strangers_do_not_use_up_what_a_device_has() {
        let (limits, _) = limits();
        let ada = name("ada");
        while limits.stranger(address(1), Some(&ada)).is_ok() {}
        for _ in 0..ATTEMPTS {
            assert!(limits.device("hers").is_ok());
        }
        let (refused, _) = limits.device("hers").expect_err("it has its own limit");
        assert_eq!(refused, Refused::Device("hers".to_owned()));
        assert!(limits.device("another").is_ok());
    }

    #[test]
    fn what_succeeds_is_no_attempt() {
        let (limits, _) = limits();
        let ada = name("ada");
        let session = Uid::from_parts(1, 1);
        for _ in 0..100 {
            limits.stranger(address(1), Some(&ada)).expect("none was wrong").forgive();
            limits.device("hers").expect("none was wrong").forgive();
            limits.session(session).expect("none was wrong").forgive();
        }
        for _ in 0..ATTEMPTS {
            assert!(limits.session(session).is_ok());
        }
        assert!(limits.session(session).is_err());
    }

    #[test]
    fn made_up_keys_are_bounded_and_free_nothing_that_is_used_up() {
        let clock = SimClock::new();
        let port: Arc<dyn Clock> = Arc::new(clock.clone());
        let attempts = Attempts::new(&port, (2, Duration::from_secs(60)));
        for _ in 0..2 {
            assert!(attempts.take(&0).is_ok());
        }
        for key in 1..=2 * CROWD {
            assert!(attempts.take(&key).is_ok());
        }
        assert!(attempts.lock().len() <= CROWD);
        assert!(attempts.take(&0).is_err(), "it is still used up");
        pass(&clock, Duration::from_secs(120));
        assert!(attempts.take(&usize::MAX).is_ok());
        assert_eq!(attempts.lock().len(), 1, "what has recovered is forgotten");
    }

    #[test]
    fn one_refusal_a_minute_is_news() {
        let (limits, clock) = limits();
        let refused = Refused::Name(name("ada"));
        assert!(limits.is_news(&refused));
        assert!(!limits.is_news(&refused));
        assert!(limits.is_news(&Refused::Name(name("bob"))));
        pass(&clock, NOTED);
        assert!(limits.is_news(&refused));
    }
}
