//! Which hostname leads where, in memory: what the router answers from.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use sqlx::Row;
use tokio::sync::Mutex;

use super::super::File;
use super::shapes;
use super::tables::damaged;
use crate::domain::Color;

/// Where a hostname leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leads {
    pub(super) service: Color,
    /// The number of the route's last write.
    pub(super) generation: i64,
}

/// Every route by hostname, as far as the tables were read.
#[derive(Debug, Default)]
pub(super) struct RouteTable {
    map: RwLock<Map>,
    /// The number of the last write that is in the map. Held during a reload, so that whoever waits for it knows
    /// afterwards that its own write is in.
    seen: Mutex<i64>,
}

#[derive(Debug, Default)]
struct Map {
    by_host: HashMap<String, Leads>,
    hosts: HashMap<String, Vec<String>>,
}

impl RouteTable {
    /// Where a hostname in lower case leads.
    pub(super) fn find(&self, host: &str) -> Option<Leads> {
        self.map.read().unwrap_or_else(PoisonError::into_inner).by_host.get(host).copied()
    }

    /// Takes in what was written since the last reload.
    pub(super) async fn reload(&self, file: &File) -> Result<(), sqlx::Error> {
        let mut seen = self.seen.lock().await;
        let mut tx = file.snapshot().await?;
        let released = sqlx::query("SELECT uid, generation FROM cluster_released WHERE generation > ?")
            .bind(*seen)
            .fetch_all(&mut *tx)
            .await?;
        let routes = sqlx::query(
            "SELECT uid, hostnames, service, generation FROM cluster_routes WHERE generation > ?",
        )
        .bind(*seen)
        .fetch_all(&mut *tx)
        .await?;
        drop(tx);
        let mut newest = *seen;
        let mut gone = Vec::new();
        for row in released {
            gone.push(row.try_get::<String, _>(0)?);
            newest = newest.max(row.try_get(1)?);
        }
        let mut there = Vec::new();
        for row in routes {
            let (uid, hostnames, service): (String, String, String) =
                (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            let hostnames =
                shapes::parse_hostnames(&hostnames).ok_or_else(|| damaged("a list of hostnames"))?;
            let service = Color::parse(&service).map_err(|_| damaged("a selector"))?;
            let generation = row.try_get(3)?;
            newest = newest.max(generation);
            there.push((uid, hostnames, Leads { service, generation }));
        }
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        for uid in gone {
            for host in map.hosts.remove(&uid).unwrap_or_default() {
                map.by_host.remove(&host);
            }
        }
        for (uid, hostnames, leads) in there {
            let hosts: Vec<String> = hostnames.all().iter().map(ToString::to_string).collect();
            for host in &hosts {
                map.by_host.insert(host.clone(), leads);
            }
            map.hosts.insert(uid, hosts);
        }
        *seen = newest;
        Ok(())
    }
}
