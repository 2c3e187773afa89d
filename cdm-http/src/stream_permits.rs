//! Permits for open event streams, limited in total, per holder and per address, so that one client cannot use all of them.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cdm_core::domain::Actor;

use crate::limits::network;

/// A holder gets at most 1/8 of the permits.
const HOLDER_FRACTION: usize = 8;
/// An address gets at most 1/2 of the permits.
const ADDRESS_FRACTION: usize = 2;
/// 1/8 of the permits is reserved for holders without a permit.
const RESERVED_FRACTION: usize = 8;

/// The permits for the event streams of one server.
#[derive(Clone, Debug)]
pub(crate) struct StreamPermits(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit: usize,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    holders: HashMap<Actor, usize>,
    addresses: HashMap<IpAddr, usize>,
}

/// The permit of one open stream, which is released on drop.
#[derive(Debug)]
pub(crate) struct StreamPermit {
    permits: StreamPermits,
    holder: Actor,
    address: Option<IpAddr>,
}

impl StreamPermits {
    /// Returns permits for `limit` streams in total.
    pub(crate) fn new(limit: usize) -> Self {
        Self(Arc::new(Inner { limit, counts: Mutex::default() }))
    }

    /// Acquires a permit for a stream of a token or user; `None` if the holder, the address or the server has reached its
    /// limit. Loopback addresses have no limit, since a proxy on this machine may forward many clients.
    pub(crate) fn acquire(&self, holder: &Actor, address: Option<IpAddr>) -> Option<StreamPermit> {
        let limit = self.0.limit;
        let share = |fraction: usize| (limit / fraction).max(1);
        let address = address.map(network).filter(|address| !address.is_loopback());
        let mut counts = self.lock();
        let of_holder = counts.holders.get(holder).copied().unwrap_or_default();
        let of_address =
            address.and_then(|address| counts.addresses.get(&address).copied()).unwrap_or_default();
        let free = limit.saturating_sub(counts.total);
        let reserved = if of_holder == 0 { 0 } else { limit / RESERVED_FRACTION };
        if free <= reserved || of_holder >= share(HOLDER_FRACTION) || of_address >= share(ADDRESS_FRACTION) {
            return None;
        }
        counts.total += 1;
        *counts.holders.entry(holder.clone()).or_default() += 1;
        if let Some(address) = address {
            *counts.addresses.entry(address).or_default() += 1;
        }
        Some(StreamPermit { permits: self.clone(), holder: holder.clone(), address })
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn decrement<K: Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        let mut counts = self.permits.lock();
        counts.total -= 1;
        decrement(&mut counts.holders, &self.holder);
        if let Some(address) = &self.address {
            decrement(&mut counts.addresses, address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(text: &str) -> Actor {
        Actor::parse(text).expect("an actor")
    }

    fn address(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, last]))
    }

    #[test]
    fn one_holder_cannot_use_all_permits() {
        let permits = StreamPermits::new(256);
        let mut acquired = Vec::new();
        while let Some(permit) = permits.acquire(&holder("viewer"), None) {
            acquired.push(permit);
        }
        assert_eq!(acquired.len(), 32);
        acquired.push(permits.acquire(&holder("another"), None).expect("a permit"));
        acquired.remove(0);
        assert!(permits.acquire(&holder("viewer"), None).is_some(), "a released permit is free");
        acquired.clear();
        let counts = permits.lock();
        assert!(counts.total == 0 && counts.holders.is_empty() && counts.addresses.is_empty(), "{counts:?}");
    }

    #[test]
    fn one_address_cannot_use_all_permits() {
        let permits = StreamPermits::new(256);
        let mut acquired = Vec::new();
        for number in 0..256 {
            acquired.extend(permits.acquire(&holder(&format!("token-{number}")), address(1)));
        }
        assert_eq!(acquired.len(), 128);
        assert!(permits.acquire(&holder("viewer"), address(2)).is_some());
        assert!(permits.acquire(&holder("viewer"), Some(IpAddr::from([127, 0, 0, 1]))).is_some());
    }

    #[test]
    fn the_last_permits_are_reserved_for_holders_without_one() {
        let permits = StreamPermits::new(256);
        let mut acquired = Vec::new();
        for number in 0..240 {
            acquired.extend(permits.acquire(&holder(&format!("token-{}", number / 30)), None));
        }
        assert_eq!(acquired.len(), 224, "the rest is reserved");
        assert!(permits.acquire(&holder("token-0"), None).is_none());
        for number in 0..32 {
            acquired.push(permits.acquire(&holder(&format!("fresh-{number}")), None).expect("a permit"));
        }
        assert!(permits.acquire(&holder("late"), None).is_none(), "all permits are in use");
        assert!(StreamPermits::new(0).acquire(&holder("viewer"), None).is_none());
        assert!(StreamPermits::new(1).acquire(&holder("viewer"), None).is_some());
    }
}
