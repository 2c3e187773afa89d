//! Rate limits: requests per token, and failed authentications per address, user name, device and session.

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

use crate::settings::HttpSettings;

/// The number of consecutive attempts for a user name, a device or a session.
const ATTEMPTS: u64 = 10;
/// The time after which one more attempt is allowed.
const ATTEMPT_INTERVAL: Duration = Duration::from_secs(30);
/// The time after which one more attempt with a code of six digits is allowed. Three codes are valid at a time, so the
/// attempts of one day succeed with a probability of one in a thousand.
const CODE_INTERVAL: Duration = Duration::from_mins(5);
/// How often an address may start to sign in with a provider, and the time after which one more start is allowed.
#[cfg(feature = "oidc")]
const START_LIMIT: (u64, Duration) = (30, Duration::from_secs(2));
/// The minimum time between two audit entries about the same exceeded limit.
const AUDIT_INTERVAL: Duration = Duration::from_secs(60);
/// The maximum number of keys that are stored per limit.
const MAX_KEYS: usize = 4_096;

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
    sign_in_starts: Attempts<Option<IpAddr>>,
    audited: Attempts<ExceededLimit>,
}

/// The limit that an attempt exceeds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ExceededLimit {
    /// Too many failures from this address.
    Address(Option<IpAddr>),
    /// Too many failures of unknown devices for this user name.
    Name(UserName),
    /// Too many failures of this device.
    Device(String),
    /// Too many wrong codes after a correct password.
    Code(UserName),
}

/// An attempt, which is counted before it is checked. An attempt that succeeds, or that is not checked, is refunded.
#[derive(Debug)]
pub(crate) struct Attempt<'a> {
    limits: &'a Limits,
    keys: Keys,
}

#[derive(Debug)]
enum Keys {
    UnknownDevice(Option<IpAddr>, Option<UserName>),
    Device(String),
    Session(Uid),
    Setup,
    Code(String, UserName),
}

impl Attempt<'_> {
    /// Removes the attempt from the count.
    pub(crate) fn refund(self) {
        match &self.keys {
            Keys::UnknownDevice(address, name) => {
                self.limits.addresses.refund(address);
                if let Some(name) = name {
                    self.limits.names.refund(name);
                }
            }
            Keys::Device(device) => self.limits.devices.refund(device),
            Keys::Session(session) => self.limits.sessions.refund(session),
            Keys::Setup => self.limits.setup.refund(&()),
            Keys::Code(device, name) => self.limits.codes.refund(&(device.clone(), name.clone())),
        }
    }
}

impl Limits {
    pub(crate) fn new(settings: &HttpSettings, clock: &Arc<dyn Clock>) -> Self {
        let ticks = Ticks(Arc::clone(clock));
        let requests = Quota::per_second(settings.rate).allow_burst(settings.burst);
        let failures = u64::from(NonZeroU32::get(settings.failures));
        let attempts = (ATTEMPTS, ATTEMPT_INTERVAL);
        Self {
            tokens: RateLimiter::new(requests, DefaultKeyedStateStore::default(), ticks.clone()),
            addresses: Attempts::new(clock, (failures, Duration::from_secs(60) / settings.failures.get())),
            names: Attempts::new(clock, attempts),
            devices: Attempts::new(clock, attempts),
            sessions: Attempts::new(clock, attempts),
            setup: Attempts::new(clock, attempts),
            codes: Attempts::new(clock, (ATTEMPTS, CODE_INTERVAL)),
            #[cfg(feature = "oidc")]
            sign_in_starts: Attempts::new(clock, START_LIMIT),
            audited: Attempts::new(clock, (1, AUDIT_INTERVAL)),
            clock: ticks,
        }
    }

    /// Counts a request of a token or a user.
    ///
    /// # Errors
    /// The time until the next request is allowed.
    pub(crate) fn request(&self, actor: &Actor) -> Result<(), Duration> {
        if self.tokens.len() > MAX_KEYS {
            self.tokens.retain_recent();
        }
        self.tokens.check_key(actor).map_err(|until| until.wait_time_from(self.clock.now()))
    }

    /// Counts a failed authentication from an address.
    ///
    /// # Errors
    /// The time until the next attempt is allowed.
    pub(crate) fn failure(&self, address: Option<IpAddr>) -> Result<(), Duration> {
        self.addresses.take(&address.map(network))
    }

