//! The router's routing table, in memory.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use sqlx::Row;
use tokio::sync::Mutex;

use super::super::File;
use super::encoding;
use super::tables::damaged;
use crate::domain::Color;

/// The target of a hostname.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RouteTarget {
    pub(super) service: Color,
    /// The number of the last write of the route.
    pub(super) generation: i64,
}

/// Every route by hostname, up to the last reload.
#[derive(Debug, Default)]
pub(super) struct RouteTable {
    map: RwLock<RouteMaps>,
    /// The number of the last write in the map. Locked during a reload, so that a writer that waits for the lock finds
    /// its write in the map afterwards.
    loaded: Mutex<i64>,
}

#[derive(Debug, Default)]
struct RouteMaps {
    by_host: HashMap<String, RouteTarget>,
    hosts: HashMap<String, Vec<String>>,
}

impl RouteTable {
    /// Returns the target of a hostname in lower case.
    pub(super) fn find(&self, host: &str) -> Option<RouteTarget> {
        self.map.read().unwrap_or_else(PoisonError::into_inner).by_host.get(host).copied()
    }

    /// Loads what was written since the last reload.
    pub(super) async fn reload(&self, file: &File) -> Result<(), sqlx::Error> {
        let mut loaded = self.loaded.lock().await;
        let mut tx = file.snapshot().await?;
        let released = sqlx::query("SELECT uid, generation FROM cluster_released WHERE generation > ?")
            .bind(*loaded)
            .fetch_all(&mut *tx)
            .await?;
        let routes = sqlx::query(
            "SELECT uid, hostnames, service, generation FROM cluster_routes WHERE generation > ?",
        )
        .bind(*loaded)
        .fetch_all(&mut *tx)
        .await?;
        drop(tx);
        let mut newest = *loaded;
        let mut removed = Vec::new();
        for row in released {
            removed.push(row.try_get::<String, _>(0)?);
            newest = newest.max(row.try_get(1)?);
        }
        let mut changed = Vec::new();
        for row in routes {
            let (uid, hostnames, service): (String, String, String) =
                (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            let hostnames =
                encoding::parse_hostnames(&hostnames).ok_or_else(|| damaged("a list of hostnames"))?;
            let service = Color::parse(&service).map_err(|_| damaged("a service color"))?;
            let generation = row.try_get(3)?;
            newest = newest.max(generation);
            changed.push((uid, hostnames, RouteTarget { service, generation }));
        }
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        for uid in removed {
            for host in map.hosts.remove(&uid).unwrap_or_default() {
                map.by_host.remove(&host);
            }
        }
        for (uid, hostnames, target) in changed {
            let hosts: Vec<String> = hostnames.all().iter().map(ToString::to_string).collect();
            for host in &hosts {
                map.by_host.insert(host.clone(), target);
            }
            map.hosts.insert(uid, hosts);
        }
        *loaded = newest;
        Ok(())
    }
}
