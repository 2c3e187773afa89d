//! Records in a table: made on, and put back into, the DynamoDB that `tests/parts` starts.

use std::path::{Path, PathBuf};
use std::process::Command;

use cdm_core::adapters::OsIds;
use cdm_core::ports::Entropy;
use cdm_testkit::backends;
use futures_util::StreamExt;
use tempfile::TempDir;

use super::stage::Stage;
use super::{VERSIONS_WITH_PEOPLE, keys, make, resume, scenes, stage};

/// Scenes that are resumed at once. Each one waits for the leases of its workers to expire.
const AT_ONCE: usize = 16;

/// A new table on a server.
struct Table {
    endpoint: String,
    python: String,
    name: String,
}

impl Table {
    /// `None` where `tests/parts` did not start a server.
    fn new() -> Option<Self> {
        let endpoint = backends::address("CDM_TEST_DYNOXIDE")?;
        let python = backends::address("CDM_TEST_PYTHON")?;
        let name = format!("cdm-stored-{:016x}", OsIds::new().expect("randomness").write().0);
        Some(Self { endpoint, python, name })
    }

    fn configuration(&self) -> String {
        let Self { endpoint, name, .. } = self;
        format!("table = '{name}'\n[backends]\nstore = 'cloud'\n[aws]\nendpoint = '{endpoint}'\n")
    }

    /// A process on a data directory whose records are in this table.
    async fn filled(&self, dir: TempDir) -> Stage {
        let items = dir.path().join("items.json");
        let stage = Stage::open(dir, &self.configuration()).await;
        stage.process.bootstrap().await.expect("a table");
        self.items("load", &items);
        stage
    }

    /// Writes the items to a file, or a file's items into the table.
    fn items(&self, verb: &str, file: &Path) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stored/table.py");
        let mut command = Command::new(&self.python);
        command.arg(script).args([verb, &self.endpoint, &self.name]).arg(file);
        let run = command.output().expect("python runs");
        assert!(run.status.success(), "{verb}: {}", String::from_utf8_lossy(&run.stderr));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn table_is_read_and_resumed() {
    if Table::new().is_none() {
        return;
    }
    let all = scenes("dynamodb").into_iter().map(|stored| async move {
        let table = Table::new().expect("the table's server");
        resume::check(table.filled(stage::unpack(&stored)).await, &stored).await;
    });
    futures_util::stream::iter(all).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idempotency_records_of_table_are_not_replayed() {
    let Some(table) = Table::new() else { return };
    let people: Vec<PathBuf> =
        scenes("dynamodb").into_iter().filter(|scene| scene.ends_with("people")).collect();
    assert_eq!(people.len(), VERSIONS_WITH_PEOPLE, "scenes with idempotency records");
    for stored in people {
        let dir = stage::unpack(&stored);
        keys::renew_items(&dir.path().join("items.json"));
        keys::check(table.filled(dir).await, &stored).await;
    }
}

/// Makes a scene in a data directory whose records are in a table, where there is a server.
pub(crate) async fn make(name: &'static str, to: PathBuf) {
    let Some(table) = Table::new() else { return };
    let to = to.join("dynamodb").join(name);
    let stage = Stage::open(tempfile::tempdir().expect("a directory"), &table.configuration()).await;
    stage.process.bootstrap().await.expect("a table");
    let (stage, secrets) = make::play(name, stage).await;
    let answers = make::answers(&stage).await;
    let dir = make::keep(stage, &answers, &secrets, &to).await;
    table.items("dump", &dir.path().join("items.json"));
    stage::pack(dir.path(), &to);
    let copy = Table::new().expect("the table's server").filled(stage::unpack(&to)).await;
    make::ends(copy, &answers, &to).await;
}
