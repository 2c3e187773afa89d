//! Stored data of earlier versions is read, shown as it was, and resumed.
//!
//! `data/<version>` has what that version wrote: `embedded` is a data directory, `dynamodb` one whose records are in a
//! table instead, with the table's items. Both hold operations of every kind of a site in every status, deploys and
//! selects, and a rollout whose worker died in its middle. `answers.json` beside them is what the API of that version
//! answered: later versions may add fields to an answer, and change none.
//!
//! `CDM_MAKE_STORED=<directory>` makes such data anew with the version at hand, `tests/parts` with the table, too.

#[cfg(feature = "cloud")]
mod dynamodb;
mod make;
#[path = "../../../cdm-core/tests/parts/mod.rs"]
#[cfg(feature = "cloud")]
mod parts;
mod resume;
mod stage;

use std::path::{Path, PathBuf};

/// The versions whose data is kept.
const VERSIONS: [&str; 1] = ["147c3c5"];

/// Where the data of a version lies.
fn data(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stored/data").join(version)
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded_data_is_read_and_resumed() {
    for version in VERSIONS {
        let stored = data(version).join("embedded");
        let dir = tempfile::tempdir().expect("a directory");
        stage::copy(&stored.join("data"), &dir.path().join("data"));
        let stage = stage::Stage::open(dir, "").await;
        resume::check(stage, &stored).await;
    }
}

/// Makes the data of this version where `CDM_MAKE_STORED` says, and is nothing to anybody else.
#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, reason = "where stored data is made comes from the environment")]
async fn make_stored_data() {
    let Ok(to) = std::env::var("CDM_MAKE_STORED") else { return };
    make::embedded(&Path::new(&to).join("embedded")).await;
    #[cfg(feature = "cloud")]
    dynamodb::make(&Path::new(&to).join("dynamodb")).await;
}
