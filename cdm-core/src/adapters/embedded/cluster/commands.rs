//! The writes that callers ask for, each in one transaction with its checks.

use sqlx::{Row, SqliteConnection};

use super::tables::{ROUTES, TEMPLATES, bump, damaged};
use super::{Inner, PORT, news, shapes};
use crate::domain::{Color, Digest, Fence, JobName, Uid};
use crate::ports::{
    CallContext, CanaryVersion, Changed, ErrorKind, ImageWant, JobSpec, JobState, Outcome, PortError,
    RouteSpec,
};

/// A write.
#[derive(Clone, Copy, Debug)]
pub(super) enum Command<'a> {
    Canary(Option<&'a CanaryVersion>, Color, Option<Digest>),
    Image(Color, Fence, &'a ImageWant),
    PutRoute(&'a RouteSpec),
    MoveRoute(Uid, Fence, Color),
    Release(Uid),
    Job(&'a JobSpec),
}

/// Why a write did not happen.
#[derive(Debug)]
enum Stop {
    Refused(PortError),
    File(sqlx::Error),
}

impl From<sqlx::Error> for Stop {
    fn from(error: sqlx::Error) -> Self {
        Self::File(error)
    }
}

impl Inner {
    /// Writes, and has the router follow before it answers.
    pub(super) async fn write(&self, call: &CallContext, command: Command<'_>) -> Outcome<()> {
        tokio::select! {
            biased;
            outcome = self.write_now(call, command) => outcome,
            // A commit may be on its way.
            () = self.clock.sleep_until(call.deadline) => {
                Outcome::Unknown(PortError::new(PORT, ErrorKind::Unavailable, "the deadline has passed"))
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
            Err(Stop::Refused(error)) => return Outcome::NotApplied(error),
            Err(Stop::File(error)) => return Outcome::NotApplied(super::unavailable(error)),
        }
        if self.clock.monotonic() >= call.deadline {
            let message = "the deadline had passed before the write";
            return Outcome::NotApplied(PortError::new(PORT, ErrorKind::Unavailable, message));
        }
        if let Err(error) = tx.commit().await {
            return Outcome::Unknown(super::unavailable(error));
        }
        if command.routes() && self.own_boot().is_some() {
            // The write stands; a router that cannot follow now does so at its next glance at the file.
            if let Err(error) = self.routes.reload(&self.file).await {
                tracing::warn!(%error, "the router does not see a route's change yet");
            }
        }
        self.tell();
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

    async fn apply(self, conn: &mut SqliteConnection, fence: Fence) -> Result<(), Stop> {
        match self {
            Self::Canary(expect, color, digest) => set_canary(conn, expect, color, digest).await,
            Self::Image(color, expect, want) => set_image(conn, fence, color, expect, want).await,
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
) -> Result<(), Stop> {
    let row = sqlx::query("SELECT version FROM cluster_canary").fetch_optional(&mut *conn).await?;
    let version: Option<i64> = row.map(|row| row.try_get(0)).transpose()?;
    if version.map(|version| version.to_string()).as_ref() != expect.map(|expect| &expect.0) {
        return refuse(ErrorKind::Conflict, "the canary has another version");
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
    want: &ImageWant,
) -> Result<(), Stop> {
    let row = sqlx::query("SELECT fence, digest, template FROM cluster_services WHERE selector = ?")
        .bind(color.as_str())
        .fetch_one(&mut *conn)
        .await?;
    let (carried, runs, template): (String, String, String) =
        (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    if carried != expect.to_string() {
        return refuse(ErrorKind::Conflict, "the workload carries another fence");
    }
    let next = match want {
        ImageWant::Digest(digest) if digest.to_string() == runs => None,
        ImageWant::Digest(digest) => {
            Some((digest.to_string(), shapes::template(*digest, bump(conn, TEMPLATES).await?)))
        }
        ImageWant::Template(wanted) if wanted.as_str() == template => None,
        ImageWant::Template(wanted) => match shapes::digest_in(wanted.as_str()) {
            Some(digest) => Some((digest.to_string(), wanted.as_str().to_owned())),
            None => return refuse(ErrorKind::Invalid, "the template is none of this cluster's"),
        },
    };
    let selector_text = color.as_str();
    match next {
        None => {
            sqlx::query("UPDATE cluster_services SET fence = ? WHERE selector = ?")
                .bind(fence.to_string())
                .bind(selector_text)
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
            .bind(selector_text)
            .execute(&mut *conn)
            .await?
        }
    };
    news::tell(conn, &Changed::Service(color)).await?;
    Ok(())
}

async fn put_route(conn: &mut SqliteConnection, fence: Fence, spec: &RouteSpec) -> Result<(), Stop> {
    still_open(conn, Some(spec.uid)).await?;
    if route_fence(conn, spec.uid).await?.is_some() {
        return refuse(ErrorKind::Exists, "the site has a route");
    }
    for host in spec.hostnames.all() {
        let taken =
            sqlx::query("INSERT INTO cluster_hostnames (host, uid) VALUES (?, ?) ON CONFLICT DO NOTHING")
                .bind(host.as_str())
                .bind(spec.uid.to_string())
                .execute(&mut *conn)
                .await?;
        if taken.rows_affected() == 0 {
            return refuse(ErrorKind::Foreign, "another owner's route has one of the hostnames");
        }
    }
    let generation = bump(conn, ROUTES).await?;
    sqlx::query(
        "INSERT INTO cluster_routes (uid, site, hostnames, service, fence, generation) VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(spec.uid.to_string())
    .bind(spec.site.as_str())
    .bind(shapes::hostnames(&spec.hostnames))
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
) -> Result<(), Stop> {
    match route_fence(conn, uid).await? {
        None => return refuse(ErrorKind::NotFound, "the site has no route"),
        Some(carried) if carried != expect => {
            return refuse(ErrorKind::Conflict, "the route carries another fence");
        }
        Some(_) => {}
    }
    let generation = bump(conn, ROUTES).await?;
    sqlx::query("UPDATE cluster_routes SET service = ?, fence = ?, generation = ? WHERE uid = ?")
        .bind(to.as_str())
        .bind(fence.to_string())
        .bind(generation)
        .bind(uid.to_string())
        .execute(conn)
        .await?;
    Ok(())
}

async fn release(conn: &mut SqliteConnection, uid: Uid) -> Result<(), Stop> {
    let text = uid.to_string();
    let known = sqlx::query("SELECT 1 FROM cluster_released WHERE uid = ?").bind(&text);
    if known.fetch_optional(&mut *conn).await?.is_some() {
        return Ok(());
    }
    let generation = bump(conn, ROUTES).await?;
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
        news::tell(conn, &Changed::Job(name)).await?;
    }
    Ok(())
}

async fn run_job(conn: &mut SqliteConnection, spec: &JobSpec) -> Result<(), Stop> {
    let owner = spec.kind.uid();
    still_open(conn, owner).await?;
    let owner = owner.map(|uid| uid.to_string());
    let held = sqlx::query("SELECT uid FROM cluster_jobs WHERE name = ?").bind(spec.name.as_str());
    if let Some(row) = held.fetch_optional(&mut *conn).await? {
        let held: Option<String> = row.try_get(0)?;
        return if held == owner {
            refuse(ErrorKind::Exists, "the job is there")
        } else {
            refuse(ErrorKind::Foreign, "another owner has a job of that name")
        };
    }
    sqlx::query(
        "INSERT INTO cluster_jobs (name, uid, service, kind, running, state, log, boot, attempts)
         VALUES (?, ?, ?, ?, 1, ?, '', NULL, 0)",
    )
    .bind(spec.name.as_str())
    .bind(owner)
    .bind(spec.service.as_str())
    .bind(shapes::kind(&spec.kind))
    .bind(shapes::state(&JobState::Running))
    .execute(&mut *conn)
    .await?;
    news::tell(conn, &Changed::Job(spec.name.clone())).await?;
    Ok(())
}

fn refuse<T>(kind: ErrorKind, message: &str) -> Result<T, Stop> {
    Err(Stop::Refused(PortError::new(PORT, kind, message)))
}

async fn still_open(conn: &mut SqliteConnection, uid: Option<Uid>) -> Result<(), Stop> {
    let Some(uid) = uid else { return Ok(()) };
    let released = sqlx::query("SELECT 1 FROM cluster_released WHERE uid = ?").bind(uid.to_string());
    match released.fetch_optional(conn).await? {
        Some(_) => refuse(ErrorKind::Gone, "the uid was released"),
        None => Ok(()),
    }
}

async fn route_fence(conn: &mut SqliteConnection, uid: Uid) -> Result<Option<Fence>, sqlx::Error> {
    let row = sqlx::query("SELECT fence FROM cluster_routes WHERE uid = ?").bind(uid.to_string());
    let Some(row) = row.fetch_optional(conn).await? else { return Ok(None) };
    let fence: String = row.try_get(0)?;
    Fence::parse(&fence).map(Some).ok_or_else(|| damaged("a fence"))
}
