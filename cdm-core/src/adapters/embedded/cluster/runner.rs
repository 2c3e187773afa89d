//! Runs the pending jobs, again if a process was killed while it ran them, and stores their results.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sqlx::Row;
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};

use super::host::HostContext;
use super::tables::damaged;
use super::{POLL_INTERVAL, changes, encoding, jobs};
use crate::adapters::embedded::file::is_full;
use crate::domain::{Color, JobName};
use crate::ports::{Changed, Job, JobKind, JobState};

/// Maximum number of jobs that run at a time; others wait.
const MAX_RUNNING: usize = 16;

/// How many finished jobs that concern several sites are kept. Jobs of one site are removed with the site.
const MAX_FINISHED: i64 = 1_000;
const DELETE_OLD: &str = "DELETE FROM cluster_jobs WHERE rowid IN (
    SELECT rowid FROM cluster_jobs WHERE uid IS NULL AND running = 0 ORDER BY rowid DESC LIMIT -1 OFFSET ?
)";

/// A job that has not finished.
#[derive(Debug)]
pub(super) struct PendingJob {
    pub(super) name: JobName,
    pub(super) service: Color,
    pub(super) kind: JobKind,
}

/// Runs jobs until the future is dropped, which aborts them.
pub(super) async fn run(context: Arc<HostContext>) {
    let mut tasks: JoinSet<JobName> = JoinSet::new();
    let mut running: HashMap<JobName, AbortHandle> = HashMap::new();
    let permits = Arc::new(Semaphore::new(MAX_RUNNING));
    let mut change_signal = context.cluster.change_signal.subscribe();
    loop {
        while let Some(ended) = tasks.try_join_next() {
            match ended {
                Ok(name) => drop(running.remove(&name)),
                Err(error) if error.is_cancelled() => {}
                Err(error) => tracing::error!(%error, "the task of a job stopped unexpectedly"),
            }
        }
        running.retain(|_, task| !task.is_finished());
        match pending(&context).await {
            Ok(pending) => {
                let names: HashSet<JobName> = pending.iter().map(|job| job.name.clone()).collect();
                // The others were released, or ended by another process.
                running.retain(|name, task| {
                    let is_pending = names.contains(name);
                    if !is_pending {
                        task.abort();
                    }
                    is_pending
                });
                for job in
                    pending.into_iter().filter(|job| !running.contains_key(&job.name)).collect::<Vec<_>>()
                {
                    let (context, permits, name) =
                        (Arc::clone(&context), Arc::clone(&permits), job.name.clone());
                    let task = tasks.spawn(async move {
                        let _permit = permits.acquire_owned().await;
                        attempt(&context, &job).await;
                        job.name
                    });
                    running.insert(name, task);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the jobs of the local cluster cannot be read at the moment")
            }
        }
        tokio::select! {
            _ = change_signal.changed() => {}
            Some(ended) = tasks.join_next() => {
                if let Ok(name) = ended {
                    running.remove(&name);
                }
            }
            () = context.cluster.pause(POLL_INTERVAL * 10) => {}
        }
    }
}

async fn pending(context: &HostContext) -> Result<Vec<PendingJob>, sqlx::Error> {
    let rows = sqlx::query("SELECT name, service, kind FROM cluster_jobs WHERE running = 1")
        .fetch_all(context.cluster.file.reader())
        .await?;
    let mut pending = Vec::with_capacity(rows.len());
    for row in rows {
        let (name, service, kind): (String, String, String) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        pending.push(PendingJob {
            name: JobName::parse(&name).ok_or_else(|| damaged("a job's name"))?,
            service: Color::parse(&service).map_err(|_| damaged("a service color"))?,
            kind: encoding::parse_kind(&kind).ok_or_else(|| damaged("a job's kind"))?,
        });
    }
    Ok(pending)
}

/// One attempt of a job: marks its start in the table, runs it, and stores its result.
async fn attempt(context: &HostContext, pending: &PendingJob) {
    if let Err(error) = mark_started(context, pending).await {
        if !is_full(&error) {
            tracing::warn!(%error, job = %pending.name, "a job cannot start at the moment");
        }
        return;
    }
    context.cluster.pause(context.cluster.settings.job).await;
    // If the disk is full, the job stays marked as running, and is run again until there is space.
    let Some(job) = jobs::run(context, pending).await else { return };
    if let Err(error) = store_result(context, pending, &job).await
        && !is_full(&error)
    {
        // The job is still marked as running and is run again, which every job allows.
        tracing::warn!(%error, job = %pending.name, "the result of a job cannot be stored");
    }
}

async fn mark_started(context: &HostContext, pending: &PendingJob) -> Result<(), sqlx::Error> {
    let mut tx = context.cluster.file.begin().await?;
    sqlx::query("UPDATE cluster_jobs SET boot = ?, attempts = attempts + 1 WHERE name = ? AND running = 1")
        .bind(&context.boot)
        .bind(pending.name.as_str())
        .execute(&mut *tx)
        .await?;
    tx.commit().await
}

async fn store_result(context: &HostContext, pending: &PendingJob, job: &Job) -> Result<(), sqlx::Error> {
    let mut tx = context.cluster.file.begin().await?;
    let ended = sqlx::query(
        "UPDATE cluster_jobs SET running = ?, state = ?, log = ? WHERE name = ? AND running = 1 AND boot = ?",
    )
    .bind(job.state == JobState::Running)
    .bind(encoding::state(&job.state))
    .bind(&job.log)
    .bind(pending.name.as_str())
    .bind(&context.boot)
    .execute(&mut *tx)
    .await?;
    // A job whose site was released has no row any more, and nothing changed.
    if ended.rows_affected() > 0 {
        changes::record(&mut tx, &Changed::Job(pending.name.clone())).await?;
        if pending.kind.uid().is_none() {
            sqlx::query(DELETE_OLD).bind(MAX_FINISHED).execute(&mut *tx).await?;
        }
    }
    tx.commit().await?;
    context.cluster.notify();
    Ok(())
}
