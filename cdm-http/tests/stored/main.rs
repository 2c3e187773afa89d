//! Data that earlier versions stored is read, answered as it was, and resumed.
//!
//! `data/<version>/<backend>` has the data of a version: of `embedded` a data directory, of `dynamodb` a data directory
//! and the items of the table that has the records. Each directory there is one scene, a state in which a version can
//! leave a platform: operations of every kind in every status, rollouts in every phase, and users, tokens, webhooks and
//! freezes. The oldest version has one scene, in the directory of the backend itself, and its data is not packed.
//!
//! A scene has the data in `stored.tar.gz`, and files next to it: `answers.json` is what the API of that version answered,
//! `ends.json` the ends of its operations, rollouts and sites once that version had resumed them, and `secrets.json`, where
//! there is one, the tokens and passwords that were made. Later versions may add fields to an answer, and change none.
//!
//! `CDM_MAKE_STORED=<directory>` makes such data with the current version; under `tests/parts` it makes the table's, too.

#[cfg(feature = "cloud")]
mod dynamodb;
mod keys;
mod make;
mod people;
mod resume;
mod rollouts;
mod services;
mod sites;
mod stage;

use std::path::{Path, PathBuf};

use cdm_testkit::backends;
use futures_util::StreamExt;

/// The versions whose data is kept, each with the number of its scenes on a backend.
const VERSIONS: [(&str, usize); 2] = [("147c3c5", 1), ("6c45bd0", 27)];

/// How many of these versions have a scene with idempotency records.
const VERSIONS_WITH_PEOPLE: usize = 1;

/// Scenes that are made, or resumed, at once.
const AT_ONCE: usize = 8;

/// The scenes of all versions on a backend.
fn scenes(backend: &str) -> Vec<PathBuf> {
    let mut scenes = Vec::new();
    for (version, number) in VERSIONS {
        let of_version = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stored/data").join(version);
        let directory = of_version.join(backend);
        let found: Vec<PathBuf> = if directory.join("answers.json").is_file() {
            vec![directory.clone()]
        } else {
            let entries = std::fs::read_dir(&directory).expect("scenes");
            entries.map(|entry| entry.expect("an entry").path()).collect()
        };
        assert_eq!(found.len(), number, "{}", directory.display());
        scenes.extend(found);
    }
    scenes
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded_data_is_read_and_resumed() {
    let all = scenes("embedded").into_iter().map(|stored| async move {
        resume::check(stage::Stage::open(stage::unpack(&stored), "").await, &stored).await;
    });
    futures_util::stream::iter(all).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded_idempotency_records_are_not_replayed() {
    let people: Vec<PathBuf> =
        scenes("embedded").into_iter().filter(|scene| scene.ends_with("people")).collect();
    assert_eq!(people.len(), VERSIONS_WITH_PEOPLE, "scenes with idempotency records");
    for stored in people {
        let dir = stage::unpack(&stored);
        keys::renew_file(&dir.path().join("data")).await;
        keys::check(stage::Stage::open(dir, "").await, &stored).await;
    }
}

/// Makes the data of the current version in the directory that `CDM_MAKE_STORED` names; without it, does nothing.
#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, reason = "the environment names the directory")]
async fn make_stored_data() {
    let Some(to) = backends::optional("CDM_MAKE_STORED") else { return };
    // A scene that is named is made alone.
    let only = std::env::var("CDM_MAKE_SCENE").ok();
    let wanted = |name: &&&str| only.as_ref().is_none_or(|only| only == **name);
    let permits = std::sync::Arc::new(tokio::sync::Semaphore::new(AT_ONCE));
    let mut scenes = Vec::new();
    for name in make::SCENES.iter().filter(wanted) {
        let (to, permits) = (PathBuf::from(&to), std::sync::Arc::clone(&permits));
        let scene = async move {
            let _permit = permits.acquire().await.expect("a permit");
            make::embedded(name, to.clone()).await;
            #[cfg(feature = "cloud")]
            dynamodb::make(name, to).await;
        };
        scenes.push((name, tokio::spawn(scene)));
    }
    let mut failed: Vec<&str> = Vec::new();
    for (name, scene) in &mut scenes {
        if scene.await.is_err() {
            failed.push(*name);
        }
    }
    assert_eq!(failed, Vec::<&str>::new(), "scenes that were not made");
}
