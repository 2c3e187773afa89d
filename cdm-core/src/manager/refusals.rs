//! Bounds what refused requests write into the audit. In each minute the first refusals of an actor at an address have
//! an entry each; the further ones are counted, and their number has one entry when the minute is over.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::domain::{Actor, AuditEntry, MonotonicTime};

/// Refusals of one minute, in one process.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<Minute>);

/// Which refusals that had no audit entry of their own get one with their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// Those of a minute that is over.
    Over,
    /// Those of the present minute too, because the process ends.
    Present,
}

#[derive(Debug, Default)]
struct Minute {
    since: Option<MonotonicTime>,
    written: u32,
    groups: HashMap<Group, Count>,
}

/// Who was refused, and where: of an address of version 6 its network, since one party has all of that.
type Group = (Actor, Option<IpAddr>);

#[derive(Debug, Default)]
struct Count {
    written: u32,
    /// The last one that was only counted; its `count` is how many there were.
    withheld: Option<AuditEntry>,
}

impl Refusals {
    /// How long refusals are counted together.
    pub(super) const SPAN: Duration = Duration::from_secs(60);
    /// How many refusals of one actor at one address have an entry each in that time,
    const EACH: u32 = 30;
    /// and how many of all together.
    const ALL: u32 = 600;
    /// How many actors at addresses are told apart in that time.
    const GROUPS: usize = 256;

    /// Returns what is written now that this was refused.
    pub(super) fn note(&self, entry: AuditEntry, now: MonotonicTime) -> Vec<AuditEntry> {
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
            let before = count.withheld.as_ref().map_or(0, |entry| entry.count);
            count.withheld = Some(AuditEntry { count: before.saturating_add(1), ..entry });
        } else {
            count.written += 1;
            minute.written += 1;
            due.push(entry);
        }
        due
    }

    /// Returns the numbers of what was only counted.
    pub(super) fn due(&self, span: Span, now: MonotonicTime) -> Vec<AuditEntry> {
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
    fn a_flood_of_one_actor_has_as_many_entries_as_the_bound_and_one_with_the_number() {
        let refusals = Refusals::default();
        let written: Vec<_> =
            (0..568).flat_map(|_| refusals.note(entry("ops", "192.0.2.1"), at(5))).collect();
        assert_eq!(written.len(), 30);
        assert!(written.iter().all(|entry| entry.count == 1));
        assert_eq!(refusals.due(Span::Over, at(64)), []);
        let over = refusals.due(Span::Over, at(65));
        assert_eq!(over, [AuditEntry { count: 538, ..entry("ops", "192.0.2.1") }]);
        assert_eq!(refusals.due(Span::Over, at(200)), [], "the number is written once");
        assert_eq!(refusals.note(entry("ops", "192.0.2.1"), at(201)).len(), 1, "another minute begins");
    }

    #[test]
    fn actors_and_addresses_have_entries_of_their_own() {
        let refusals = Refusals::default();
        for _ in 0..40 {
            refusals.note(entry("ops", "192.0.2.1"), at(0));
        }
        assert_eq!(refusals.note(entry("ops", "192.0.2.2"), at(0)).len(), 1);
        assert_eq!(refusals.note(entry("ci", "192.0.2.1"), at(0)).len(), 1);
        assert_eq!(refusals.note(entry("ops", "192.0.2.1"), at(0)), []);
        let drained = refusals.due(Span::Present, at(0));
        assert_eq!(drained.iter().map(|entry| entry.count).collect::<Vec<_>>(), [11]);
    }

    #[test]
    fn an_address_of_version_6_counts_as_its_network() {
        let refusals = Refusals::default();
        let written: usize = (0..100)
            .map(|host| refusals.note(entry("anonymous", &format!("2001:db8::{host:x}")), at(0)).len())
            .sum();
        assert_eq!(written, 30);
    }

    #[test]
    fn many_addresses_together_are_bounded_too() {
        let refusals = Refusals::default();
        let mut written = 0;
        for round in 0..20 {
            for host in 0..1_000_u32 {
                let address = std::net::Ipv4Addr::from_bits(0x0a00_0000 + host).to_string();
                let noted = refusals.note(entry("anonymous", &address), at(round / 20));
                written += noted.len();
            }
        }
        assert_eq!(written, 600);
        let rest = refusals.due(Span::Present, at(0));
        assert!(rest.len() <= 257, "{}", rest.len());
        assert_eq!(rest.iter().map(|entry| entry.count).sum::<u64>(), 20_000 - 600, "nobody is left out");
    }
}
