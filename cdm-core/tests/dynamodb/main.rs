//! The DynamoDB store keeps the promises of its ports: on moto, on dynoxide, and with `CDM_TEST_AWS=1` on an account.
//!
//! Where the two differ from DynamoDB, a test says so. Neither throttles, fails, loses an answer or has an index that lags:
//! the proxy does the first three, and for the last the suites ask again for a while.

mod cost;
mod feed;
mod lists;
mod lost;
#[path = "../parts/mod.rs"]
mod parts;
mod proxy;
mod sweep;
mod table;
mod trouble;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use cdm_core::adapters::SystemClock;
use cdm_core::adapters::aws::{Aws, AwsSettings};
use cdm_core::adapters::dynamodb::{DynamoStore, DynamoTable, DynamoTokens};
use cdm_core::domain::{MonotonicTime, Site, Timestamp};
use cdm_core::ports::{Clock, Journal, Mutation, Outcome, WriteBatch};
use cdm_testkit::build;
use cdm_testkit::contract::{store, tokens};

use parts::Bench;
use proxy::Proxy;

/// A table of a server, reached through a proxy.
#[derive(Debug)]
struct Lab {
    bench: Bench,
    proxy: Proxy,
    /// The server itself.
    direct: String,
    name: String,
    clock: Shifted,
    table: DynamoTable,
    store: DynamoStore,
}

/// The machine's clock, with the wall's set ahead where a test says so.
#[derive(Clone, Debug)]
struct Shifted {
    clock: SystemClock,
    ahead: Arc<AtomicU64>,
}

impl Shifted {
    fn set_ahead(&self, by: Duration) {
        let by = u64::try_from(by.as_millis()).expect("a short while");
        self.ahead.store(by, Ordering::SeqCst);
    }
}

#[async_trait]
impl Clock for Shifted {
    fn wall(&self) -> Timestamp {
        self.clock.wall().after(Duration::from_millis(self.ahead.load(Ordering::SeqCst)))
    }

    fn monotonic(&self) -> MonotonicTime {
        self.clock.monotonic()
    }

    async fn sleep_until(&self, until: MonotonicTime) {
        self.clock.sleep_until(until).await;
    }
}

impl Lab {
    /// A fresh table on each server that was started.
    async fn all() -> Vec<Self> {
        let mut labs = Vec::new();
        for part in ["CDM_TEST_AWS_ENDPOINT", "CDM_TEST_DYNOXIDE"] {
            if let Some(address) = parts::address(part) {
                labs.push(Self::at(&address).await);
            }
        }
        labs
    }

    async fn at(direct: &str) -> Self {
        let proxy = Proxy::to(direct).await;
        let bench = Bench::new();
        let clock = Shifted { clock: bench.clock, ahead: Arc::default() };
        let name = format!("cdm-test-{}", bench.cx().uid());
        let table = DynamoTable::new(&aws(Some(&proxy.address)).await, &name, Arc::new(clock.clone()));
        table.bootstrap().await.expect("a table is made");
        proxy.seen();
        let store = DynamoStore::new(table.clone());
        Self { bench, proxy, direct: direct.to_owned(), name, clock, table, store }
    }

    /// Another process on the same table, which does not go through the proxy.
    async fn other(&self) -> DynamoStore {
        let aws = aws(Some(&self.direct)).await;
        DynamoStore::new(DynamoTable::new(&aws, &self.name, Arc::new(self.clock.clone())))
    }

    /// A site that is written at version 1.
    async fn site(&self, id: &str) -> Site {
        let site = Site { uid: self.bench.cx().uid(), ..build::site(id) };
        self.write(vec![Mutation::CreateSite(Box::new(site.clone()))]).await;
        self.proxy.seen();
        Site { version: 1, ..site }
    }

    async fn write(&self, writes: Vec<Mutation>) {
        let written = self.store.write(&self.bench.cx().call(), &WriteBatch::of(writes)).await;
        assert_eq!(written, Outcome::Applied(()));
    }

    /// Sets the wall's clock ahead by more than readers of the feed wait.
    fn wait_a_while(&self) {
        self.clock.ahead.fetch_add(3_000, Ordering::SeqCst);
    }

    async fn number(&self) -> u64 {
        match self.store.allocate_ids(&self.bench.cx().call(), 2).await {
            Outcome::Applied(number) => number,
            other => panic!("numbers are drawn: {other:?}"),
        }
    }
}

async fn aws(endpoint: Option<&str>) -> Aws {
    Aws::load(&AwsSettings { endpoint: endpoint.map(ToOwned::to_owned), ..AwsSettings::default() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contracts_are_kept() {
    for lab in Lab::all().await {
        store::suite(&lab.store, &lab.bench.cx()).await;
        tokens::suite(&DynamoTokens::new(lab.table.clone()), &lab.bench.cx()).await;
        lab.table.check().await.expect("it answers");
        cost::within_the_rights(lab.proxy.seen());
    }
}

/// On an account: its indexes lag, its transactions meet, and its tables take a while to come about.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_keeps_the_contracts() {
    #[expect(
        clippy::disallowed_methods,
        reason = "tests are told by their surroundings whether there is an account"
    )]
    if std::env::var("CDM_TEST_AWS").as_deref() != Ok("1") {
        return;
    }
    let bench = Bench::new();
    let name = format!("cdm-test-{}", bench.cx().uid());
    let table = DynamoTable::new(&aws(None).await, &name, Arc::new(bench.clock));
    table.bootstrap().await.expect("a table is made");
    store::suite(&DynamoStore::new(table.clone()), &bench.cx()).await;
    tokens::suite(&DynamoTokens::new(table), &bench.cx()).await;
    table::client(None).await.delete_table().table_name(name).send().await.expect("the table goes");
}
