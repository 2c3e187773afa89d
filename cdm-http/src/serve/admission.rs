//! Admission of connections: which connections are open, and which connection is closed for a new one.
//!
//! At the limit, a waiting connection is closed for a new one, and connections that handle requests stay open. So silent
//! connections cannot lock out active clients. The number of connections per address is limited, except for loopback
//! addresses and trusted proxies.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cdm_core::domain::MonotonicTime;
use ipnet::IpNet;
use tokio_util::sync::CancellationToken;

use super::activity::{Activity, Phase};
use super::connection_limits::ConnectionLimits;
use crate::client::is_trusted;
use crate::limits::network;

/// Addresses with fewer connections than this number may use the reserved connections.
const FEW: usize = 4;

/// The open connections of a listener, and their limits.
#[derive(Debug)]
pub(super) struct Connections {
    pub(super) limits: ConnectionLimits,
    proxies: Vec<IpNet>,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    open: HashMap<u64, Entry>,
    of_address: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
struct Entry {
    address: IpAddr,
    share: Share,
    activity: Arc<Activity>,
    evicted: CancellationToken,
}

/// Whether the number of connections of an address is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Share {
    Limited,
    Unlimited,
}

/// An open connection, until it is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    connections: Arc<Connections>,
    id: u64,
    /// Canceled when the connection must close for another one.
    pub(super) evicted: CancellationToken,
    pub(super) idle_timeout: Duration,
}

/// The decision about a new connection.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Admit,
    /// Close this connection for the new one.
    Replace(u64),
    Reject,
}

impl Connections {
    pub(super) fn new(limits: ConnectionLimits, proxies: Vec<IpNet>) -> Arc<Self> {
        Arc::new(Self { limits, proxies, table: Mutex::default() })
    }

    /// Admits a connection, if necessary by evicting another one; `None` if the connection is rejected.
    pub(super) fn admit(self: &Arc<Self>, peer: IpAddr, activity: &Arc<Activity>) -> Option<Permit> {
        let peer = peer.to_canonical();
        let trusted = is_trusted(&self.proxies, peer);
        let share = if trusted || peer.is_loopback() { Share::Unlimited } else { Share::Limited };
        let address = network(peer);
        let mut table = self.table();
        match table.decide(&self.limits, address, share) {
            Decision::Admit => {}
            Decision::Replace(id) => table.evict(id),
            Decision::Reject => return None,
        }
        let (id, evicted) = (table.next, CancellationToken::new());
        table.next += 1;
        *table.of_address.entry(address).or_default() += 1;
        let activity = Arc::clone(activity);
        table.open.insert(id, Entry { address, share, activity, evicted: evicted.clone() });
        drop(table);
        let idle_timeout = if trusted { self.limits.proxy_idle_timeout } else { self.limits.idle_timeout };
        Some(Permit { connections: Arc::clone(self), id, evicted, idle_timeout })
    }

