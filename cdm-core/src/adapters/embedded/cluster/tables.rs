//! The tables of the local cluster: desired state, last observed state, and the statements that several modules need.

use sqlx::{Row, SqliteConnection};

use super::encoding;
use crate::domain::{Color, Digest, Fence, Hostname, Template};
use crate::ports::{PodFailure, ServiceView};

/// Every table of the local cluster. Fences are stored as texts, because their numbers use all 64 bits.
pub(super) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS cluster_canary (
    one INTEGER PRIMARY KEY CHECK (one = 1), selector TEXT NOT NULL, digest TEXT, version INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS cluster_services (
    selector TEXT PRIMARY KEY, digest TEXT NOT NULL, template TEXT NOT NULL, fence TEXT NOT NULL,
    generation INTEGER NOT NULL, desired INTEGER NOT NULL, rolled_out TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS cluster_status (
    selector TEXT PRIMARY KEY, boot TEXT NOT NULL, generation INTEGER NOT NULL, updated INTEGER NOT NULL,
    ready INTEGER NOT NULL, available INTEGER NOT NULL, total INTEGER NOT NULL, failure TEXT
) STRICT;
CREATE TABLE IF NOT EXISTS cluster_host (
    one INTEGER PRIMARY KEY CHECK (one = 1), boot TEXT NOT NULL, lock TEXT NOT NULL, router TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS cluster_routes (
    uid TEXT PRIMARY KEY, site TEXT NOT NULL, hostnames TEXT NOT NULL, service TEXT NOT NULL, fence TEXT NOT NULL,
    generation INTEGER NOT NULL UNIQUE
) STRICT;
CREATE TABLE IF NOT EXISTS cluster_hostnames (host TEXT PRIMARY KEY, uid TEXT) STRICT;
CREATE INDEX IF NOT EXISTS cluster_hostnames_uid ON cluster_hostnames (uid);
CREATE TABLE IF NOT EXISTS cluster_released (uid TEXT PRIMARY KEY, generation INTEGER NOT NULL UNIQUE) STRICT;
CREATE TABLE IF NOT EXISTS cluster_jobs (
    name TEXT PRIMARY KEY, uid TEXT, service TEXT NOT NULL, kind TEXT NOT NULL, running INTEGER NOT NULL,
    state TEXT NOT NULL, log TEXT NOT NULL, boot TEXT, attempts INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS cluster_jobs_uid ON cluster_jobs (uid);
CREATE INDEX IF NOT EXISTS cluster_jobs_running ON cluster_jobs (name) WHERE running = 1;
CREATE TABLE IF NOT EXISTS cluster_images (digest TEXT PRIMARY KEY, spec TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS cluster_news (thing TEXT PRIMARY KEY, number INTEGER NOT NULL UNIQUE) STRICT;
CREATE TABLE IF NOT EXISTS cluster_counts (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
";

/// The counter of templates, which makes every template different.
pub(super) const TEMPLATES: &str = "templates";
/// The counter of writes to routes.
pub(super) const ROUTES: &str = "routes";

/// The number of pods of a service.
const DESIRED: i64 = 2;

/// Returns the error of a stored text that no version of this code wrote.
pub(super) fn damaged(what: &str) -> sqlx::Error {
    sqlx::Error::Decode(format!("{what} in the tables of the local cluster is invalid").into())
}

/// Increments a counter and returns its value.
pub(super) async fn next_number(
    conn: &mut SqliteConnection,
    count: &'static str,
) -> Result<i64, sqlx::Error> {
    sqlx::query(
        "INSERT INTO cluster_counts (name, value) VALUES (?, 1)
         ON CONFLICT (name) DO UPDATE SET value = value + 1 RETURNING value",
    )
    .bind(count)
    .fetch_one(conn)
    .await?
    .try_get(0)
}

/// Returns the value of a counter.
pub(super) async fn count(conn: &mut SqliteConnection, count: &'static str) -> Result<i64, sqlx::Error> {
    let row = sqlx::query("SELECT value FROM cluster_counts WHERE name = ?").bind(count);
    row.fetch_optional(conn).await?.map_or(Ok(0), |row| row.try_get(0))
}

/// Writes the initial state if the tables are empty: blue is the canary, and both services run one image.
pub(super) async fn initialize(conn: &mut SqliteConnection, image: Digest) -> Result<(), sqlx::Error> {
    let there = sqlx::query("SELECT 1 FROM cluster_services LIMIT 1").fetch_optional(&mut *conn).await?;
    if there.is_some() {
        return Ok(());
    }
    for color in Color::ALL {
        let template = encoding::template(image, next_number(conn, TEMPLATES).await?);
        sqlx::query(
            "INSERT INTO cluster_services (selector, digest, template, fence, generation, desired, rolled_out)
             VALUES (?1, ?2, ?3, ?4, 1, ?5, ?3)",
        )
        .bind(color.as_str())
        .bind(image.to_string())
        .bind(template)
        .bind(Fence::default().to_string())
        .bind(DESIRED)
        .execute(&mut *conn)
        .await?;
    }
    sqlx::query("INSERT INTO cluster_canary (one, selector, digest, version) VALUES (1, ?, ?, 1)")
        .bind(Color::Blue.as_str())
        .bind(image.to_string())
        .execute(conn)
        .await
        .map(drop)
}

/// Reserves a hostname for another owner; returns `false` if the route of a site has it.
pub(super) async fn reserve(conn: &mut SqliteConnection, host: &Hostname) -> Result<bool, sqlx::Error> {
    sqlx::query("INSERT INTO cluster_hostnames (host, uid) VALUES (?, NULL) ON CONFLICT DO NOTHING")
        .bind(host.as_str())
        .execute(&mut *conn)
        .await?;
    let row = sqlx::query("SELECT uid IS NULL FROM cluster_hostnames WHERE host = ?").bind(host.as_str());
    row.fetch_one(conn).await?.try_get(0)
}

/// The last host, as it registered itself.
#[derive(Clone, Debug)]
pub(super) struct Hosted {
    pub(super) boot: String,
    pub(super) lock: String,
    pub(super) router: String,
}

pub(super) async fn hosted(conn: &mut SqliteConnection) -> Result<Option<Hosted>, sqlx::Error> {
    let row = sqlx::query("SELECT boot, lock, router FROM cluster_host").fetch_optional(conn).await?;
    row.map(|row| Ok(Hosted { boot: row.try_get(0)?, lock: row.try_get(1)?, router: row.try_get(2)? }))
        .transpose()
}

/// Registers the process that hosts the cluster, in place of the one before it.
pub(super) async fn set_hosted(conn: &mut SqliteConnection, hosted: &Hosted) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT OR REPLACE INTO cluster_host (one, boot, lock, router) VALUES (1, ?, ?, ?)")
        .bind(&hosted.boot)
        .bind(&hosted.lock)
        .bind(&hosted.router)
        .execute(conn)
        .await
        .map(drop)
}

/// The desired state of a service.
#[derive(Clone, Debug)]
pub(super) struct ServiceSpec {
    pub(super) digest: Digest,
    pub(super) template: String,
    pub(super) generation: i64,
    pub(super) desired: usize,
    /// The last template whose pods were all available.
    pub(super) rolled_out: String,
}

pub(super) async fn spec(conn: &mut SqliteConnection, color: Color) -> Result<ServiceSpec, sqlx::Error> {
    let row = sqlx::query(
        "SELECT digest, template, generation, desired, rolled_out FROM cluster_services WHERE selector = ?",
    )
    .bind(color.as_str())
    .fetch_one(conn)
    .await?;
    let digest: String = row.try_get(0)?;
    Ok(ServiceSpec {
        digest: Digest::parse(&digest).map_err(|_| damaged("a digest"))?,
        template: row.try_get(1)?,
        generation: row.try_get(2)?,
        desired: usize::try_from(row.try_get::<i64, _>(3)?).unwrap_or_default(),
        rolled_out: row.try_get(4)?,
    })
}

/// The observed state of a service's pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServiceStatus {
    pub(super) generation: i64,
    pub(super) updated: usize,
    pub(super) ready: usize,
    pub(super) available: usize,
    pub(super) total: usize,
    pub(super) failure: Option<PodFailure>,
}

/// Stores what was observed under `boot`, unless another boot hosts by now.
pub(super) async fn store_status(
    conn: &mut SqliteConnection,
    color: Color,
    boot: &str,
    status: &ServiceStatus,
) -> Result<(), sqlx::Error> {
    let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    sqlx::query(
        "INSERT OR REPLACE INTO cluster_status
         (selector, boot, generation, updated, ready, available, total, failure)
         SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8 WHERE EXISTS (SELECT 1 FROM cluster_host WHERE boot = ?2)",
    )
    .bind(color.as_str())
    .bind(boot)
    .bind(status.generation)
    .bind(number(status.updated))
    .bind(number(status.ready))
    .bind(number(status.available))
    .bind(number(status.total))
    .bind(status.failure.as_ref().map(encoding::failure))
    .execute(conn)
    .await
    .map(drop)
}

/// Returns the state of a service, if `live` is the boot ID of the current host.
pub(super) async fn view(
    conn: &mut SqliteConnection,
    color: Color,
    live: Option<&str>,
) -> Result<ServiceView, sqlx::Error> {
    let row = sqlx::query(
        "SELECT s.digest, s.template, s.fence, s.desired, t.boot IS ?2 AS here,
                t.boot IS ?2 AND t.generation = s.generation AS observed,
                t.updated, t.ready, t.available, t.total, t.failure
         FROM cluster_services s LEFT JOIN cluster_status t USING (selector) WHERE selector = ?1",
    )
    .bind(color.as_str())
    .bind(live.unwrap_or_default())
    .fetch_one(conn)
    .await?;
    let digest: String = row.try_get("digest")?;
    let template: String = row.try_get("template")?;
    let fence: String = row.try_get("fence")?;
    let here: bool = row.try_get("here")?;
    let observed: bool = row.try_get::<Option<bool>, _>("observed")?.unwrap_or_default();
    let number = |column: &str, counts: bool| -> Result<u32, sqlx::Error> {
        let number: Option<i64> = row.try_get(column)?;
        Ok(number.filter(|_| counts).and_then(|number| u32::try_from(number).ok()).unwrap_or_default())
    };
    let failure: Option<String> = row.try_get("failure")?;
    Ok(ServiceView {
        color,
        digest: Some(Digest::parse(&digest).map_err(|_| damaged("a digest"))?),
        template: Some(Template::new(&template)),
        fence: Fence::parse(&fence).ok_or_else(|| damaged("a fence"))?,
        desired: number("desired", true)?,
        updated: number("updated", observed)?,
        ready: number("ready", here)?,
        available: number("available", observed)?,
        total: number("total", here)?,
        observed,
        failure: failure
            .filter(|_| observed)
            .map(|text| encoding::parse_failure(&text).ok_or_else(|| damaged("a failure")))
            .transpose()?,
    })
}

/// Stores the template whose pods were all available.
pub(super) async fn set_rolled_out(
    conn: &mut SqliteConnection,
    color: Color,
    template: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE cluster_services SET rolled_out = ? WHERE selector = ?")
        .bind(template)
        .bind(color.as_str())
        .execute(conn)
        .await
        .map(drop)
}
