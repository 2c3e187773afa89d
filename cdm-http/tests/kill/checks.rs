//! The final state once all work is at rest, read through the server and in each backend.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;

use cdm_core::adapters::SystemClock;
use cdm_core::adapters::embedded::{EmbeddedSecrets, File};
use cdm_core::domain::{SecretKind, SecretName, Uid};
use cdm_core::ports::{Journal, SecretStore, StoredSecret};
use secrecy::ExposeSecret;
use serde_json::Value;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, Connection, Row};

use super::clients::{SharedState, ends};
use cdm_testkit::server::{ADMIN, Backends, Server, files};

/// The jobs of an active site.
const JOBS: [&str; 3] = ["install", "activate-theme", "flush-caches"];

/// The result of the checks.
#[derive(Debug)]
pub(crate) struct FinalState {
    pub(crate) sites: usize,
    pub(crate) operations: usize,
    /// Writes of routes in addition to those of a run without kills.
    pub(crate) route_writes: usize,
    /// Runs of the jobs of active sites in addition to one each.
    pub(crate) job_runs: usize,
    /// Installations that a kill interrupted, and whose databases were recreated.
    pub(crate) interrupted: usize,
}

/// Stops the server, and checks that everything is as requested and nothing else exists.
pub(crate) async fn check(server: &mut Server, dir: &Path, shared: &SharedState) -> FinalState {
    let numbers = 0..shared.begun();
    let terminated: BTreeSet<String> =
        numbers.clone().filter(|number| ends(*number)).map(|number| format!("s{number}")).collect();
    let ids: BTreeSet<String> = numbers.map(|number| format!("s{number}")).collect();
    let live = ids.difference(&terminated).cloned().collect();
    let uids = check_active_sites(server, &live).await;
    let operations = check_operations(server, &ids, &terminated).await;
    for id in &ids {
        let page = server.page(&format!("{id}.example.com")).await;
        if terminated.contains(id) {
            assert_eq!(page.status(), 404, "{id}");
        } else {
            assert_eq!(
                (page.status().as_u16(), &page.headers()["x-cdm-service"]),
                (200, &"green".parse().unwrap())
            );
        }
    }
    assert_eq!(tokio::task::block_in_place(|| server.terminate()).code(), Some(0));
    let data = dir.join("data");
    check_events(&data, operations).await;
    let (route_writes, job_runs) = check_backends(&data, &uids, &ids, &terminated).await;
    for uid in &uids {
        is_installed(&data, uid).await;
    }
    let on = &mut open(&data.join("cdm.db")).await;
    let interrupted = number(on, &format!("SELECT count(*) FROM cluster_jobs WHERE {INTERRUPTED}")).await;
    FinalState { sites: ids.len(), operations, route_writes, job_runs, interrupted }
}

/// The condition of a job's row that found an interrupted installation.
const INTERRUPTED: &str = "json_extract(state, '$.cause') IS 'install_incomplete'";

/// Asserts that the site is completely installed: it has an administrator with that role, and its first post.
async fn is_installed(data: &Path, uid: &str) {
    let on = &mut open(&data.join(format!("databases/site_{uid}.sqlite"))).await;
    let roles = "SELECT user_login || ' ' || meta_value FROM usermeta WHERE meta_key = 'wp_capabilities'";
    assert_eq!(column(on, roles).await, BTreeSet::from(["admin administrator".to_owned()]), "{uid}");
    assert_eq!(
        column(on, "SELECT user_login FROM users").await,
        BTreeSet::from(["admin".to_owned()]),
        "{uid}"
    );
    assert_eq!(number(on, "SELECT count(*) FROM posts").await, 1, "{uid}");
}

/// Returns all items of a list.
async fn list(server: &Server, path: &str) -> Vec<Value> {
    let (mut items, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = server.get(&format!("{path}?limit=1000{cursor}")).await;
        items.extend(page["items"].as_array().expect("a list").iter().cloned());
        let Some(next) = page["next"].as_str() else { return items };
        cursor = format!("&cursor={next}");
    }
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no `{field}` in {value}"))
}

/// Checks the records of the active sites, and returns their uids.
async fn check_active_sites(server: &Server, live: &BTreeSet<String>) -> BTreeSet<String> {
    let sites = list(server, "/sites").await;
    for site in &sites {
        let state = (&site["state"], &site["service"], &site["routedService"], &site["operation"]);
        assert_eq!(state, (&"active".into(), &"green".into(), &"green".into(), &Value::Null), "{site}");
    }
    assert_eq!(sites.iter().map(|site| text(site, "id").to_owned()).collect::<BTreeSet<_>>(), *live);
    sites.iter().map(|site| text(site, "uid").to_owned()).collect()
}