    /// Evicts the connection that has waited longest, if one waits, to free a file descriptor.
    pub(super) fn close_longest_waiting(&self) {
        let mut table = self.table();
        if let Some(id) = table.longest_waiting(|_| true) {
            table.evict(id);
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn decide(&self, limits: &ConnectionLimits, address: IpAddr, share: Share) -> Decision {
        let open = self.open.len();
        let of_address = self.of_address.get(&address).copied().unwrap_or_default();
        let ceiling = limits.total + limits.reserved;
        if share == Share::Limited && of_address >= limits.per_address {
            return match self.longest_waiting(|entry| entry.address == address) {
                // Evicted connections count until they are closed, so an address can exceed its limit only slightly.
                Some(id) if of_address < limits.per_address + FEW && open < ceiling => Decision::Replace(id),
                _ => Decision::Reject,
            };
        }
        if open < limits.total {
            return Decision::Admit;
        }
        match self.longest_waiting(|_| true) {
            Some(id) if open < ceiling => Decision::Replace(id),
            None if open < ceiling && of_address < FEW => Decision::Admit,
            _ => Decision::Reject,
        }
    }

    /// Returns the connection to close first, among the entries that `filter` accepts: waiting connections before receiving
    /// ones, limited addresses before others, then the connection that has waited longest. Connections that handle requests
    /// or are evicted already are excluded.
    fn longest_waiting(&self, filter: impl Fn(&Entry) -> bool) -> Option<u64> {
        let candidates = self.open.iter().filter(|(_, entry)| !entry.evicted.is_cancelled() && filter(entry));
        let ranked = candidates.filter_map(|(id, entry)| {
            let (stage, since): (u8, MonotonicTime) = match entry.activity.phase() {
                Phase::Opening(since) | Phase::Idle(since) => (0, since),
                Phase::Receiving(since) => (1, since),
                Phase::Working => return None,
            };
            Some((stage, entry.share, since, *id))
        });
        ranked.min().map(|(.., id)| id)
    }

    fn evict(&mut self, id: u64) {
        if let Some(entry) = self.open.get(&id) {
            entry.evicted.cancel();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut table = self.connections.table();
        let Some(entry) = table.open.remove(&self.id) else { return };
        if let Some(of_address) = table.of_address.get_mut(&entry.address) {
            *of_address -= 1;
            if *of_address == 0 {
                table.of_address.remove(&entry.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use cdm_core::ports::Clock;
    use cdm_testkit::clock::SimClock;

    use super::*;

    struct TestEnv {
        clock: SimClock,
        connections: Arc<Connections>,
    }

    struct Open {
        activity: Arc<Activity>,
        permit: Permit,
    }

    impl Open {
        fn was_evicted(&self) -> bool {
            self.permit.evicted.is_cancelled()
        }
    }

    impl TestEnv {
        fn new(total: usize, per_address: usize, reserved: usize) -> Self {
            let limits = ConnectionLimits { total, per_address, reserved, ..ConnectionLimits::default() };
            let proxies = vec!["10.0.0.0/8".parse().unwrap()];
            Self { clock: SimClock::new(), connections: Connections::new(limits, proxies) }
        }

        /// Tries to open a connection, one second after the previous action.
        fn open(&self, peer: &str) -> Option<Open> {
            self.clock.advance(Duration::from_secs(1));
            let activity = Activity::new(Arc::new(self.clock.clone()) as Arc<dyn Clock>);
            let permit = self.connections.admit(peer.parse().unwrap(), &activity)?;
            Some(Open { activity, permit })
        }
    }

    #[test]
    fn the_longest_waiting_connection_is_evicted() {
        let env = TestEnv::new(3, 3, 4);
        let (first, second) = (env.open("127.0.0.1").unwrap(), env.open("127.0.0.1").unwrap());
        let third = env.open("127.0.0.1").unwrap();
        let request = first.activity.begin();
        let _fourth = env.open("127.0.0.1").unwrap();
        assert!(second.was_evicted() && !first.was_evicted() && !third.was_evicted());
        drop(second);
        drop(request);
        let _fifth = env.open("127.0.0.1").unwrap();
        assert!(third.was_evicted() && !first.was_evicted(), "the first connection was used since");
    }

    #[test]
    fn reserved_connections_are_for_addresses_with_few_connections() {
        let env = TestEnv::new(2, 2, 2);
        let busy: Vec<_> = (0..2).map(|_| env.open("203.0.113.1").unwrap()).collect();
        let _requests: Vec<_> = busy.iter().map(|open| open.activity.begin()).collect();
        assert!(env.open("203.0.113.1").is_none(), "the address has reached its limit");
        let other = env.open("203.0.113.2").expect("a reserved connection");
        let _more = other.activity.begin();
        let last = env.open("127.0.0.1").expect("another reserved connection");
        let _more = last.activity.begin();
        assert!(env.open("203.0.113.3").is_none(), "all reserved connections are in use");
        assert!(busy.iter().all(|open| !open.was_evicted()), "active connections stay open");
    }

    #[test]
    fn an_address_at_its_limit_replaces_its_own_connection() {
        let env = TestEnv::new(100, 2, 4);
        let (first, second) = (env.open("2001:db8::1").unwrap(), env.open("2001:db8::2").unwrap());
        let other = env.open("2001:db8:1::1").unwrap();
        let _third = env.open("2001:db8::3").unwrap();
        assert!(first.was_evicted(), "a /64 is one address");
        assert!(!second.was_evicted() && !other.was_evicted());
        for peer in ["127.0.0.1", "::1", "10.1.2.3"] {
            let open: Vec<_> = (0..8).map(|_| env.open(peer).unwrap()).collect();
            assert!(open.iter().all(|open| !open.was_evicted()), "{peer} has no limit per address");
        }
    }

    #[test]
    fn connections_of_proxies_are_evicted_last_and_idle_longer() {
        let env = TestEnv::new(3, 3, 4);
        let proxy = env.open("10.0.0.1").unwrap();
        let (client, _other) = (env.open("203.0.113.1").unwrap(), env.open("203.0.113.2").unwrap());
        let _new = env.open("203.0.113.3").unwrap();
        assert!(client.was_evicted() && !proxy.was_evicted());
        assert!(proxy.permit.idle_timeout > client.permit.idle_timeout);
    }

    #[test]
    fn closed_connections_are_forgotten() {
        let env = TestEnv::new(3, 3, 0);
        drop((env.open("203.0.113.1"), env.open("203.0.113.1")));
        let table = env.connections.table();
        assert!(table.open.is_empty() && table.of_address.is_empty());
    }
}
