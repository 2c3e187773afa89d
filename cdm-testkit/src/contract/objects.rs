//! Guarantees of an object store: every key of a site is listed and deleted, and no key of another site.

use std::collections::BTreeSet;
use std::fmt;

use async_trait::async_trait;
use cdm_core::domain::{ObjectPrefix, Uid};
use cdm_core::ports::{ErrorKind, ObjectStore, Outcome};

use super::SuiteContext;
use super::context::{applied, read_value, rejected};
use crate::fakes::FakeObjects;

/// Maximum keys of a page or a deletion.
const LIMIT: usize = 1_000;
/// More pages than any prefix in this suite has.
const PAGES: usize = 100;

/// Adds objects as visitors of a site would: the port itself creates only the marker.
#[async_trait]
pub trait ObjectSeeder: Send + Sync + fmt::Debug {
    /// Creates an empty object under each of these keys.
    async fn seed_objects(&self, keys: &[String]);
}

#[async_trait]
impl ObjectSeeder for FakeObjects {
    async fn seed_objects(&self, keys: &[String]) {
        keys.iter().for_each(|key| self.seed(key));
    }
}

/// Tests every guarantee of the port.
pub async fn suite(port: &dyn ObjectStore, seeder: &dyn ObjectSeeder, cx: &SuiteContext<'_>) {
    a_marker_creates_the_prefix(port, cx).await;
    a_late_marker_is_rejected(port, cx).await;
    paging_finds_every_key(port, seeder, cx).await;
    deleting_listed_keys_empties_the_prefix(port, seeder, cx).await;
    a_missing_key_counts_as_deleted(port, cx).await;
    a_key_outside_the_prefix_is_invalid(port, seeder, cx).await;
    other_uids_are_untouched(port, seeder, cx).await;
}

/// The marker exists once it was written, and may be written again.
pub async fn a_marker_creates_the_prefix(port: &dyn ObjectStore, cx: &SuiteContext<'_>) {
    const PROMISE: &str = "a written marker is listed, and may be written again";
    let uid = cx.uid();
    let prefix = ObjectPrefix::of(uid);
    assert_eq!(list(PROMISE, port, uid).await, [] as [String; 0], "broken promise: {PROMISE}");
    let call = cx.call();
    for call in [call, call, cx.call()] {
        applied(PROMISE, port.put_marker(&call, &prefix).await);
        assert_lists(PROMISE, &list(PROMISE, port, uid).await, &[key(uid, ".cdm")]);
    }
}

/// A marker whose deadline has passed is not applied, and does not appear later.
pub async fn a_late_marker_is_rejected(port: &dyn ObjectStore, cx: &SuiteContext<'_>) {
    const PROMISE: &str = "a marker is rejected once its deadline has passed";
    let uid = cx.uid();
    let outcome = port.put_marker(&cx.late_call().await, &ObjectPrefix::of(uid)).await;
    assert!(!matches!(outcome, Outcome::Applied(())), "broken promise: {PROMISE}");
    cx.settle().await;
    assert_eq!(list(PROMISE, port, uid).await, [] as [String; 0], "broken promise: {PROMISE}");
}

/// One key more than a page can have: all keys are listed once, in order.
pub async fn paging_finds_every_key(
    port: &dyn ObjectStore,
    seeder: &dyn ObjectSeeder,
    cx: &SuiteContext<'_>,
) {
    const PROMISE: &str = "paging finds every key of a prefix";
    let (uid, seeded) = seeded(seeder, cx, cx.uid(), LIMIT + 1).await;
    assert_lists(PROMISE, &list(PROMISE, port, uid).await, &seeded);
}

/// All objects of a site can be deleted one page at a time.
pub async fn deleting_listed_keys_empties_the_prefix(
    port: &dyn ObjectStore,
    seeder: &dyn ObjectSeeder,
    cx: &SuiteContext<'_>,
) {
    const PROMISE: &str = "deleting each listed page empties the prefix";
    let (uid, _) = seeded(seeder, cx, cx.uid(), LIMIT + 1).await;
    applied(PROMISE, port.put_marker(&cx.call(), &ObjectPrefix::of(uid)).await);
    empty(PROMISE, port, cx, uid).await;
}

/// Deleting a missing key succeeds.
pub async fn a_missing_key_counts_as_deleted(port: &dyn ObjectStore, cx: &SuiteContext<'_>) {
    const PROMISE: &str = "a missing key counts as deleted";
    let uid = cx.uid();
    let prefix = ObjectPrefix::of(uid);
    applied(PROMISE, port.put_marker(&cx.call(), &prefix).await);
    let keys = list(PROMISE, port, uid).await;
    let call = cx.call();
    for call in [call, call, cx.call()] {
        let failed = applied(PROMISE, port.delete(&call, &prefix, &keys).await);
        assert_eq!(failed, [], "broken promise: {PROMISE}");
    }
    assert_eq!(list(PROMISE, port, uid).await, [] as [String; 0], "broken promise: {PROMISE}");
}