/// Asserts that each requested operation exists once and has succeeded, and likewise its audit entry; returns their
/// number.
async fn check_operations(server: &Server, ids: &BTreeSet<String>, terminated: &BTreeSet<String>) -> usize {
    let mut wanted: BTreeSet<(String, String)> = BTreeSet::new();
    for (kind, sites) in [("create", ids), ("provision", ids), ("promote", ids), ("terminate", terminated)] {
        wanted.extend(sites.iter().map(|id| (id.clone(), kind.to_owned())));
    }
    let mut numbers = BTreeSet::new();
    let mut found = Vec::new();
    for operation in list(server, "/operations").await {
        assert_eq!(operation["status"], "succeeded", "{operation}");
        assert!(numbers.insert(operation["number"].as_u64()), "{operation}: its number is used twice");
        if let Some(site) = operation["site"].as_str() {
            found.push((site.to_owned(), text(&operation, "kind").to_owned()));
        }
    }
    let all = numbers.len();
    assert_eq!(found.len(), wanted.len(), "operations");
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), wanted);
    let mut accepted: BTreeMap<(String, String), usize> = BTreeMap::new();
    for entry in list(server, "/audit").await {
        assert_eq!(entry["outcome"], "accepted", "{entry}");
        let kind = match text(&entry, "action") {
            "site.delete" => "terminate",
            action if action.starts_with("site.") => &action["site.".len()..],
            _ => continue,
        };
        *accepted.entry((text(&entry, "target").to_owned(), kind.to_owned())).or_default() += 1;
    }
    let twice: Vec<_> = accepted.iter().filter(|(_, times)| **times != 1).collect();
    assert!(twice.is_empty(), "accepted more than once: {twice:?}");
    assert_eq!(accepted.into_keys().collect::<BTreeSet<_>>(), wanted);
    all
}

/// Asserts that the feed contains each operation once as queued and once as succeeded.
async fn check_events(data: &Path, operations: usize) {
    let store = Backends::open(data).await.store;
    let mut event_counts: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut after = None;
    loop {
        let events = store.events(after, 1_000).await.expect("events");
        for (number, event) in &events {
            after = Some(*number);
            if let Some(operation) = &event.operation
                && ["queued", "succeeded"].contains(&event.what.as_str())
            {
                *event_counts.entry((operation.to_string(), event.what.clone())).or_default() += 1;
            }
        }
        if events.is_empty() {
            break;
        }
    }
    let twice: Vec<_> = event_counts.iter().filter(|(_, times)| **times != 1).collect();
    assert!(twice.is_empty(), "recorded more than once: {twice:?}");
    assert_eq!(event_counts.len(), 2 * operations);
}

async fn open(file: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(file).create_if_missing(false);
    SqliteConnection::connect_with(&options).await.expect("the file")
}

/// Returns the texts in the first column of a query.
async fn column(on: &mut SqliteConnection, sql: &'static str) -> BTreeSet<String> {
    let rows = sqlx::query(sql).fetch_all(on).await.expect(sql);
    let all: Vec<String> = rows.iter().map(|row| row.try_get(0).expect(sql)).collect();
    let found: BTreeSet<String> = all.iter().cloned().collect();
    assert_eq!(found.len(), all.len(), "a value occurs twice: {sql}");
    found
}

async fn number(on: &mut SqliteConnection, sql: &str) -> usize {
    let row = sqlx::query(AssertSqlSafe(sql.to_owned())).fetch_one(on).await.expect(sql);
    usize::try_from(row.try_get::<i64, _>(0).expect(sql)).expect(sql)
}

