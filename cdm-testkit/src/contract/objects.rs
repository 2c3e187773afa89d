//! What an object store promises: every key of a site is found and deleted, and none of anybody else.

use std::collections::BTreeSet;
use std::fmt;

use async_trait::async_trait;
use cdm_core::domain::{ObjectPrefix, Uid};
use cdm_core::ports::{ErrorKind, ObjectStore, Outcome};

use super::Cx;
use super::cx::{answered, applied, refused};
use crate::fakes::FakeObjects;

/// Most keys that one page or one delete has.
const LIMIT: usize = 1_000;
/// More pages than any prefix of a suite has.
const PAGES: usize = 100;

/// Puts objects where a site's visitors would have put them: the port itself makes none but the marker.
#[async_trait]
pub trait Plant: Send + Sync + fmt::Debug {
    /// Puts an empty object under each of these keys.
    async fn plant(&self, keys: &[String]);
}

#[async_trait]
impl Plant for FakeObjects {
    async fn plant(&self, keys: &[String]) {
        keys.iter().for_each(|key| self.seed(key));
    }
}

/// Every promise of the port.
pub async fn suite(port: &dyn ObjectStore, plant: &dyn Plant, cx: &Cx<'_>) {
    a_marker_makes_the_prefix(port, cx).await;
    a_late_marker_is_refused(port, cx).await;
    paging_finds_every_key(port, plant, cx).await;
    deleting_what_was_listed_empties_the_prefix(port, plant, cx).await;
    a_missing_key_counts_as_deleted(port, cx).await;
    a_key_outside_the_prefix_is_invalid(port, plant, cx).await;
    other_uids_are_untouched(port, plant, cx).await;
}

/// The marker is there as soon as it was put, and may be put again.
pub async fn a_marker_makes_the_prefix(port: &dyn ObjectStore, cx: &Cx<'_>) {
    const PROMISE: &str = "a marker that was put is listed, and may be put again";
    let uid = cx.uid();
    let prefix = ObjectPrefix::of(uid);
    assert_eq!(list(PROMISE, port, uid).await, [] as [String; 0], "broken promise: {PROMISE}");
    let call = cx.call();
    for call in [call, call, cx.call()] {
        applied(PROMISE, port.put_marker(&call, &prefix).await);
        assert_lists(PROMISE, &list(PROMISE, port, uid).await, &[key(uid, ".cdm")]);
    }
}

/// A marker whose deadline has passed does not appear, whatever the answer says.
pub async fn a_late_marker_is_refused(port: &dyn ObjectStore, cx: &Cx<'_>) {
    const PROMISE: &str = "a marker is refused once its deadline has passed";
    let uid = cx.uid();
    let outcome = port.put_marker(&cx.late_call().await, &ObjectPrefix::of(uid)).await;
    assert!(!matches!(outcome, Outcome::Applied(())), "broken promise: {PROMISE}");
    cx.settle().await;
    assert_eq!(list(PROMISE, port, uid).await, [] as [String; 0], "broken promise: {PROMISE}");
}

/// One key more than a page has: all are listed, in order and once.
pub async fn paging_finds_every_key(port: &dyn ObjectStore, plant: &dyn Plant, cx: &Cx<'_>) {
    const PROMISE: &str = "paging finds every key of a prefix";
    let (uid, planted) = planted(plant, cx, cx.uid(), LIMIT + 1).await;
    assert_lists(PROMISE, &list(PROMISE, port, uid).await, &planted);
}

/// Everything that a site has can be deleted a page at a time.
pub async fn deleting_what_was_listed_empties_the_prefix(
    port: &dyn ObjectStore,
    plant: &dyn Plant,
    cx: &Cx<'_>,
) {
    const PROMISE: &str = "deleting what is listed, page by page, empties the prefix";
    let (uid, _) = planted(plant, cx, cx.uid(), LIMIT + 1).await;
    applied(PROMISE, port.put_marker(&cx.call(), &ObjectPrefix::of(uid)).await);
    empty(PROMISE, port, cx, uid).await;
}

