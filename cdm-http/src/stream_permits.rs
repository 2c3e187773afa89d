//! Permits for open event streams, limited in total, per holder and per address, so that one client cannot use all of them.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use cdm_core::domain::Actor;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::network;

/// A holder gets at most 1/8 of the permits.
const HOLDER_FRACTION: usize = 8;
/// An address gets at most 1/2 of the permits.
const ADDRESS_FRACTION: usize = 2;
/// 1/8 of the permits is reserved for holders without a permit.
const RESERVED_FRACTION: usize = 8;

/// The permits for the event streams of one server.
#[derive(Debug)]
pub(crate) struct StreamPermits {
    limit: usize,
    total: Arc<Semaphore>,
    shares: Mutex<Shares>,
}

/// The shares with a permit in use, and perhaps some without.
#[derive(Debug, Default)]
struct Shares {
    holders: HashMap<Actor, Arc<Semaphore>>,
    addresses: HashMap<IpAddr, Arc<Semaphore>>,
}

/// The permit of one open stream, which is released on drop.
#[derive(Debug)]
pub(crate) struct StreamPermit {
    _total: OwnedSemaphorePermit,
    _holder: OwnedSemaphorePermit,
    _address: Option<OwnedSemaphorePermit>,
}

impl StreamPermits {
    /// Returns permits for `limit` streams in total.
    pub(crate) fn new(limit: usize) -> Self {
        let limit = limit.min(Semaphore::MAX_PERMITS);
        Self { limit, total: Arc::new(Semaphore::new(limit)), shares: Mutex::default() }
    }

    /// Acquires a permit for a stream of a token or user; `None` if the holder, the address or the server has reached its
    /// limit. Loopback addresses have no limit, since a proxy on this machine may forward many clients.
    pub(crate) fn acquire(&self, holder: &Actor, address: Option<IpAddr>) -> Option<StreamPermit> {
        let share = |fraction: usize| (self.limit / fraction).max(1);
        let address = address.map(network).filter(|address| !address.is_loopback());
        // Permits are acquired under this lock only, so the comparison with the reserve and the acquisition are one step.
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        let of_holder = share_of(&mut shares.holders, holder.clone(), share(HOLDER_FRACTION));
        let of_address =
            address.map(|address| share_of(&mut shares.addresses, address, share(ADDRESS_FRACTION)));
        let is_first = of_holder.available_permits() == share(HOLDER_FRACTION);
        let reserved = if is_first { 0 } else { self.limit / RESERVED_FRACTION };
        if self.total.available_permits() <= reserved {
            return None;
        }
        Some(StreamPermit {
            _holder: of_holder.try_acquire_owned().ok()?,
            _address: of_address.map(Semaphore::try_acquire_owned).transpose().ok()?,
            _total: Arc::clone(&self.total).try_acquire_owned().ok()?,
        })
    }
}

/// Returns the share of `key` with `size` permits, and removes the shares of which no permit is in use.
fn share_of<K: Hash + Eq>(shares: &mut HashMap<K, Arc<Semaphore>>, key: K, size: usize) -> Arc<Semaphore> {
    shares.retain(|_, share| share.available_permits() < size);
    Arc::clone(shares.entry(key).or_insert_with(|| Arc::new(Semaphore::new(size))))
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
        assert_eq!(permits.total.available_permits(), 256);
        acquired.extend(permits.acquire(&holder("another"), address(1)));
        let shares = permits.shares.lock().expect("no panic");
        assert_eq!((shares.holders.len(), shares.addresses.len()), (1, 1), "unused shares are removed");
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