    /// Counts an attempt to sign in from an unknown device, before the password is checked.
    ///
    /// # Errors
    /// The exceeded limit, and the time until the next attempt is allowed.
    pub(crate) fn unknown_device(
        &self,
        address: Option<IpAddr>,
        name: Option<&UserName>,
    ) -> Result<Attempt<'_>, (ExceededLimit, Duration)> {
        let address = address.map(network);
        self.addresses.take(&address).map_err(|after| (ExceededLimit::Address(address), after))?;
        if let Some(name) = name {
            self.names.take(name).map_err(|after| (ExceededLimit::Name(name.clone()), after))?;
        }
        Ok(Attempt { limits: self, keys: Keys::UnknownDevice(address, name.cloned()) })
    }

    /// Counts an attempt to sign in from a device from which the user has signed in before. Attempts of unknown devices do
    /// not count.
    ///
    /// # Errors
    /// See [`Limits::unknown_device`].
    pub(crate) fn device(&self, device: &str) -> Result<Attempt<'_>, (ExceededLimit, Duration)> {
        let device = device.to_owned();
        self.devices.take(&device).map_err(|after| (ExceededLimit::Device(device.clone()), after))?;
        Ok(Attempt { limits: self, keys: Keys::Device(device) })
    }

    /// Counts an attempt to confirm the password within a session.
    ///
    /// # Errors
    /// The time until the next attempt is allowed.
    pub(crate) fn session(&self, session: Uid) -> Result<Attempt<'_>, Duration> {
        self.sessions.take(&session)?;
        Ok(Attempt { limits: self, keys: Keys::Session(session) })
    }

    /// Counts an attempt to enter a code after a correct password; each known device has its own count.
    ///
    /// # Errors
    /// See [`Limits::unknown_device`].
    pub(crate) fn code(
        &self,
        device: &str,
        name: &UserName,
    ) -> Result<Attempt<'_>, (ExceededLimit, Duration)> {
        let key = (device.to_owned(), name.clone());
        self.codes.take(&key).map_err(|after| (ExceededLimit::Code(name.clone()), after))?;
        Ok(Attempt { limits: self, keys: Keys::Code(key.0, key.1) })
    }

    /// Counts an attempt to open the link that creates the first user.
    ///
    /// # Errors
    /// The time until the next attempt is allowed.
    pub(crate) fn setup(&self) -> Result<Attempt<'_>, Duration> {
        self.setup.take(&())?;
        Ok(Attempt { limits: self, keys: Keys::Setup })
    }

    /// Counts the start of a sign-in with a provider.
    ///
    /// # Errors
    /// The time until the next start is allowed.
    #[cfg(feature = "oidc")]
    pub(crate) fn begin(&self, address: Option<IpAddr>) -> Result<(), Duration> {
        self.sign_in_starts.take(&address.map(network))
    }

    /// Returns whether to record an exceeded limit in the audit log: at most one entry per minute and key.
    pub(crate) fn should_audit(&self, exceeded: &ExceededLimit) -> bool {
        self.audited.take(exceeded).is_ok()
    }
}

/// Limits the attempts per key: `burst` consecutive attempts, and one more after each `interval` (in milliseconds). Unlike
/// `governor`, attempts can be refunded, and the number of keys is limited even if callers invent keys.
#[derive(Debug)]
struct Attempts<K> {
    clock: Arc<dyn Clock>,
    burst: u64,
    interval: u64,
    /// When each key will have recovered from what it took, in milliseconds (GCRA's theoretical arrival time).
    recovered: Mutex<HashMap<K, u64>>,
}

impl<K: Hash + Eq + Clone> Attempts<K> {
    fn new(clock: &Arc<dyn Clock>, (burst, interval): (u64, Duration)) -> Self {
        let interval = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX).max(1);
        Self { clock: Arc::clone(clock), burst, interval, recovered: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, u64>> {
        self.recovered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, key: &K) -> Result<(), Duration> {
        let now = self.clock.monotonic().millis();
        let mut all = self.lock();
        let then = all.get(key).map_or(now, |then| now.max(*then)).saturating_add(self.interval);
        let most = now.saturating_add(self.interval.saturating_mul(self.burst));
        if then > most {
            return Err(Duration::from_millis(then - most));
        }
        if all.len() >= MAX_KEYS && !all.contains_key(key) {
            all.retain(|_, then| *then > now);
            // Removes the key with the fewest attempts: to remove an exhausted key, a caller needs more attempts than it had.
            let least = all.iter().min_by_key(|(_, then)| **then).map(|(key, _)| key.clone());
            if all.len() >= MAX_KEYS
                && let Some(least) = least
            {
                all.remove(&least);
            }
        }
        all.insert(key.clone(), then);
        Ok(())
    }

    fn refund(&self, key: &K) {
        if let Some(then) = self.lock().get_mut(key) {
            *then = then.saturating_sub(self.interval);
        }
    }
}

/// Returns the address, or the /64 network of an IPv6 address, within which one client can change its address at will.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() & !u128::from(u64::MAX)).into()),
    }
}

