//! Records in a table: made on, and put back into, the DynamoDB that `tests/parts` starts.

use std::path::Path;
use std::process::Command;

use cdm_core::adapters::OsIds;
use cdm_core::ports::Entropy;

use super::stage::Stage;
use super::{VERSIONS, data, make, parts, resume, stage};

/// A table of its own on a server.
struct Table {
    endpoint: String,
    python: String,
    name: String,
}

impl Table {
    /// Nothing where the parts were not started.
    fn new() -> Option<Self> {
        let endpoint = parts::address("CDM_TEST_DYNOXIDE")?;
        let python = parts::address("CDM_TEST_PYTHON")?;
        let name = format!("cdm-stored-{:016x}", OsIds::new().expect("chance").write().0);
        Some(Self { endpoint, python, name })
    }

    fn configuration(&self) -> String {
        let Self { endpoint, name, .. } = self;
        format!("table = '{name}'\n[backends]\nstore = 'cloud'\n[aws]\nendpoint = '{endpoint}'\n")
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
async fn a_table_is_read_and_resumed() {
    let Some(table) = Table::new() else { return };
    for version in VERSIONS {
        let stored = data(version).join("dynamodb");
        let dir = tempfile::tempdir().expect("a directory");
        stage::copy(&stored.join("data"), &dir.path().join("data"));
        let stage = Stage::open(dir, &table.configuration()).await;
        stage.process.bootstrap().await.expect("a table");
        table.items("load", &stored.join("items.json"));
        resume::check(stage, &stored).await;
    }
}

/// A directory whose records are in a table.
pub(crate) async fn make(to: &Path) {
    let table = Table::new().expect("the table's server");
    let stage = Stage::open(tempfile::tempdir().expect("a directory"), &table.configuration()).await;
    stage.process.bootstrap().await.expect("a table");
    let answers = make::story(&stage).await;
    make::keep(stage, &answers, to).await;
    table.items("dump", &to.join("items.json"));
}