fn entries(dir: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(dir).expect("a directory").flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Asserts that each backend holds the resources of the active sites, and of the terminated sites only their secrets
/// in the recovery window. Returns how many writes of routes and runs of jobs were repetitions.
async fn check_backends(
    data: &Path,
    live: &BTreeSet<String>,
    ids: &BTreeSet<String>,
    terminated: &BTreeSet<String>,
) -> (usize, usize) {
    let on = &mut open(&data.join("cdm.db")).await;
    let gone = column(on, "SELECT uid FROM cluster_released").await;
    assert_eq!(
        (gone.len(), gone.intersection(live).count()),
        (terminated.len(), 0),
        "uids of terminated sites"
    );
    let each = |uids: &BTreeSet<String>, names: &[&str]| -> BTreeSet<String> {
        uids.iter().flat_map(|uid| names.iter().map(move |name| name.replace("UID", uid))).collect()
    };
    assert_eq!(entries(&data.join("databases")), each(live, &["site_UID.sqlite"]));
    assert_eq!(entries(&data.join("objects/sites")), *live);
    let found = column(on, "SELECT name FROM secrets WHERE sealed IS NOT NULL AND until IS NULL").await;
    assert_eq!(found, each(live, &["UID/db", "UID/cms"]));
    let found = column(on, "SELECT name FROM secrets WHERE NOT (sealed IS NOT NULL AND until IS NULL)").await;
    assert_eq!(found, each(&gone, &["UID/db", "UID/cms"]));
    let recoverable = "SELECT count(*) FROM secrets WHERE sealed IS NOT NULL AND until IS NOT NULL";
    assert_eq!(number(on, recoverable).await, 2 * gone.len(), "secrets in their recovery window");
    assert_eq!(column(on, "SELECT name FROM database_users").await, each(live, &["site_UID"]));
    assert_eq!(column(on, "SELECT name FROM databases_removed").await, each(&gone, &["site_UID"]));
    assert_eq!(column(on, "SELECT uid FROM cluster_routes").await, *live);
    let there: BTreeSet<String> = ids.difference(terminated).cloned().collect();
    let hosts: BTreeSet<String> =
        there.iter().flat_map(|id| [format!("{id}.example.com"), format!("www.{id}.example.com")]).collect();
    assert_eq!(column(on, "SELECT host FROM hostnames").await, hosts);
    assert_eq!(column(on, "SELECT host FROM cluster_hostnames").await, hosts);
    assert_eq!(number(on, "SELECT count(*) FROM working").await, 0, "running operations");
    // A site has one successful job of each kind. The job is not the first of its kind only after an installation that
    // a kill interrupted.
    let mut jobs = BTreeSet::new();
    let done =
        "SELECT name FROM cluster_jobs WHERE json_extract(state, '$.cause') IS NOT 'install_incomplete'";
    for job in column(on, done).await {
        let (first, again) = job.split_once("-r").filter(|(first, _)| first.contains("-install-")).unzip();
        assert!(again.is_none_or(|number: &str| number.parse::<u32>().is_ok()), "{job}");
        let name = first.unwrap_or(&job).trim_end_matches(|character: char| character.is_ascii_digit());
        assert!(jobs.insert(name.to_owned()), "{job} is a duplicate");
    }
    let wanted = there.iter().flat_map(|id| JOBS.map(|kind| format!("{id}-{kind}-")));
    let missing: Vec<_> = wanted.filter(|job| !jobs.remove(job)).collect();
    assert!(missing.is_empty(), "missing jobs: {missing:?}");
    assert!(jobs.is_empty(), "jobs without an owner: {jobs:?}");
    let failed = format!(
        "SELECT count(*) FROM cluster_jobs \
         WHERE running OR (json_extract(state, '$.state') <> 'succeeded' AND NOT {INTERRUPTED})"
    );
    assert_eq!(number(on, &failed).await, 0, "jobs that run or have failed");
    let runs = number(on, "SELECT coalesce(sum(attempts), 0) FROM cluster_jobs WHERE uid IS NOT NULL").await;
    let writes = number(on, "SELECT value FROM cluster_counts WHERE name = 'routes'").await;
    (writes - 2 * ids.len() - gone.len(), runs - JOBS.len() * live.len())
}

/// Asserts that no generated password and no token is in the output, or unencrypted in any file of the data directory.
pub(crate) async fn no_secret_in(dir: &Path, output: &[String]) {
    let data = dir.join("data");
    let secrets = every_password(dir).await;
    let length = secrets.iter().map(String::len).min().expect("passwords");
    assert!(secrets.iter().all(|secret| secret.len() == length), "all passwords have the same length");
    let holds = |bytes: &[u8]| {
        let words = bytes.split(|byte| !(byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')));
        words.filter(|word| word.len() >= length).any(|word| {
            let mut windows = word.windows(length);
            windows.any(|window| std::str::from_utf8(window).is_ok_and(|text| secrets.contains(text)))
        })
    };
    for text in output {
        assert!(!holds(text.as_bytes()) && !text.contains(ADMIN), "a secret is in the output");
    }
    for (file, bytes) in files(&data) {
        let open = holds(&bytes) || bytes.windows(ADMIN.len()).any(|window| window == ADMIN.as_bytes());
        assert!(!open, "a secret is stored unencrypted in {}", file.display());
    }
}

/// Returns every password that was generated, including those of terminated sites: reads a copy in which no secret is
/// scheduled for deletion.
async fn every_password(dir: &Path) -> HashSet<String> {
    let copy = tempfile::TempDir::new_in(dir).expect("a directory");
    for name in ["cdm.db", "key"] {
        std::fs::copy(dir.join("data").join(name), copy.path().join(name)).expect("a copy");
    }
    let on = &mut open(&copy.path().join("cdm.db")).await;
    sqlx::query("UPDATE secrets SET until = NULL").execute(&mut *on).await.expect("a change");
    let names = column(on, "SELECT name FROM secrets").await;
    let file = File::open(&copy.path().join("cdm.db")).await.expect("the file");
    let clock = std::sync::Arc::new(SystemClock::new());
    let secrets = EmbeddedSecrets::open(file, &copy.path().join("key"), clock).await.expect("the secrets");
    let mut found = HashSet::new();
    for uid in names.iter().filter_map(|name| name.strip_suffix("/db")) {
        for kind in SecretKind::OF_SITE {
            let name = SecretName { uid: Uid::parse(uid).expect("a uid"), kind };
            let Ok(Some(StoredSecret::Value(value))) = secrets.read(&name).await else {
                panic!("{name} cannot be read")
            };
            found.insert(value.password().expose_secret().to_owned());
        }
    }
    assert_eq!(found.len(), names.len(), "a distinct password for each secret");
    found
}
