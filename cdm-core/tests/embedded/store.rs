//! The store in a file: the contract, and what becomes of it when a process ends.

#![expect(clippy::disallowed_methods, reason = "files that are lost, or another program's, are made here")]

use std::sync::Arc;

use cdm_core::adapters::embedded::{EmbeddedStore, EmbeddedTokens, File, OpenError, Presence};
use cdm_core::domain::{MonotonicTime, Site, WorkerId};
use cdm_core::ports::{
    CallContext, Journal, Mutation, Outcome, SiteQuery, SiteRepository, WriteBatch, WriteError,
};
use cdm_testkit::build;
use cdm_testkit::contract::{store, tokens};
use futures_util::future::join_all;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use super::support::Bench;

async fn open(bench: &Bench, worker: &str) -> EmbeddedStore {
    let presence = Presence::open(&bench.dir.path().join("workers"), &WorkerId::new(worker)).unwrap();
    let file = File::open(&bench.dir.path().join("cdm.db")).await.unwrap();
    EmbeddedStore::open(file, Arc::new(bench.clock), presence).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_keeps_every_promise_of_a_store() {
    let bench = Bench::new().await;
    store::suite(&open(&bench, "one").await, &bench.cx()).await;
}

#[tokio::test]
async fn tokens_keep_their_promises() {
    let bench = Bench::new().await;
    let kept = EmbeddedTokens::open(bench.file.clone()).await.unwrap();
    tokens::suite(&kept, &bench.cx()).await;
    tokens::suite(&cdm_testkit::fakes::FakeTokens::default(), &bench.cx()).await;
}

#[tokio::test]
async fn a_reopened_file_has_everything() {
    let bench = Bench::new().await;
    let before = open(&bench, "one").await;
    store::creation_claims_hostnames(&before, &bench.cx()).await;
    let sites = before.sites(&SiteQuery::default(), None, 10).await.unwrap();
    assert!(!sites.items.is_empty());
    let after = open(&bench, "two").await;
    assert_eq!(after.sites(&SiteQuery::default(), None, 10).await.unwrap(), sites);
}

/// Runs a statement on the file, past everything of CDM.
async fn change(path: &std::path::Path, statement: &'static str) {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let mut on = options.connect().await.expect("a connection");
    sqlx::raw_sql(statement).execute(&mut on).await.expect("it is done");
    on.close().await.expect("closed");
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_refused_and_left_alone() {
    let bench = Bench::new().await;
    bench.file.close().await;
    let path = bench.dir.path().join("cdm.db");
    change(&path, "PRAGMA user_version = 99").await;
    for _ in 0..2 {
        let refused = File::open(&path).await.expect_err("it is newer");
        assert!(matches!(refused, OpenError::Newer { edition: 99, .. }), "{refused}");
        assert!(refused.to_string().contains("start that version again, or restore the backup"), "{refused}");
    }
    change(&path, "PRAGMA user_version = 1").await;
    File::open(&path).await.expect("its own version");
}

#[tokio::test]
async fn a_file_of_another_program_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    for statement in
        ["CREATE TABLE bookmarks (url TEXT)", "PRAGMA application_id = 252006674", "PRAGMA user_version = 1"]
    {
        let path = dir.path().join("other.db");
        drop(std::fs::remove_file(&path));
        change(&path, statement).await;
        let before = std::fs::read(&path).expect("a file");
        let refused = File::open(&path).await.expect_err("it is another's");
        assert!(matches!(refused, OpenError::Foreign { .. }), "{statement}: {refused}");
        assert!(std::fs::read(&path).expect("a file") == before, "{statement}");
        assert!(!dir.path().join("other.db-wal").exists(), "{statement}");
    }
}

/// A file that is missing or empty beside what a fleet has left is no new fleet.
#[tokio::test]
async fn a_lost_file_does_not_start_as_an_empty_fleet() {
    for left in ["key", "databases/site_1.sqlite", "objects/sites/1/a"] {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, beside) = (dir.path().join("cdm.db"), dir.path().join(left));
        std::fs::create_dir_all(beside.parent().expect("a folder")).expect("folders");
        std::fs::write(&beside, [7; 32]).expect("a file");
        let refused = File::open(&path).await.expect_err("the file is gone");
        assert!(matches!(refused, OpenError::Lost { .. }), "{left}: {refused}");
        assert!(refused.to_string().contains("restore the data directory from a backup"), "{refused}");
        assert!(!path.exists(), "nothing is left that could be taken for the file");
        std::fs::write(&path, "").expect("an empty file");
        let refused = File::open(&path).await.expect_err("the file is empty");
        assert!(matches!(refused, OpenError::Lost { .. }), "{left}: {refused}");
    }
    let dir = tempfile::tempdir().expect("a directory");
    for folder in ["databases", "objects", "workers"] {
        std::fs::create_dir(dir.path().join(folder)).expect("a folder");
    }
    File::open(&dir.path().join("cdm.db")).await.expect("empty folders are nobody's");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_handles_that_create_one_site_one_wins() {
    let bench = Bench::new().await;
    let (one, two) = (open(&bench, "one").await, open(&bench, "two").await);
    let cx = bench.cx();
    tokio::join!(
        store::concurrent_creations_have_one_winner(&one, &cx),
        store::concurrent_creations_have_one_winner(&two, &cx),
    );
}

#[tokio::test]
async fn a_worker_whose_process_has_ended_is_known_at_once_and_forgotten_with_the_next_that_stops() {
    let bench = Bench::new().await;
    let (one, two) = (WorkerId::new("one"), WorkerId::new("two"));
    let (first, second) = (open(&bench, "one").await, open(&bench, "two").await);
    let _ = first.heartbeat(&bench.cx().call(), &one, Some(1)).await;
    let _ = second.heartbeat(&bench.cx().call(), &two, Some(1)).await;
    let ended = async || -> Vec<(String, bool)> {
        let heartbeats = second.heartbeats().await.unwrap();
        heartbeats.iter().map(|beat| (beat.worker.to_string(), beat.ended)).collect()
    };
    assert_eq!(ended().await, [("one".to_owned(), false), ("two".to_owned(), false)]);
    // The lock goes with its file, as it does when a process is killed.
    drop(first);
    assert_eq!(ended().await, [("one".to_owned(), true), ("two".to_owned(), false)]);
    let _ = second.heartbeat(&bench.cx().call(), &two, None).await;
    assert_eq!(ended().await, []);
    assert_eq!(std::fs::read_dir(bench.dir.path().join("workers")).unwrap().count(), 0);
}

/// What many ask for at once comes under few commits; each of them is answered for itself.
#[tokio::test(flavor = "multi_thread")]
async fn changes_under_one_commit_stand_or_fall_alone() {
    let bench = Bench::new().await;
    let store = open(&bench, "one").await;
    let sites: Vec<_> = (0..100).map(|n| build::site(&format!("s{n}"))).collect();
    let batch = |site: &Site| WriteBatch::of(vec![Mutation::CreateSite(Box::new(site.clone()))]);
    let late = CallContext { deadline: MonotonicTime::default(), ..bench.cx().call() };
    // Each site twice.
    let answers = join_all(sites.iter().chain(&sites).map(|site| {
        let (call, batch, store) = (bench.cx().call(), batch(site), &store);
        async move { store.write(&call, &batch).await }
    }));
    let (answers, refused) = tokio::join!(answers, store.allocate_ids(&late, 1));
    let count = |wanted: fn(&Outcome<(), WriteError>) -> bool| answers.iter().filter(|it| wanted(it)).count();
    assert_eq!(count(|answer| matches!(answer, Outcome::Applied(()))), 100);
    assert_eq!(count(|answer| matches!(answer, Outcome::NotApplied(WriteError::Conflict(_)))), 100);
    assert!(matches!(refused, Outcome::NotApplied(WriteError::Store(_))), "{refused:?}");
    assert_eq!(store.allocate_ids(&bench.cx().call(), 1).await, Outcome::Applied(1), "no number was drawn");
    assert_eq!(store.count(&SiteQuery::default()).await, Ok(100));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_does_no_harm() {
    let bench = Bench::new().await;
    let store = open(&bench, "one").await;
    let call = bench.cx().call();
    let mut asked = Box::pin(store.allocate_ids(&call, 1));
    assert!(futures_util::poll!(&mut asked).is_pending(), "nothing is committed within a poll");
    drop(asked);
    let Outcome::Applied(first) = store.allocate_ids(&bench.cx().call(), 1).await else {
        panic!("no number")
    };
    assert!(first <= 2, "{first}");
}
