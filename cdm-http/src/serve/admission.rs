//! Which connections are open, and which of them makes way for another.
//!
//! At the limit a connection that waits is closed before one that works, and a new connection is preferred to an old
//! one that has sent nothing: so many silent connections cannot keep a client out that has something to ask. No address
//! but loopback and the trusted proxies may have more than its share.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cdm_core::domain::MonotonicTime;
use ipnet::IpNet;
use tokio_util::sync::CancellationToken;

use super::activity::{Activity, Doing};
use crate::client::is_trusted;
use crate::limits::network;

/// The limits of the listener's connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Connections at a time.
    pub total: usize,
    /// How many of these one address may have; loopback and trusted proxies may have all.
    pub per_address: usize,
    /// Further connections, for addresses that have next to none, while all others are at work.
    pub reserved: usize,
    /// Time from the accept to the end of the first header, the TLS handshake included.
    pub header_timeout: Duration,
    /// Time from the end of an answer to the end of the next header.
    pub idle_timeout: Duration,
    /// The same for a trusted proxy, which keeps connections for requests to come.
    pub proxy_idle_timeout: Duration,
    /// How long the client may take nothing of what is sent to it.
    pub write_timeout: Duration,
    /// Bytes of a request's header.
    pub header_bytes: usize,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self::within(512)
    }
}

impl ConnectionLimits {
    /// The usual limits within so many connections: some of them in reserve, and of the others a quarter for one
    /// address.
    pub fn within(connections: usize) -> Self {
        let reserved = (connections / 8).max(16).min(connections / 2);
        let total = (connections - reserved).max(1);
        Self {
            total,
            per_address: (total / 4).max(8).min(total),
            reserved,
            header_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(30),
            proxy_idle_timeout: Duration::from_secs(90),
            write_timeout: Duration::from_secs(30),
            header_bytes: 32 * 1024,
        }
    }
}

/// An address with fewer connections than this has next to none.
const FEW: usize = 4;

/// The open connections.
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
    leave: CancellationToken,
}

/// Whether an address may have its share of the connections only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Share {
    Limited,
    Whole,
}

/// An open connection, until it is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    connections: Arc<Connections>,
    id: u64,
    /// Cancelled when the connection has to make way for another.
    pub(super) leave: CancellationToken,
    pub(super) idle_timeout: Duration,
}

/// What becomes of a new connection.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Admit,
    /// This one makes way for it.
    Replace(u64),
    Refuse,
}

impl Connections {
    pub(super) fn new(limits: ConnectionLimits, proxies: Vec<IpNet>) -> Arc<Self> {
        Arc::new(Self { limits, proxies, table: Mutex::default() })
    }

    /// Lets a connection in, or not; another one may have to leave for it.
    pub(super) fn admit(self: &Arc<Self>, peer: IpAddr, activity: &Arc<Activity>) -> Option<Permit> {
        let peer = peer.to_canonical();
        let trusted = is_trusted(&self.proxies, peer);
        let share = if trusted || peer.is_loopback() { Share::Whole } else { Share::Limited };
        let address = network(peer);
        let mut table = self.table();
        match table.decide(&self.limits, address, share) {
            Decision::Admit => {}
            Decision::Replace(id) => table.dismiss(id),
            Decision::Refuse => return None,
        }
        let (id, leave) = (table.next, CancellationToken::new());
        table.next += 1;
        *table.of_address.entry(address).or_default() += 1;
        let activity = Arc::clone(activity);
        table.open.insert(id, Entry { address, share, activity, leave: leave.clone() });
        drop(table);
        let idle_timeout = if trusted { self.limits.proxy_idle_timeout } else { self.limits.idle_timeout };
        Some(Permit { connections: Arc::clone(self), id, leave, idle_timeout })
    }