/// Deleting again what is gone is no error.
pub async fn a_missing_key_counts_as_deleted(port: &dyn ObjectStore, cx: &Cx<'_>) {
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

/// One stray key makes the whole delete invalid.
pub async fn a_key_outside_the_prefix_is_invalid(port: &dyn ObjectStore, plant: &dyn Plant, cx: &Cx<'_>) {
    const PROMISE: &str = "a delete with a key outside the prefix is invalid and deletes nothing";
    let (own, other) = cx.neighbours();
    let (own, _) = planted(plant, cx, own, 2).await;
    let (other, _) = planted(plant, cx, other, 2).await;
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
        refused(PROMISE, ErrorKind::Invalid, outcome);
    }
    assert_eq!(list(PROMISE, port, own).await, mine, "broken promise: {PROMISE}");
    assert_eq!(list(PROMISE, port, other).await, theirs, "broken promise: {PROMISE}");
}

/// A site whose uid differs by a character keeps everything.
pub async fn other_uids_are_untouched(port: &dyn ObjectStore, plant: &dyn Plant, cx: &Cx<'_>) {
    const PROMISE: &str = "what is listed and deleted is of one uid";
    let (dropped, kept) = cx.neighbours();
    let (kept, files) = planted(plant, cx, kept, 3).await;
    let (dropped, _) = planted(plant, cx, dropped, 3).await;
    empty(PROMISE, port, cx, dropped).await;
    assert_lists(PROMISE, &list(PROMISE, port, kept).await, &files);
}

/// A key of a site, made without the help of what is under test.
fn key(uid: Uid, file: &str) -> String {
    format!("sites/{uid}/{file}")
}

async fn planted(plant: &dyn Plant, cx: &Cx<'_>, uid: Uid, count: usize) -> (Uid, Vec<String>) {
    let folder = cx.number();
    let keys: Vec<_> = (0..count).map(|n| key(uid, &format!("uploads/{folder}/{n}.jpg"))).collect();
    plant.plant(&keys).await;
    (uid, keys)
}

/// Every key of a site's prefix; panics when a page breaks the rules of paging.
async fn list(promise: &str, port: &dyn ObjectStore, uid: Uid) -> Vec<String> {
    let prefix = ObjectPrefix::of(uid);
    let mut keys: Vec<String> = Vec::new();
    for _ in 0..PAGES {
        let page = answered(promise, port.page(&prefix, keys.last().map(String::as_str)).await);
        assert!(page.keys.len() <= LIMIT, "broken promise: a page has at most {LIMIT} keys");
        assert!(!page.more || !page.keys.is_empty(), "broken promise: a page that more follow has keys");
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

/// Deletes page by page until a page is empty; every page must be of the uid.
async fn empty(promise: &str, port: &dyn ObjectStore, cx: &Cx<'_>, uid: Uid) {
    let prefix = ObjectPrefix::of(uid);
    for _ in 0..PAGES {
        let page = answered(promise, port.page(&prefix, None).await);
        if page.keys.is_empty() {
            assert!(!page.more, "broken promise: a page that more follow has keys");
            return;
        }
        let stray = page.keys.iter().find(|listed| !listed.starts_with(&key(uid, "")));
        assert_eq!(stray, None, "broken promise: a page holds keys of its prefix only");
        let failed = applied(promise, port.delete(&cx.call(), &prefix, &page.keys).await);
        assert_eq!(failed, [], "broken promise: {promise}");
    }
    panic!("broken promise: {promise}; the prefix does not get empty");
}

/// Panics unless every planted key is listed, and nothing that is no version of one of them. A store with versions
/// lists a version under its object's key and a suffix.
#[track_caller]
fn assert_lists(promise: &str, listed: &[String], planted: &[String]) {
    let objects: BTreeSet<&str> =
        listed.iter().map(|key| key.split_once('?').map_or(key.as_str(), |(object, _)| object)).collect();
    let wanted: BTreeSet<&str> = planted.iter().map(String::as_str).collect();
    assert_eq!(objects, wanted, "broken promise: {promise}");
}
