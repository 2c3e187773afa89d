//! The port `ClusterOps`, on the tables.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::Row;

use super::commands::Command;
use super::tables::{self, damaged};
use super::{LocalCluster, changes, encoding, unavailable};
use crate::domain::{Color, Digest, Fence, JobName, Uid};
use crate::ports::{
    CallContext, Canary, CanaryVersion, ChangeCursor, Changed, ClusterOps, ImageWant, Job, JobSpec, Outcome,
    PortError, Route, RouteSpec, ServiceView,
};

#[async_trait]
impl ClusterOps for LocalCluster {
    async fn canary(&self) -> Result<Option<Canary>, PortError> {
        self.read_canary().await.map_err(unavailable)
    }

    async fn set_canary(
        &self,
        call: &CallContext,
        expect: Option<&CanaryVersion>,
        color: Color,
        digest: Option<Digest>,
    ) -> Outcome<()> {
        self.inner.write(call, Command::Canary(expect, color, digest)).await
    }

    async fn service(&self, color: Color) -> Result<ServiceView, PortError> {
        self.read_service(color).await.map_err(unavailable)
    }

    async fn set_image(
        &self,
        call: &CallContext,
        color: Color,
        expect: Fence,
        want: &ImageWant,
    ) -> Outcome<()> {
        self.inner.write(call, Command::Image(color, expect, want)).await
    }

    async fn route(&self, uid: Uid) -> Result<Option<Route>, PortError> {
        self.read_route(uid).await.map_err(unavailable)
    }

    async fn put_route(&self, call: &CallContext, spec: &RouteSpec) -> Outcome<()> {
        self.inner.write(call, Command::PutRoute(spec)).await
    }

    async fn move_route(&self, call: &CallContext, uid: Uid, expect: Fence, to: Color) -> Outcome<()> {
        self.inner.write(call, Command::MoveRoute(uid, expect, to)).await
    }

    async fn release(&self, call: &CallContext, uid: Uid) -> Outcome<()> {
        self.inner.write(call, Command::Release(uid)).await
    }

    async fn run_job(&self, call: &CallContext, spec: &JobSpec) -> Outcome<()> {
        self.inner.write(call, Command::Job(spec)).await
    }

    async fn job(&self, name: &JobName) -> Result<Option<Job>, PortError> {
        self.read_job(name).await.map_err(unavailable)
    }

    async fn changes(
        &self,
        cursor: ChangeCursor,
        wait: Duration,
    ) -> Result<(Vec<Changed>, ChangeCursor), PortError> {
        changes::since(&self.inner, cursor, wait).await.map_err(unavailable)
    }
}

impl LocalCluster {
    async fn read_canary(&self) -> Result<Option<Canary>, sqlx::Error> {
        let row = sqlx::query("SELECT selector, digest, version FROM cluster_canary");
        let Some(row) = row.fetch_optional(self.inner.file.reader()).await? else { return Ok(None) };
        let color: String = row.try_get(0)?;
        let digest: Option<String> = row.try_get(1)?;
        let version: i64 = row.try_get(2)?;
        Ok(Some(Canary {
            color: Color::parse(&color).map_err(|_| damaged("a service color"))?,
            digest: digest.map(|text| Digest::parse(&text)).transpose().map_err(|_| damaged("a digest"))?,
            version: CanaryVersion(version.to_string()),
        }))
    }

    async fn read_service(&self, color: Color) -> Result<ServiceView, sqlx::Error> {
        let live = self.inner.live_boot().await?;
        let mut reader = self.inner.file.reader().acquire().await?;
        tables::view(&mut reader, color, live.as_deref()).await
    }

    async fn read_route(&self, uid: Uid) -> Result<Option<Route>, sqlx::Error> {
        let row = sqlx::query("SELECT hostnames, service, fence FROM cluster_routes WHERE uid = ?");
        let row = row.bind(uid.to_string()).fetch_optional(self.inner.file.reader()).await?;
        let Some(row) = row else { return Ok(None) };
        let (hostnames, service, fence): (String, String, String) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        Ok(Some(Route {
            uid,
            hostnames: encoding::parse_hostnames(&hostnames).ok_or_else(|| damaged("a list of hostnames"))?,
            service: Color::parse(&service).map_err(|_| damaged("a service color"))?,
            fence: Fence::parse(&fence).ok_or_else(|| damaged("a fence"))?,
        }))
    }

    async fn read_job(&self, name: &JobName) -> Result<Option<Job>, sqlx::Error> {
        let row = sqlx::query("SELECT state, log FROM cluster_jobs WHERE name = ?").bind(name.as_str());
        let Some(row) = row.fetch_optional(self.inner.file.reader()).await? else { return Ok(None) };
        let state: String = row.try_get(0)?;
        let state = encoding::parse_state(&state).ok_or_else(|| damaged("a job's state"))?;
        Ok(Some(Job { state, log: row.try_get(1)? }))
    }
}