    /// Closes the connection that has waited longest, where one waits: descriptors have run out.
    pub(super) fn make_room(&self) {
        let mut table = self.table();
        if let Some(id) = table.longest(|_| true) {
            table.dismiss(id);
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn decide(&self, limits: &ConnectionLimits, address: IpAddr, share: Share) -> Decision {
        let open = self.open.len();
        let theirs = self.of_address.get(&address).copied().unwrap_or_default();
        let ceiling = limits.total + limits.reserved;
        if share == Share::Limited && theirs >= limits.per_address {
            return match self.longest(|entry| entry.address == address) {
                // Connections that were told to leave still count; an address cannot be far ahead of their end.
                Some(id) if theirs < limits.per_address + FEW && open < ceiling => Decision::Replace(id),
                _ => Decision::Refuse,
            };
        }
        if open < limits.total {
            return Decision::Admit;
        }
        match self.longest(|_| true) {
            Some(id) if open < ceiling => Decision::Replace(id),
            None if open < ceiling && theirs < FEW => Decision::Admit,
            _ => Decision::Refuse,
        }
    }

    /// Of some connections the one to close first: one that waits before one that receives, one of limited share before
    /// others, then the one that has waited longest. None that works, and none that leaves already.
    fn longest(&self, of: impl Fn(&Entry) -> bool) -> Option<u64> {
        let candidates = self.open.iter().filter(|(_, entry)| !entry.leave.is_cancelled() && of(entry));
        let ranked = candidates.filter_map(|(id, entry)| {
            let (stage, since): (u8, MonotonicTime) = match entry.activity.doing() {
                Doing::Opening(since) | Doing::Idle(since) => (0, since),
                Doing::Receiving(since) => (1, since),
                Doing::Working => return None,
            };
            Some((stage, entry.share, since, *id))
        });
        ranked.min().map(|(.., id)| id)
    }

    fn dismiss(&mut self, id: u64) {
        if let Some(entry) = self.open.get(&id) {
            entry.leave.cancel();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut table = self.connections.table();
        let Some(entry) = table.open.remove(&self.id) else { return };
        if let Some(theirs) = table.of_address.get_mut(&entry.address) {
            *theirs -= 1;
            if *theirs == 0 {
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

    struct Bed {
        clock: SimClock,
        connections: Arc<Connections>,
    }

    struct Open {
        activity: Arc<Activity>,
        permit: Permit,
    }

    impl Open {
        fn was_dismissed(&self) -> bool {
            self.permit.leave.is_cancelled()
        }
    }

    impl Bed {
        fn new(total: usize, per_address: usize, reserved: usize) -> Self {
            let limits = ConnectionLimits { total, per_address, reserved, ..ConnectionLimits::default() };
            let proxies = vec!["10.0.0.0/8".parse().unwrap()];
            Self { clock: SimClock::new(), connections: Connections::new(limits, proxies) }
        }

        /// Tries to open a connection, a second after what was before.
        fn open(&self, peer: &str) -> Option<Open> {
            self.clock.advance(Duration::from_secs(1));
            let activity = Activity::new(Arc::new(self.clock.clone()) as Arc<dyn Clock>);
            let permit = self.connections.admit(peer.parse().unwrap(), &activity)?;
            Some(Open { activity, permit })
        }
    }

    #[test]
    fn the_connection_that_has_waited_longest_makes_way() {
        let bed = Bed::new(3, 3, 4);
        let (first, second) = (bed.open("127.0.0.1").unwrap(), bed.open("127.0.0.1").unwrap());
        let third = bed.open("127.0.0.1").unwrap();
        let answering = first.activity.begin();
        let _fourth = bed.open("127.0.0.1").unwrap();
        assert!(second.was_dismissed() && !first.was_dismissed() && !third.was_dismissed());
        drop(second);
        drop(answering);
        let _fifth = bed.open("127.0.0.1").unwrap();
        assert!(third.was_dismissed() && !first.was_dismissed(), "the first one was used since");
    }

    #[test]
    fn while_all_work_only_those_with_next_to_none_come_in() {
        let bed = Bed::new(2, 2, 2);
        let busy: Vec<_> = (0..2).map(|_| bed.open("203.0.113.1").unwrap()).collect();
        let _answering: Vec<_> = busy.iter().map(|open| open.activity.begin()).collect();
        assert!(bed.open("203.0.113.1").is_none(), "it has its share");
        let other = bed.open("203.0.113.2").expect("a reserved connection");
        let _more = other.activity.begin();
        let last = bed.open("127.0.0.1").expect("another one");
        let _more = last.activity.begin();
        assert!(bed.open("203.0.113.3").is_none(), "no more than are reserved");
        assert!(busy.iter().all(|open| !open.was_dismissed()), "nothing that works is closed");
    }

    #[test]
    fn one_address_takes_its_share_and_replaces_its_own() {
        let bed = Bed::new(100, 2, 4);
        let (first, second) = (bed.open("2001:db8::1").unwrap(), bed.open("2001:db8::2").unwrap());
        let other = bed.open("2001:db8:1::1").unwrap();
        let _third = bed.open("2001:db8::3").unwrap();
        assert!(first.was_dismissed(), "a /64 is one address");
        assert!(!second.was_dismissed() && !other.was_dismissed());
        for peer in ["127.0.0.1", "::1", "10.1.2.3"] {
            let open: Vec<_> = (0..8).map(|_| bed.open(peer).unwrap()).collect();
            assert!(open.iter().all(|open| !open.was_dismissed()), "{peer} has no share by address");
        }
    }

    #[test]
    fn proxies_lose_connections_last_and_may_keep_them_longer() {
        let bed = Bed::new(3, 3, 4);
        let proxy = bed.open("10.0.0.1").unwrap();
        let (client, _other) = (bed.open("203.0.113.1").unwrap(), bed.open("203.0.113.2").unwrap());
        let _new = bed.open("203.0.113.3").unwrap();
        assert!(client.was_dismissed() && !proxy.was_dismissed());
        assert!(proxy.permit.idle_timeout > client.permit.idle_timeout);
    }

    #[test]
    fn nobody_is_remembered() {
        let bed = Bed::new(3, 3, 0);
        drop((bed.open("203.0.113.1"), bed.open("203.0.113.1")));
        let table = bed.connections.table();
        assert!(table.open.is_empty() && table.of_address.is_empty());
    }
}