/// One key outside the prefix makes the whole deletion invalid.
pub async fn a_key_outside_the_prefix_is_invalid(
    port: &dyn ObjectStore,
    seeder: &dyn ObjectSeeder,
    cx: &SuiteContext<'_>,
) {
    const PROMISE: &str = "a deletion with a key outside the prefix is invalid and deletes nothing";
    let (own, other) = cx.neighbors();
    let (own, _) = seeded(seeder, cx, own, 2).await;
    let (other, _) = seeded(seeder, cx, other, 2).await;
    let (mine, theirs) = (list(PROMISE, port, own).await, list(PROMISE, port, other).await);
    let strays = [
        theirs.clone(),
        vec![format!("sites/{own}")],
        vec![format!("sites/{own}x/a")],
        vec![String::new()],
        vec!["a".to_owned()],
    ];
    for stray in strays {
        let keys: Vec<_> = mine.iter().cloned().chain(stray).collect();
        let outcome = port.delete(&cx.call(), &ObjectPrefix::of(own), &keys).await;
        rejected(PROMISE, ErrorKind::Invalid, outcome);
    }
    assert_eq!(list(PROMISE, port, own).await, mine, "broken promise: {PROMISE}");
    assert_eq!(list(PROMISE, port, other).await, theirs, "broken promise: {PROMISE}");
}

/// A site whose uid differs by one character keeps all objects.
pub async fn other_uids_are_untouched(
    port: &dyn ObjectStore,
    seeder: &dyn ObjectSeeder,
    cx: &SuiteContext<'_>,
) {
    const PROMISE: &str = "lists and deletions affect one uid";
    let (dropped, kept) = cx.neighbors();
    let (kept, files) = seeded(seeder, cx, kept, 3).await;
    let (dropped, _) = seeded(seeder, cx, dropped, 3).await;
    empty(PROMISE, port, cx, dropped).await;
    assert_lists(PROMISE, &list(PROMISE, port, kept).await, &files);
}

/// Returns a key of a site, without using the code under test.
fn key(uid: Uid, file: &str) -> String {
    format!("sites/{uid}/{file}")
}

async fn seeded(
    seeder: &dyn ObjectSeeder,
    cx: &SuiteContext<'_>,
    uid: Uid,
    count: usize,
) -> (Uid, Vec<String>) {
    let folder = cx.number();
    let keys: Vec<_> = (0..count).map(|n| key(uid, &format!("uploads/{folder}/{n}.jpg"))).collect();
    seeder.seed_objects(&keys).await;
    (uid, keys)
}

/// Returns every key of a site's prefix; panics if a page breaks the rules of paging.
async fn list(promise: &str, port: &dyn ObjectStore, uid: Uid) -> Vec<String> {
    let prefix = ObjectPrefix::of(uid);
    let mut keys: Vec<String> = Vec::new();
    for _ in 0..PAGES {
        let page = read_value(promise, port.page(&prefix, keys.last().map(String::as_str)).await);
        assert!(page.keys.len() <= LIMIT, "broken promise: a page has at most {LIMIT} keys");
        assert!(!page.more || !page.keys.is_empty(), "broken promise: a page that is not the last has keys");
        keys.extend(page.keys);
        if !page.more {
            let once: BTreeSet<_> = keys.iter().collect();
            assert!(once.len() == keys.len(), "broken promise: paging lists a key once");
            let stray = keys.iter().find(|listed| !listed.starts_with(&key(uid, "")));
            assert_eq!(stray, None, "broken promise: a page holds keys of its prefix only");
            return keys;
        }
    }
    panic!("broken promise: {promise}; paging does not end");
}

/// Deletes page by page until a page is empty; all keys must be of the uid.
async fn empty(promise: &str, port: &dyn ObjectStore, cx: &SuiteContext<'_>, uid: Uid) {
    let prefix = ObjectPrefix::of(uid);
    for _ in 0..PAGES {
        let page = read_value(promise, port.page(&prefix, None).await);
        if page.keys.is_empty() {
            assert!(!page.more, "broken promise: a page that is not the last has keys");
            return;
        }
        let stray = page.keys.iter().find(|listed| !listed.starts_with(&key(uid, "")));
        assert_eq!(stray, None, "broken promise: a page holds keys of its prefix only");
        let failed = applied(promise, port.delete(&cx.call(), &prefix, &page.keys).await);
        assert_eq!(failed, [], "broken promise: {promise}");
    }
    panic!("broken promise: {promise}; the prefix does not become empty");
}

/// Panics unless the listed keys are exactly the seeded keys and versions of them. A store with versions lists
/// a version under its object's key with a suffix.
#[track_caller]
fn assert_lists(promise: &str, listed: &[String], seeded: &[String]) {
    let objects: BTreeSet<&str> =
        listed.iter().map(|key| key.split_once('?').map_or(key.as_str(), |(object, _)| object)).collect();
    let wanted: BTreeSet<&str> = seeded.iter().map(String::as_str).collect();
    assert_eq!(objects, wanted, "broken promise: {promise}");
}
