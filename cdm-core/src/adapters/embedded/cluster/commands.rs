//! The writes of callers, each in one transaction together with its checks.

use sqlx::{Row, SqliteConnection};

use super::tables::{ROUTES, TEMPLATES, damaged, next_number};
use super::{Inner, PORT, changes, encoding};
use crate::domain::{Color, Digest, Fence, JobName, Uid};
use crate::ports::{
    CallContext, CanaryVersion, Changed, ErrorKind, ImageWant, JobSpec, JobState, Outcome, PortError,
    RouteSpec,
};

/// A write with its parameters.
#[derive(Clone, Copy, Debug)]
pub(super) enum Command<'a> {
    Canary(Option<&'a CanaryVersion>, Color, Option<Digest>),
    Image(Color, Fence, &'a ImageWant),
    PutRoute(&'a RouteSpec),
    MoveRoute(Uid, Fence, Color),
    Release(Uid),
    Job(&'a JobSpec),
}

/// Why a write was not applied.
#[derive(Debug)]
enum CommandError {
    Rejected(PortError),
    Database(sqlx::Error),
}

impl From<sqlx::Error> for CommandError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl Inner {
    /// Applies a write, and updates the router before returning.
    pub(super) async fn write(&self, call: &CallContext, command: Command<'_>) -> Outcome<()> {
        tokio::select! {
            biased;
            outcome = self.write_now(call, command) => outcome,
            // The commit may still take effect.
            () = self.clock.sleep_until(call.deadline) => {
                let message = "the deadline passed before the write completed";
                Outcome::Unknown(PortError::new(PORT, ErrorKind::Unavailable, message))
            }
        }
    }

    async fn write_now(&self, call: &CallContext, command: Command<'_>) -> Outcome<()> {
        let mut tx = match self.file.begin().await {
            Ok(tx) => tx,
            Err(error) => return Outcome::NotApplied(super::unavailable(error)),
        };
        match command.apply(&mut tx, call.fence).await {
            Ok(()) => {}
            Err(CommandError::Rejected(error)) => return Outcome::NotApplied(error),
            Err(CommandError::Database(error)) => return Outcome::NotApplied(super::unavailable(error)),
        }
        if self.clock.monotonic() >= call.deadline {
            let message = "the deadline passed before the write";
            return Outcome::NotApplied(PortError::new(PORT, ErrorKind::Unavailable, message));
        }
        if let Err(error) = tx.commit().await {
            return Outcome::Unknown(super::unavailable(error));
        }
        if command.routes() && self.own_boot().is_some() {
            // The write is committed. A router that cannot update now does so at its next poll of the file.
            if let Err(error) = self.routes.reload(&self.file).await {
                tracing::warn!(%error, "the router could not load a changed route; it tries again at its next poll");
            }
        }
        self.notify();
        Outcome::Applied(())
    }
}

impl Command<'_> {
    const fn routes(self) -> bool {
        match self {
            Self::PutRoute(_) | Self::MoveRoute(..) | Self::Release(_) => true,
            Self::Canary(..) | Self::Image(..) | Self::Job(_) => false,
        }
    }

    async fn apply(self, conn: &mut SqliteConnection, fence: Fence) -> Result<(), CommandError> {
        match self {
            Self::Canary(expect, color, digest) => set_canary(conn, expect, color, digest).await,
            Self::Image(color, expect, desired) => set_image(conn, fence, color, expect, desired).await,
            Self::PutRoute(spec) => put_route(conn, fence, spec).await,
            Self::MoveRoute(uid, expect, to) => move_route(conn, fence, uid, expect, to).await,
            Self::Release(uid) => release(conn, uid).await,
            Self::Job(spec) => run_job(conn, spec).await,
        }
    }
}

async fn set_canary(
    conn: &mut SqliteConnection,
    expect: Option<&CanaryVersion>,
    color: Color,
    digest: Option<Digest>,
) -> Result<(), CommandError> {
    let row = sqlx::query("SELECT version FROM cluster_canary").fetch_optional(&mut *conn).await?;
    let version: Option<i64> = row.map(|row| row.try_get(0)).transpose()?;
    if version.map(|version| version.to_string()).as_ref() != expect.map(|expect| &expect.0) {
        return reject(ErrorKind::Conflict, "the canary was changed since it was read");
    }
    sqlx::query("INSERT OR REPLACE INTO cluster_canary (one, selector, digest, version) VALUES (1, ?, ?, ?)")
        .bind(color.as_str())
        .bind(digest.map(|digest| digest.to_string()))
        .bind(version.unwrap_or_default() + 1)
        .execute(conn)
        .await?;
    Ok(())
}

async fn set_image(
    conn: &mut SqliteConnection,
    fence: Fence,
    color: Color,
    expect: Fence,
    desired: &ImageWant,
) -> Result<(), CommandError> {
    let row = sqlx::query("SELECT fence, digest, template FROM cluster_services WHERE selector = ?")
        .bind(color.as_str())
        .fetch_one(&mut *conn)
        .await?;
    let (current, current_digest, template): (String, String, String) =
        (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    if current != expect.to_string() {
        return reject(ErrorKind::Conflict, "the workload has another fence");
    }
    let next = match desired {
        ImageWant::Digest(digest) if digest.to_string() == current_digest => None,
        ImageWant::Digest(digest) => {
            Some((digest.to_string(), encoding::template(*digest, next_number(conn, TEMPLATES).await?)))
        }
        ImageWant::Template(wanted) if wanted.as_str() == template => None,
        ImageWant::Template(wanted) => match encoding::digest_in(wanted.as_str()) {
            Some(digest) => Some((digest.to_string(), wanted.as_str().to_owned())),
            None => return reject(ErrorKind::Invalid, "the template was not created by this cluster"),
        },
    };
    let color_text = color.as_str();
    match next {
        None => {
            sqlx::query("UPDATE cluster_services SET fence = ? WHERE selector = ?")
                .bind(fence.to_string())
                .bind(color_text)
                .execute(&mut *conn)
                .await?
        }
        Some((digest, template)) => {
            sqlx::query(
                "UPDATE cluster_services SET fence = ?, digest = ?, template = ?, generation = generation + 1
             WHERE selector = ?",
            )
            .bind(fence.to_string())
            .bind(digest)
            .bind(template)
            .bind(color_text)
            .execute(&mut *conn)
            .await?
        }
    };
    changes::record(conn, &Changed::Service(color)).await?;
    Ok(())
}

async fn put_route(conn: &mut SqliteConnection, fence: Fence, spec: &RouteSpec) -> Result<(), CommandError> {
    check_not_released(conn, Some(spec.uid)).await?;
    if route_fence(conn, spec.uid).await?.is_some() {
        return reject(ErrorKind::Exists, "the site already has a route");
    }
    for host in spec.hostnames.all() {
        let taken =
            sqlx::query("INSERT INTO cluster_hostnames (host, uid) VALUES (?, ?) ON CONFLICT DO NOTHING")
                .bind(host.as_str())
                .bind(spec.uid.to_string())
                .execute(&mut *conn)
                .await?;
        if taken.rows_affected() == 0 {
            return reject(ErrorKind::Foreign, "the route of another owner has one of the hostnames");
        }
    }
    let generation = next_number(conn, ROUTES).await?;
    sqlx::query(
        "INSERT INTO cluster_routes (uid, site, hostnames, service, fence, generation) VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(spec.uid.to_string())
    .bind(spec.site.as_str())
    .bind(encoding::hostnames(&spec.hostnames))
    .bind(spec.service.as_str())
    .bind(fence.to_string())
    .bind(generation)
    .execute(conn)
    .await?;
    Ok(())
}

async fn move_route(
    conn: &mut SqliteConnection,
    fence: Fence,
    uid: Uid,
    expect: Fence,
    to: Color,
) -> Result<(), CommandError> {
    match route_fence(conn, uid).await? {
        None => return reject(ErrorKind::NotFound, "the site has no route"),
        Some(current) if current != expect => {
            return reject(ErrorKind::Conflict, "the route has another fence");
        }
        Some(_) => {}
    }
    let generation = next_number(conn, ROUTES).await?;
    sqlx::query("UPDATE cluster_routes SET service = ?, fence = ?, generation = ? WHERE uid = ?")
        .bind(to.as_str())
        .bind(fence.to_string())
        .bind(generation)
        .bind(uid.to_string())
        .execute(conn)
        .await?;
    Ok(())
}

async fn release(conn: &mut SqliteConnection, uid: Uid) -> Result<(), CommandError> {
    let text = uid.to_string();
    let known = sqlx::query("SELECT 1 FROM cluster_released WHERE uid = ?").bind(&text);
    if known.fetch_optional(&mut *conn).await?.is_some() {
        return Ok(());
    }
    let generation = next_number(conn, ROUTES).await?;
    sqlx::query("INSERT INTO cluster_released (uid, generation) VALUES (?, ?)")
        .bind(&text)
        .bind(generation)
        .execute(&mut *conn)
        .await?;
    sqlx::query("DELETE FROM cluster_routes WHERE uid = ?").bind(&text).execute(&mut *conn).await?;
    sqlx::query("DELETE FROM cluster_hostnames WHERE uid = ?").bind(&text).execute(&mut *conn).await?;
    let jobs = sqlx::query("DELETE FROM cluster_jobs WHERE uid = ? RETURNING name").bind(&text);
    for row in jobs.fetch_all(&mut *conn).await? {
        let name = JobName::parse(row.try_get(0)?).ok_or_else(|| damaged("a job's name"))?;
        changes::record(conn, &Changed::Job(name)).await?;
    }
    Ok(())
}

async fn run_job(conn: &mut SqliteConnection, spec: &JobSpec) -> Result<(), CommandError> {
    let owner = spec.kind.uid();
    check_not_released(conn, owner).await?;
    let owner = owner.map(|uid| uid.to_string());
    let existing = sqlx::query("SELECT uid FROM cluster_jobs WHERE name = ?").bind(spec.name.as_str());
    if let Some(row) = existing.fetch_optional(&mut *conn).await? {
        let existing: Option<String> = row.try_get(0)?;
        return if existing == owner {
            reject(ErrorKind::Exists, "the job already exists")
        } else {
            reject(ErrorKind::Foreign, "another owner has a job with this name")
        };
    }
    sqlx::query(
        "INSERT INTO cluster_jobs (name, uid, service, kind, running, state, log, boot, attempts)
         VALUES (?, ?, ?, ?, 1, ?, '', NULL, 0)",
    )
    .bind(spec.name.as_str())
    .bind(owner)
    .bind(spec.service.as_str())
    .bind(encoding::kind(&spec.kind))
    .bind(encoding::state(&JobState::Running))
    .execute(&mut *conn)
    .await?;
    changes::record(conn, &Changed::Job(spec.name.clone())).await?;
    Ok(())
}

fn reject<T>(kind: ErrorKind, message: &str) -> Result<T, CommandError> {
    Err(CommandError::Rejected(PortError::new(PORT, kind, message)))
}

async fn check_not_released(conn: &mut SqliteConnection, uid: Option<Uid>) -> Result<(), CommandError> {
    let Some(uid) = uid else { return Ok(()) };
    let released = sqlx::query("SELECT 1 FROM cluster_released WHERE uid = ?").bind(uid.to_string());
    match released.fetch_optional(conn).await? {
        Some(_) => reject(ErrorKind::Gone, "the uid was released"),
        None => Ok(()),
    }
}

async fn route_fence(conn: &mut SqliteConnection, uid: Uid) -> Result<Option<Fence>, sqlx::Error> {
    let row = sqlx::query("SELECT fence FROM cluster_routes WHERE uid = ?").bind(uid.to_string());
    let Some(row) = row.fetch_optional(conn).await? else { return Ok(None) };
    let fence: String = row.try_get(0)?;
    Fence::parse(&fence).map(Some).ok_or_else(|| damaged("a fence"))
}
