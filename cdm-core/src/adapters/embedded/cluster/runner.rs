//! Starts the jobs that shall run, again after a process that was killed, and writes down what became of them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sqlx::Row;
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};

use super::host::World;
use super::tables::damaged;
use super::{GLANCE, jobs, news, shapes};
use crate::adapters::embedded::file::is_full;
use crate::domain::{Color, JobName};
use crate::ports::{Changed, Job, JobKind, JobState};

/// Jobs that run at a time; others wait for their turn.
const MOST: usize = 16;

/// Ended jobs of several sites that are kept. Those of one site go with it.
const KEPT: i64 = 1_000;
const FORGET: &str = "DELETE FROM cluster_jobs WHERE rowid IN (
    SELECT rowid FROM cluster_jobs WHERE uid IS NULL AND running = 0 ORDER BY rowid DESC LIMIT -1 OFFSET ?
)";

/// A job that shall run.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) name: JobName,
    pub(super) service: Color,
    pub(super) kind: JobKind,
}

/// Runs jobs until it is dropped, and they with it.
pub(super) async fn keep(world: Arc<World>) {
    let mut tasks: JoinSet<JobName> = JoinSet::new();
    let mut running: HashMap<JobName, AbortHandle> = HashMap::new();
    let room = Arc::new(Semaphore::new(MOST));
    let mut pulse = world.cluster.pulse.subscribe();
    loop {
        while let Some(ended) = tasks.try_join_next() {
            match ended {
                Ok(name) => drop(running.remove(&name)),
                Err(error) if error.is_cancelled() => {}
                Err(error) => tracing::error!(%error, "a job's task broke off"),
            }
        }
        running.retain(|_, task| !task.is_finished());
        match due(&world).await {
            Ok(due) => {
                let names: HashSet<JobName> = due.iter().map(|job| job.name.clone()).collect();
                // A job that was released, or written off elsewhere.
                running.retain(|name, task| {
                    let stays = names.contains(name);
                    if !stays {
                        task.abort();
                    }
                    stays
                });
                for job in due.into_iter().filter(|job| !running.contains_key(&job.name)).collect::<Vec<_>>()
                {
                    let (world, room, name) = (Arc::clone(&world), Arc::clone(&room), job.name.clone());
                    let task = tasks.spawn(async move {
                        let _place = room.acquire_owned().await;
                        run(&world, &job).await;
                        job.name
                    });
                    running.insert(name, task);
                }
            }
            Err(error) => tracing::warn!(%error, "the jobs cannot be looked after for the moment"),
        }
        tokio::select! {
            _ = pulse.changed() => {}
            Some(ended) = tasks.join_next() => {
                if let Ok(name) = ended {
                    running.remove(&name);
                }
            }
            () = world.cluster.pause(GLANCE * 10) => {}
        }
    }
}

async fn due(world: &World) -> Result<Vec<Due>, sqlx::Error> {
    let rows = sqlx::query("SELECT name, service, kind FROM cluster_jobs WHERE running = 1")
        .fetch_all(world.cluster.file.reader())
        .await?;
    let mut due = Vec::with_capacity(rows.len());
    for row in rows {
        let (name, service, kind): (String, String, String) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        due.push(Due {
            name: JobName::parse(&name).ok_or_else(|| damaged("a job's name"))?,
            service: Color::parse(&service).map_err(|_| damaged("a selector"))?,
            kind: shapes::parse_kind(&kind).ok_or_else(|| damaged("a job's kind"))?,
        });
    }
    Ok(due)
}

/// One attempt, from its mark in the table to its end there.
async fn run(world: &World, due: &Due) {
    if let Err(error) = begin(world, due).await {
        if !is_full(&error) {
            tracing::warn!(%error, job = %due.name, "a job cannot begin for the moment");
        }
        return;
    }
    world.cluster.pause(world.cluster.settings.job).await;
    // Where the disk is full the job stays marked as running, and is run again until there is space.
    let Some(job) = jobs::run(world, due).await else { return };
    if let Err(error) = end(world, due, &job).await
        && !is_full(&error)
    {
        // It is still marked as running, and is run again: every job may be.
        tracing::warn!(%error, job = %due.name, "a job's end cannot be written down");
    }
}

async fn begin(world: &World, due: &Due) -> Result<(), sqlx::Error> {
    let mut tx = world.cluster.file.begin().await?;
    sqlx::query("UPDATE cluster_jobs SET boot = ?, attempts = attempts + 1 WHERE name = ? AND running = 1")
        .bind(&world.boot)
        .bind(due.name.as_str())
        .execute(&mut *tx)
        .await?;
    tx.commit().await
}

async fn end(world: &World, due: &Due, job: &Job) -> Result<(), sqlx::Error> {
    let mut tx = world.cluster.file.begin().await?;
    let ended = sqlx::query(
        "UPDATE cluster_jobs SET running = ?, state = ?, log = ? WHERE name = ? AND running = 1 AND boot = ?",
    )
    .bind(job.state == JobState::Running)
    .bind(shapes::state(&job.state))
    .bind(&job.log)
    .bind(due.name.as_str())
    .bind(&world.boot)
    .execute(&mut *tx)
    .await?;
    // A job whose site was released has no row any more, and nobody to tell.
    if ended.rows_affected() > 0 {
        news::tell(&mut tx, &Changed::Job(due.name.clone())).await?;
        if due.kind.uid().is_none() {
            sqlx::query(FORGET).bind(KEPT).execute(&mut *tx).await?;
        }
    }
    tx.commit().await?;
    world.cluster.tell();
    Ok(())
}
