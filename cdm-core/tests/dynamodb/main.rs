//! The DynamoDB store fulfills the contracts of its ports: on moto, on dynoxide, and on an AWS account if
//! `CDM_TEST_AWS=1`.
//!
//! Where the two servers differ from DynamoDB, a test says so. Neither throttles, fails, loses a response, or has an
//! index with replication lag: the proxy simulates the first three, and for the last the contract suites retry for a
//! while.

mod cost;
mod failures;
mod feed;
mod lists;
mod lost_responses;
mod single_faults;
mod table;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use cdm_core::adapters::SystemClock;
use cdm_core::adapters::aws::{Aws, AwsSettings};
use cdm_core::adapters::dynamodb::{DynamoStore, DynamoTable, DynamoTokens};
use cdm_core::domain::{MonotonicTime, Site, Timestamp};
use cdm_core::ports::{Clock, Journal, Mutation, Outcome, WriteBatch};
use cdm_testkit::contract::{SystemEnv, store, tokens};
use cdm_testkit::proxy::Proxy;
use cdm_testkit::{backends, fixtures};

/// A table on a server, accessed through a proxy.
#[derive(Debug)]
struct TestEnv {
    suite: SystemEnv,
    proxy: Proxy,
    /// The address of the server itself.
    direct: String,
    name: String,
    clock: ShiftedClock,
    table: DynamoTable,
    store: DynamoStore,
}

/// The system clock; a test can set its wall-clock time ahead.
#[derive(Clone, Debug)]
struct ShiftedClock {
    clock: SystemClock,
    ahead: Arc<AtomicU64>,
}

impl ShiftedClock {
    fn set_ahead(&self, by: Duration) {
        let by = u64::try_from(by.as_millis()).expect("a short while");
        self.ahead.store(by, Ordering::SeqCst);
    }
}

#[async_trait]
impl Clock for ShiftedClock {
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

impl TestEnv {
    /// Creates a new table on each server that was started.
    async fn all() -> Vec<Self> {
        let mut envs = Vec::new();
        for part in ["CDM_TEST_AWS_ENDPOINT", "CDM_TEST_DYNOXIDE"] {
            if let Some(address) = backends::address(part) {
                envs.push(Self::at(&address).await);
            }
        }
        envs
    }

    async fn at(direct: &str) -> Self {
        let suite = SystemEnv::new();
        let proxy = Proxy::recording(direct, Arc::new(suite.clock)).await.expect("a proxy");
        let clock = ShiftedClock { clock: suite.clock, ahead: Arc::default() };
        let name = format!("cdm-test-{}", suite.cx().uid());
        let table = DynamoTable::new(&aws(Some(&proxy.url())).await, &name, Arc::new(clock.clone()));
        table.bootstrap().await.expect("a table is made");
        proxy.take_operations();
        let store = DynamoStore::new(table.clone());
        Self { suite, proxy, direct: direct.to_owned(), name, clock, table, store }
    }

    /// Returns a store for the same table that does not use the proxy, as another process would have.
    async fn other(&self) -> DynamoStore {
        let aws = aws(Some(&self.direct)).await;
        DynamoStore::new(DynamoTable::new(&aws, &self.name, Arc::new(self.clock.clone())))
    }

    /// Creates a site, stored at version 1.
    async fn site(&self, id: &str) -> Site {
        let site = Site { uid: self.suite.cx().uid(), ..fixtures::site(id) };
        self.write(vec![Mutation::CreateSite(Box::new(site.clone()))]).await;
        self.proxy.take_operations();
        Site { version: 1, ..site }
    }

    async fn write(&self, writes: Vec<Mutation>) {
        let written = self.store.write(&self.suite.cx().call(), &WriteBatch::of(writes)).await;
        assert_eq!(written, Outcome::Applied(()));
    }

    /// Sets the wall clock ahead by more than the readers of the feed wait.
    fn skip_reader_wait(&self) {
        self.clock.ahead.fetch_add(3_000, Ordering::SeqCst);
    }

    async fn number(&self) -> u64 {
        match self.store.allocate_ids(&self.suite.cx().call(), 2).await {
            Outcome::Applied(number) => number,
            other => panic!("numbers are drawn: {other:?}"),
        }
    }
}

async fn aws(endpoint: Option<&str>) -> Aws {
    Aws::load(&AwsSettings { endpoint: endpoint.map(ToOwned::to_owned), ..AwsSettings::default() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contracts_are_fulfilled() {
    for env in TestEnv::all().await {
        store::suite(&env.store, &env.suite.cx()).await;
        tokens::suite(&DynamoTokens::new(env.table.clone()), &env.suite.cx()).await;
        env.table.check().await.expect("a response");
        cost::assert_documented_permissions(env.proxy.take_operations());
    }
}

/// On an AWS account, indexes lag, transactions conflict, and creating a table takes time.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_fulfills_the_contracts() {
    if !backends::has_aws_account() {
        return;
    }
    let suite = SystemEnv::new();
    let name = format!("cdm-test-{}", suite.cx().uid());
    let table = DynamoTable::new(&aws(None).await, &name, Arc::new(suite.clock));
    table.bootstrap().await.expect("a table is made");
    store::suite(&DynamoStore::new(table.clone()), &suite.cx()).await;
    tokens::suite(&DynamoTokens::new(table), &suite.cx()).await;
    table::client(None).await.delete_table().table_name(name).send().await.expect("the table is deleted");
}