/// Adapts the clock port to the rate limiter.
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

    fn advance(clock: &SimClock, time: Duration) {
        clock.advance_to(clock.monotonic().after(time));
    }

    #[test]
    fn attempts_for_a_name_are_limited_across_addresses() {
        let (limits, clock) = limits();
        let ada = name("ada");
        for last in 0..10 {
            assert!(limits.unknown_device(address(last), Some(&ada)).is_ok());
        }
        let (exceeded, after) = limits.unknown_device(address(99), Some(&ada)).expect_err("too often");
        assert_eq!((exceeded, after), (ExceededLimit::Name(ada.clone()), ATTEMPT_INTERVAL));
        assert!(limits.unknown_device(address(99), Some(&name("bob"))).is_ok(), "another name");
        advance(&clock, ATTEMPT_INTERVAL);
        assert!(limits.unknown_device(address(99), Some(&ada)).is_ok(), "one more attempt");
        assert!(limits.unknown_device(address(99), Some(&ada)).is_err());
    }

    #[test]
    fn an_address_is_limited_before_passwords_are_checked() {
        let (limits, clock) = limits();
        for _ in 0..30 {
            assert!(limits.unknown_device(address(1), None).is_ok());
        }
        let (exceeded, after) = limits.unknown_device(address(1), None).expect_err("too often");
        assert_eq!((exceeded, after), (ExceededLimit::Address(address(1)), Duration::from_secs(2)));
        assert!(limits.failure(address(1)).is_err(), "invalid tokens and wrong passwords share one limit");
        assert!(limits.unknown_device(address(2), None).is_ok());
        advance(&clock, Duration::from_secs(2));
        assert!(limits.unknown_device(address(1), None).is_ok());
    }

    #[test]
    fn unknown_devices_do_not_use_the_attempts_of_a_device() {
        let (limits, _) = limits();
        let ada = name("ada");
        while limits.unknown_device(address(1), Some(&ada)).is_ok() {}
        for _ in 0..ATTEMPTS {
            assert!(limits.device("hers").is_ok());
        }
        let (exceeded, _) = limits.device("hers").expect_err("the device has a separate limit");
        assert_eq!(exceeded, ExceededLimit::Device("hers".to_owned()));
        assert!(limits.device("another").is_ok());
    }

    #[test]
    fn successful_attempts_are_not_counted() {
        let (limits, _) = limits();
        let ada = name("ada");
        let session = Uid::from_parts(1, 1);
        for _ in 0..100 {
            limits.unknown_device(address(1), Some(&ada)).expect("no attempt has failed").refund();
            limits.device("hers").expect("no attempt has failed").refund();
            limits.session(session).expect("no attempt has failed").refund();
        }
        for _ in 0..ATTEMPTS {
            assert!(limits.session(session).is_ok());
        }
        assert!(limits.session(session).is_err());
    }

    #[test]
    fn invented_keys_are_limited_and_do_not_reset_exhausted_keys() {
        let clock = SimClock::new();
        let port: Arc<dyn Clock> = Arc::new(clock.clone());
        let attempts = Attempts::new(&port, (2, Duration::from_secs(60)));
        for _ in 0..2 {
            assert!(attempts.take(&0).is_ok());
        }
        for key in 1..=2 * MAX_KEYS {
            assert!(attempts.take(&key).is_ok());
        }
        assert!(attempts.lock().len() <= MAX_KEYS);
        assert!(attempts.take(&0).is_err(), "the key is still exhausted");
        advance(&clock, Duration::from_secs(120));
        assert!(attempts.take(&usize::MAX).is_ok());
        assert_eq!(attempts.lock().len(), 1, "recovered keys are removed");
    }

    #[test]
    fn an_exceeded_limit_is_recorded_once_per_minute() {
        let (limits, clock) = limits();
        let exceeded = ExceededLimit::Name(name("ada"));
        assert!(limits.should_audit(&exceeded));
        assert!(!limits.should_audit(&exceeded));
        assert!(limits.should_audit(&ExceededLimit::Name(name("bob"))));
        advance(&clock, AUDIT_INTERVAL);
        assert!(limits.should_audit(&exceeded));
    }
}
