//! How many event streams are open, in all, for each holder and for each address, so that no one of them takes all.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cdm_core::domain::Actor;

use crate::limits::network;

/// A holder has at most one of so many seats,
const HOLDERS: usize = 8;
/// an address one of so many,
const ADDRESSES: usize = 2;
/// and one of so many is kept for holders that have none yet.
const RESERVED: usize = 8;

/// The streams of everyone.
#[derive(Clone, Debug)]
pub(crate) struct Seats(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    most: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    holders: HashMap<Actor, usize>,
    addresses: HashMap<IpAddr, usize>,
}

/// One open stream, until it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Seats,
    holder: Actor,
    address: Option<IpAddr>,
}

impl Seats {
    /// `most` streams in all.
    pub(crate) fn new(most: usize) -> Self {
        Self(Arc::new(Inner { most, taken: Mutex::default() }))
    }

    /// One more stream of a token or a person; `None` when they, or their address, have as many as they may. A loopback
    /// address has no share: a proxy there may stand for many.
    pub(crate) fn take(&self, holder: &Actor, address: Option<IpAddr>) -> Option<Seat> {
        let most = self.0.most;
        let share = |parts: usize| (most / parts).max(1);
        let address = address.map(network).filter(|address| !address.is_loopback());
        let mut taken = self.lock();
        let theirs = taken.holders.get(holder).copied().unwrap_or_default();
        let there = address.and_then(|address| taken.addresses.get(&address).copied()).unwrap_or_default();
        let free = most.saturating_sub(taken.all);
        let kept = if theirs == 0 { 0 } else { most / RESERVED };
        if free <= kept || theirs >= share(HOLDERS) || there >= share(ADDRESSES) {
            return None;
        }
        taken.all += 1;
        *taken.holders.entry(holder.clone()).or_default() += 1;
        if let Some(address) = address {
            *taken.addresses.entry(address).or_default() += 1;
        }
        Some(Seat { seats: self.clone(), holder: holder.clone(), address })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn leave<K: Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.lock();
        taken.all -= 1;
        leave(&mut taken.holders, &self.holder);
        if let Some(address) = &self.address {
            leave(&mut taken.addresses, address);
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
    fn one_holder_leaves_seats_to_others() {
        let seats = Seats::new(256);
        let mut taken = Vec::new();
        while let Some(seat) = seats.take(&holder("viewer"), None) {
            taken.push(seat);
        }
        assert_eq!(taken.len(), 32);
        taken.push(seats.take(&holder("another"), None).expect("a seat"));
        taken.remove(0);
        assert!(seats.take(&holder("viewer"), None).is_some(), "a seat that was left is free");
        taken.clear();
        let left = seats.lock();
        assert!(left.all == 0 && left.holders.is_empty() && left.addresses.is_empty(), "{left:?}");
    }

    #[test]
    fn one_address_leaves_seats_to_others() {
        let seats = Seats::new(256);
        let mut taken = Vec::new();
        for number in 0..256 {
            taken.extend(seats.take(&holder(&format!("token-{number}")), address(1)));
        }
        assert_eq!(taken.len(), 128);
        assert!(seats.take(&holder("viewer"), address(2)).is_some());
        assert!(seats.take(&holder("viewer"), Some(IpAddr::from([127, 0, 0, 1]))).is_some());
    }

    #[test]
    fn the_last_seats_are_for_holders_without_one() {
        let seats = Seats::new(256);
        let mut taken = Vec::new();
        for number in 0..240 {
            taken.extend(seats.take(&holder(&format!("token-{}", number / 30)), None));
        }
        assert_eq!(taken.len(), 224, "the rest is kept");
        assert!(seats.take(&holder("token-0"), None).is_none());
        for number in 0..32 {
            taken.push(seats.take(&holder(&format!("fresh-{number}")), None).expect("a seat"));
        }
        assert!(seats.take(&holder("late"), None).is_none(), "there are no more");
        assert!(Seats::new(0).take(&holder("viewer"), None).is_none());
        assert!(Seats::new(1).take(&holder("viewer"), None).is_some());
    }
}
