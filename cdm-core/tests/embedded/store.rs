//! The store in a file: its contract, and its state when a process ends.

#![expect(clippy::disallowed_methods, reason = "the tests create missing and foreign files")]

use std::sync::Arc;

use cdm_core::adapters::embedded::{EmbeddedStore, EmbeddedTokens, File, LivenessLock, OpenError};
use cdm_core::domain::{MonotonicTime, Site, WorkerId};
use cdm_core::ports::{
    CallContext, Journal, Mutation, Outcome, SiteQuery, SiteRepository, WriteBatch, WriteError,
};
use cdm_testkit::contract::{store, tokens};
use cdm_testkit::fixtures;
use futures_util::future::join_all;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use super::support::TestEnv;

async fn open(env: &TestEnv, worker: &str) -> EmbeddedStore {
    let presence = LivenessLock::open(&env.dir.path().join("workers"), &WorkerId::new(worker)).unwrap();
    let file = File::open(&env.dir.path().join("cdm.db")).await.unwrap();
    EmbeddedStore::open(file, Arc::new(env.clock), presence).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_fulfills_its_contract() {
    let env = TestEnv::new().await;
    store::suite(&open(&env, "one").await, &env.cx()).await;
}

#[tokio::test]
async fn the_token_store_fulfills_its_contract() {
    let env = TestEnv::new().await;
    let kept = EmbeddedTokens::open(env.file.clone()).await.unwrap();
    tokens::suite(&kept, &env.cx()).await;
    tokens::suite(&cdm_testkit::fakes::FakeTokens::default(), &env.cx()).await;
}

#[tokio::test]
async fn a_reopened_file_has_all_records() {
    let env = TestEnv::new().await;
    let before = open(&env, "one").await;
    store::creation_claims_hostnames(&before, &env.cx()).await;
    let sites = before.sites(&SiteQuery::default(), None, 10).await.unwrap();
    assert!(!sites.items.is_empty());
    let after = open(&env, "two").await;
    assert_eq!(after.sites(&SiteQuery::default(), None, 10).await.unwrap(), sites);
}

/// Executes a statement directly on the file, without CDM.
async fn change(path: &std::path::Path, statement: &'static str) {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let mut on = options.connect().await.expect("a connection");
    sqlx::raw_sql(statement).execute(&mut on).await.expect("the statement succeeds");
    on.close().await.expect("closed");
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_rejected_unchanged() {
    let env = TestEnv::new().await;
    env.file.close().await;
    let path = env.dir.path().join("cdm.db");
    change(&path, "PRAGMA user_version = 99").await;
    for _ in 0..2 {
        let refused = File::open(&path).await.expect_err("the file has a newer version");
        assert!(matches!(refused, OpenError::Newer { schema_version: 99, .. }), "{refused}");
        assert!(
            refused.to_string().contains("start the newer version again, or restore the backup"),
            "{refused}"
        );
    }
    change(&path, "PRAGMA user_version = 1").await;
    File::open(&path).await.expect("its own version");
}

#[tokio::test]
async fn a_file_of_another_program_is_rejected_unchanged() {
    let dir = tempfile::tempdir().expect("a directory");
    for statement in
        ["CREATE TABLE bookmarks (url TEXT)", "PRAGMA application_id = 252006674", "PRAGMA user_version = 1"]
    {
        let path = dir.path().join("other.db");
        drop(std::fs::remove_file(&path));
        change(&path, statement).await;
        let before = std::fs::read(&path).expect("a file");
        let refused = File::open(&path).await.expect_err("the file belongs to another program");
        assert!(matches!(refused, OpenError::Foreign { .. }), "{statement}: {refused}");
        assert!(std::fs::read(&path).expect("a file") == before, "{statement}");
        assert!(!dir.path().join("other.db-wal").exists(), "{statement}");
    }
}

/// If the database file is missing or empty next to other data of a fleet, the store does not start as a new fleet.
#[tokio::test]
async fn a_lost_file_does_not_start_as_an_empty_fleet() {
    for leftover in ["key", "databases/site_1.sqlite", "objects/sites/1/a"] {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, leftover_path) = (dir.path().join("cdm.db"), dir.path().join(leftover));
        std::fs::create_dir_all(leftover_path.parent().expect("a folder")).expect("folders");
        std::fs::write(&leftover_path, [7; 32]).expect("a file");
        let refused = File::open(&path).await.expect_err("the file is gone");
        assert!(matches!(refused, OpenError::Lost { .. }), "{leftover}: {refused}");
        assert!(refused.to_string().contains("restore the data directory from a backup"), "{refused}");
        assert!(!path.exists(), "no new database file is created");
        std::fs::write(&path, "").expect("an empty file");
        let refused = File::open(&path).await.expect_err("the file is empty");
        assert!(matches!(refused, OpenError::Lost { .. }), "{leftover}: {refused}");
    }
    let dir = tempfile::tempdir().expect("a directory");
    for folder in ["databases", "objects", "workers"] {
        std::fs::create_dir(dir.path().join(folder)).expect("a folder");
    }
    File::open(&dir.path().join("cdm.db")).await.expect("empty folders contain no data of a fleet");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_handles_that_create_the_same_site_one_wins() {
    let env = TestEnv::new().await;
    let (one, two) = (open(&env, "one").await, open(&env, "two").await);
    let cx = env.cx();
    tokio::join!(
        store::concurrent_creations_have_one_winner(&one, &cx),
        store::concurrent_creations_have_one_winner(&two, &cx),
    );
}

#[tokio::test]
async fn a_dead_worker_is_reported_at_once_and_removed_when_the_next_worker_stops() {
    let env = TestEnv::new().await;
    let (one, two) = (WorkerId::new("one"), WorkerId::new("two"));
    let (first, second) = (open(&env, "one").await, open(&env, "two").await);
    let _ = first.heartbeat(&env.cx().call(), &one, Some(1)).await;
    let _ = second.heartbeat(&env.cx().call(), &two, Some(1)).await;
    let ended = async || -> Vec<(String, bool)> {
        let heartbeats = second.heartbeats().await.unwrap();
        heartbeats.iter().map(|beat| (beat.worker.to_string(), beat.ended)).collect()
    };
    assert_eq!(ended().await, [("one".to_owned(), false), ("two".to_owned(), false)]);
    // Dropping the store releases its lock, as the death of its process does.
    drop(first);
    assert_eq!(ended().await, [("one".to_owned(), true), ("two".to_owned(), false)]);
    let _ = second.heartbeat(&env.cx().call(), &two, None).await;
    assert_eq!(ended().await, []);
    assert_eq!(std::fs::read_dir(env.dir.path().join("workers")).unwrap().count(), 0);
}

/// Concurrent changes share few commits, and each caller gets the outcome of its own change.
#[tokio::test(flavor = "multi_thread")]
async fn changes_in_one_commit_succeed_or_fail_individually() {
    let env = TestEnv::new().await;
    let store = open(&env, "one").await;
    let sites: Vec<_> = (0..100).map(|n| fixtures::site(&format!("s{n}"))).collect();
    let batch = |site: &Site| WriteBatch::of(vec![Mutation::CreateSite(Box::new(site.clone()))]);
    let late = CallContext { deadline: MonotonicTime::default(), ..env.cx().call() };
    // Each site twice.
    let outcomes = join_all(sites.iter().chain(&sites).map(|site| {
        let (call, batch, store) = (env.cx().call(), batch(site), &store);
        async move { store.write(&call, &batch).await }
    }));
    let (outcomes, refused) = tokio::join!(outcomes, store.allocate_ids(&late, 1));
    let count =
        |wanted: fn(&Outcome<(), WriteError>) -> bool| outcomes.iter().filter(|it| wanted(it)).count();
    assert_eq!(count(|outcome| matches!(outcome, Outcome::Applied(()))), 100);
    assert_eq!(count(|outcome| matches!(outcome, Outcome::NotApplied(WriteError::Conflict(_)))), 100);
    assert!(matches!(refused, Outcome::NotApplied(WriteError::Store(_))), "{refused:?}");
    assert_eq!(store.allocate_ids(&env.cx().call(), 1).await, Outcome::Applied(1), "no number was drawn");
    assert_eq!(store.count(&SiteQuery::default()).await, Ok(100));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_call_has_no_side_effects() {
    let env = TestEnv::new().await;
    let store = open(&env, "one").await;
    let call = env.cx().call();
    let mut pending_call = Box::pin(store.allocate_ids(&call, 1));
    assert!(futures_util::poll!(&mut pending_call).is_pending(), "nothing is committed within one poll");
    drop(pending_call);
    let Outcome::Applied(first) = store.allocate_ids(&env.cx().call(), 1).await else {
        panic!("no number allocated")
    };
    assert!(first <= 2, "{first}");
}
