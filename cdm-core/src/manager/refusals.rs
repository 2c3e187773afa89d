//! Limits the audit entries of rejected requests. In each minute, the first rejections of an actor at an address have
//! individual entries. Further rejections are counted, and one entry with the count is written after the minute.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::domain::{Actor, AuditEntry, MonotonicTime};

/// The rejections of the current minute in this process.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<Minute>);

/// The period whose counted rejections are written to the audit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// A period of one minute that is over.
    Over,
    /// The current period too, because the process ends.
    Present,
}

#[derive(Debug, Default)]
struct Minute {
    since: Option<MonotonicTime>,
    written: u32,
    groups: HashMap<Group, Count>,
}

/// The actor and address of rejected requests. An IPv6 address is replaced by its network, because one client
/// controls all addresses of a network.
type Group = (Actor, Option<IpAddr>);

#[derive(Debug, Default)]
struct Count {
    written: u32,
    /// The last entry that was not written. Its `count` is the number of such entries.
    withheld: Option<AuditEntry>,
}

impl Refusals {
    /// The period after which counts are written.
    pub(super) const SPAN: Duration = Duration::from_secs(60);
    /// The maximum number of individual entries of one actor at one address in a period.
    const EACH: u32 = 30;
    /// The maximum number of individual entries of all actors in a period.
    const ALL: u32 = 600;
    /// The maximum number of groups in a period. Further groups are counted together.
    const GROUPS: usize = 256;

    /// Records a rejection. Returns the entries to write now.
    pub(super) fn record(&self, entry: AuditEntry, now: MonotonicTime) -> Vec<AuditEntry> {
        let mut minute = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut due = minute.end(now);
        minute.since.get_or_insert(now);
        let mut entry = entry;
        let mut group = (entry.actor.clone(), entry.address.map(network));
        if minute.groups.len() >= Self::GROUPS && !minute.groups.contains_key(&group) {
            group = (Actor::anonymous(), None);
            entry = AuditEntry { actor: Actor::anonymous(), address: None, ..entry };
        }
        let full = minute.written >= Self::ALL;
        let count = minute.groups.entry(group).or_default();
        if full || count.written >= Self::EACH {
            let previous = count.withheld.as_ref().map_or(0, |entry| entry.count);
            count.withheld = Some(AuditEntry { count: previous.saturating_add(1), ..entry });
        } else {
            count.written += 1;
            minute.written += 1;
            due.push(entry);
        }
        due
    }

    /// Returns the entries with the counts of a period.
    pub(super) fn flush(&self, span: Span, now: MonotonicTime) -> Vec<AuditEntry> {
        let mut minute = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match span {
            Span::Over => minute.end(now),
            Span::Present => minute.take(),
        }
    }
}

impl Minute {
    fn end(&mut self, now: MonotonicTime) -> Vec<AuditEntry> {
        let over = self.since.is_some_and(|since| now.since(since) >= Refusals::SPAN);
        if over { self.take() } else { Vec::new() }
    }

    fn take(&mut self) -> Vec<AuditEntry> {
        let mut all: Vec<_> =
            std::mem::take(self).groups.into_values().filter_map(|count| count.withheld).collect();
        all.sort_by(|one, other| (one.at, &one.actor).cmp(&(other.at, &other.actor)));
        all
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Timestamp;

    fn entry(actor: &str, address: &str) -> AuditEntry {
        AuditEntry {
            at: Timestamp::from_millis(1),
            actor: Actor::parse(actor).unwrap_or_else(|_| Actor::anonymous()),
            action: "site.delete".into(),
            target: "rrr".to_owned(),
            request_id: None,
            outcome: "not_found".into(),
            operation: None,
            rollout: None,
            address: address.parse().ok(),
            count: 1,
        }
    }

    fn at(seconds: u64) -> MonotonicTime {
        MonotonicTime::from_millis(seconds * 1_000)
    }

    #[test]
    fn a_flood_of_one_actor_is_limited_and_counted() {
        let refusals = Refusals::default();
        let written: Vec<_> =
            (0..568).flat_map(|_| refusals.record(entry("ops", "192.0.2.1"), at(5))).collect();
        assert_eq!(written.len(), 30);
        assert!(written.iter().all(|entry| entry.count == 1));
        assert_eq!(refusals.flush(Span::Over, at(64)), []);
        let over = refusals.flush(Span::Over, at(65));
        assert_eq!(over, [AuditEntry { count: 538, ..entry("ops", "192.0.2.1") }]);
        assert_eq!(refusals.flush(Span::Over, at(200)), [], "the number is written once");
        assert_eq!(refusals.record(entry("ops", "192.0.2.1"), at(201)).len(), 1, "another minute begins");
    }

    #[test]
    fn actors_and_addresses_are_limited_separately() {
        let refusals = Refusals::default();
        for _ in 0..40 {
            refusals.record(entry("ops", "192.0.2.1"), at(0));
        }
        assert_eq!(refusals.record(entry("ops", "192.0.2.2"), at(0)).len(), 1);
        assert_eq!(refusals.record(entry("ci", "192.0.2.1"), at(0)).len(), 1);
        assert_eq!(refusals.record(entry("ops", "192.0.2.1"), at(0)), []);
        let drained = refusals.flush(Span::Present, at(0));
        assert_eq!(drained.iter().map(|entry| entry.count).collect::<Vec<_>>(), [11]);
    }

    #[test]
    fn an_ipv6_address_counts_as_its_network() {
        let refusals = Refusals::default();
        let written: usize = (0..100)
            .map(|host| refusals.record(entry("anonymous", &format!("2001:db8::{host:x}")), at(0)).len())
            .sum();
        assert_eq!(written, 30);
    }

    #[test]
    fn all_addresses_together_are_limited() {
        let refusals = Refusals::default();
        let mut written = 0;
        for round in 0..20 {
            for host in 0..1_000_u32 {
                let address = std::net::Ipv4Addr::from_bits(0x0a00_0000 + host).to_string();
                let entries = refusals.record(entry("anonymous", &address), at(round / 20));
                written += entries.len();
            }
        }
        assert_eq!(written, 600);
        let remaining = refusals.flush(Span::Present, at(0));
        assert!(remaining.len() <= 257, "{}", remaining.len());
        assert_eq!(
            remaining.iter().map(|entry| entry.count).sum::<u64>(),
            20_000 - 600,
            "every rejection is counted"
        );
    }
}
