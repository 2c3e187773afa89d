//! Credentials in Secrets Manager: the contract of the port on moto, on a stub that enforces the limits of AWS, and on
//! an AWS account if `CDM_TEST_AWS=1`.

mod failures;
mod strict;

use std::sync::Arc;

use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::types::{Filter, FilterNameStringType, Tag};
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use cdm_core::adapters::SystemClock;
use cdm_core::adapters::aws::{Aws, AwsSettings};
use cdm_core::adapters::secrets_manager::{PrefixError, SecretsManager, SecretsManagerSettings};
use cdm_core::domain::webhook::SigningKey;
use cdm_core::domain::{SecretKind, SecretName};
use cdm_core::ports::{Cms, Credentials, Database, ErrorKind, Outcome, SecretStore, StoredSecret};
use cdm_testkit::backends;
use cdm_testkit::contract::{self, SystemEnv};
use cdm_testkit::proxy::Proxy;
use secrecy::SecretString;

/// Text that no message may contain.
const HUSHED: &str = "a-hushed-word";

/// A secret store whose requests go through a proxy with injectable faults.
#[derive(Debug)]
struct TestEnv {
    suite: SystemEnv,
    proxy: Proxy,
    secrets: SecretsManager,
    prefix: String,
}

impl TestEnv {
    /// Creates an environment on moto and one on the strict stub; none if the backends were not started.
    async fn both() -> Vec<Self> {
        let Some(moto) = backends::address("CDM_TEST_AWS_ENDPOINT") else { return Vec::new() };
        let clock = Arc::new(SystemClock::new());
        let proxy = Proxy::recording(&moto, clock.clone()).await.expect("a proxy");
        vec![Self::at(proxy).await, Self::at(strict::start(clock).await).await]
    }

    async fn at(proxy: Proxy) -> Self {
        let suite = SystemEnv::new();
        let prefix = format!("cdm/{}", suite.cx().uid());
        let secrets = secrets(&proxy.url(), &prefix, suite.clock).await.expect("settings");
        Self { suite, proxy, secrets, prefix }
    }

    /// Returns a separate client, without the adapter.
    async fn client(&self) -> Client {
        Client::new(&config().endpoint_url(self.proxy.url()).load().await)
    }

    fn name(&self, kind: SecretKind) -> SecretName {
        SecretName { uid: self.suite.cx().uid(), kind }
    }

    fn id(&self, name: &SecretName) -> String {
        format!("{}/{name}", self.prefix)
    }

    async fn create(&self, name: &SecretName, value: &Credentials) -> Outcome<()> {
        self.secrets.create(&self.suite.cx().call(), name, value).await
    }

    async fn close(&self, name: &SecretName) -> Outcome<()> {
        self.secrets.schedule_delete(&self.suite.cx().call(), name).await
    }

    async fn reads(&self, name: &SecretName) -> Option<StoredSecret> {
        self.secrets.read(name).await.expect("a response")
    }
}

/// Returns the configuration of a separate client.
fn config() -> aws_config::ConfigLoader {
    let http = aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring));
    aws_config::defaults(aws_config::BehaviorVersion::latest()).http_client(http.build_https())
}

async fn secrets(endpoint: &str, prefix: &str, clock: SystemClock) -> Result<SecretsManager, PrefixError> {
    let aws = Aws::load(&AwsSettings { endpoint: Some(endpoint.to_owned()), ..AwsSettings::default() }).await;
    SecretsManager::new(&aws, &SecretsManagerSettings { prefix: prefix.to_owned() }, Arc::new(clock))
}

fn cms(password: &str) -> Credentials {
    let password = SecretString::from(password.to_owned());
    Credentials::Cms(Cms { username: "admin".to_owned(), password, email: "admin@example.test".to_owned() })
}

fn database(password: &str) -> Credentials {
    let password = SecretString::from(password.to_owned());
    let (host, name) = ("db.example.test".to_owned(), "site".to_owned());
    Credentials::Database(Database { host, port: 3306, dbname: name.clone(), username: name, password })
}

fn assert_rejected(kind: ErrorKind, outcome: &Outcome<()>) {
    assert!(matches!(outcome, Outcome::NotApplied(error) if error.kind == kind), "{kind:?}: {outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_is_fulfilled() {
    for env in TestEnv::both().await {
        contract::secrets::suite(&env.secrets, &env.suite.cx()).await;
        env.secrets.check().await.expect("a response");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_tags_and_values_are_as_documented() {
    for env in TestEnv::both().await {
        let client = env.client().await;
        let expected = [
            (
                SecretKind::Database,
                database("p"),
                r#"{"host":"db.example.test","port":3306,"dbname":"site","username":"site","password":"p"}"#,
            ),
            (
                SecretKind::Cms,
                cms("p"),
                r#"{"username":"admin","password":"p","email":"admin@example.test"}"#,
            ),
            (
                SecretKind::Webhook,
                Credentials::Webhook(SigningKey::new(&[7; 32])),
                r#"{"key":"whsec_BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="}"#,
            ),
        ];
        for (kind, value, text) in expected {
            let name = env.name(kind);
            assert_eq!(env.create(&name, &value).await, Outcome::Applied(()));
            let stored = client.get_secret_value().secret_id(env.id(&name)).send().await.expect("a value");
            assert_eq!(stored.secret_string(), Some(text));
            let described = client.describe_secret().secret_id(env.id(&name)).send().await.expect("a secret");
            let uid = name.uid.to_string();
            for (key, value) in [("managed-by", "cdm"), ("cdm-uid", uid.as_str())] {
                let tagged = |tag: &Tag| tag.key() == Some(key) && tag.value() == Some(value);
                assert!(described.tags().iter().any(tagged), "{key}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_secrets_are_not_changed() {
    for env in TestEnv::both().await {
        let client = env.client().await;
        let other = env.suite.cx().uid().to_string();
        let tags = [
            vec![],
            vec![("managed-by", "cdm")],
            vec![("managed-by", "another"), ("cdm-uid", "own")],
            vec![("managed-by", "cdm"), ("cdm-uid", other.as_str())],
        ];
        for tags in tags {
            let name = env.name(SecretKind::Cms);
            let uid = name.uid.to_string();
            let tag = |(key, value): (&str, &str)| {
                Tag::builder().key(key).value(if value == "own" { &uid } else { value }).build()
            };
            let tags = Some(tags.into_iter().map(tag).collect());
            let text = r#"{"username":"a","password":"b","email":"c"}"#;
            let create = client.create_secret().name(env.id(&name)).secret_string(text).set_tags(tags);
            create.send().await.expect("a foreign secret");
            assert_rejected(ErrorKind::Foreign, &env.create(&name, &cms("p")).await);
            assert_rejected(ErrorKind::Foreign, &env.close(&name).await);
            let read = env.secrets.read(&name).await.expect_err("not a secret of CDM");
            assert_eq!(read.kind, ErrorKind::Foreign);
            let stored = client
                .get_secret_value()
                .secret_id(env.id(&name))
                .send()
                .await
                .expect("the secret still exists");
            assert_eq!(stored.secret_string(), Some(text));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_without_credentials_is_an_error() {
    for env in TestEnv::both().await {
        let client = env.client().await;
        let (name, uid) = (env.name(SecretKind::Database), env.suite.cx().uid());
        assert_eq!(env.create(&name, &database("p")).await, Outcome::Applied(()));
        assert_rejected(ErrorKind::Invalid, &env.create(&SecretName { uid, ..name }, &cms("p")).await);
        let described = client.describe_secret().secret_id(env.id(&name)).send().await.expect("a secret");
        let name = SecretName { uid, ..name };
        let swap = |tag: &Tag| {
            let value = if tag.key() == Some("cdm-uid") { uid.to_string() } else { "cdm".to_owned() };
            Tag::builder().set_key(tag.key().map(str::to_owned)).value(value).build()
        };
        let tags = described.tags().iter().map(swap).collect();
        let create = client.create_secret().name(env.id(&name)).secret_string("{}").set_tags(Some(tags));
        create.send().await.expect("a secret of CDM without valid credentials");
        assert_eq!(env.secrets.read(&name).await.expect_err("no credentials").kind, ErrorKind::Foreign);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_recovery_window_is_seven_days_and_is_not_extended() {
    for env in TestEnv::both().await {
        let client = env.client().await;
        for stored in [true, false] {
            let name = env.name(SecretKind::Cms);
            if stored {
                assert_eq!(env.create(&name, &cms("p")).await, Outcome::Applied(()));
            }
            env.proxy.take_requests();
            assert_eq!(env.close(&name).await, Outcome::Applied(()));
            let requests = env.proxy.take_requests();
            let delete =
                requests.iter().find(|request| request.operation() == "DeleteSecret").expect("a delete");
            let body: serde_json::Value = serde_json::from_slice(&delete.body).expect("JSON");
            assert_eq!(body["RecoveryWindowInDays"], 7);
            assert_eq!(body["ForceDeleteWithoutRecovery"], serde_json::Value::Null);
            let until = async || {
                let described = client.describe_secret().secret_id(env.id(&name)).send().await;
                described.expect("a secret").deleted_date().copied()
            };
            let end = until().await;
            assert!(end.is_some());
            env.proxy.take_requests();
            assert_eq!(env.close(&name).await, Outcome::Applied(()));
            assert_eq!(env.proxy.take_operations(), ["DescribeSecret"]);
            assert_eq!(until().await, end);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_concurrent_creates_one_wins() {
    for env in TestEnv::both().await {
        for _ in 0..5 {
            let name = env.name(SecretKind::Cms);
            let values: Vec<_> = (0..6).map(|n| cms(&format!("p{n}"))).collect();
            let outcomes =
                futures_util::future::join_all(values.iter().map(|value| env.create(&name, value))).await;
            let applied: Vec<_> = (0..6).filter(|&n| outcomes[n] == Outcome::Applied(())).collect();
            assert_eq!(applied.len(), 1, "{outcomes:?}");
            for outcome in outcomes.iter().filter(|outcome| **outcome != Outcome::Applied(())) {
                assert_rejected(ErrorKind::Exists, outcome);
            }
            let Some(StoredSecret::Value(stored)) = env.reads(&name).await else { panic!("a value") };
            assert!(stored == values[applied[0]]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_during_a_deletion_leaves_nothing() {
    for env in TestEnv::both().await {
        for _ in 0..10 {
            let (name, value) = (env.name(SecretKind::Database), database("p"));
            let (_, closed, _, again) = tokio::join!(
                env.create(&name, &value),
                env.close(&name),
                env.create(&name, &value),
                env.close(&name)
            );
            // A deletion that conflicts with a tombstone of another call, or with a create, may have to be repeated,
            // and never fails.
            for outcome in [&closed, &again] {
                match outcome {
                    Outcome::Applied(()) => {}
                    Outcome::NotApplied(error) | Outcome::Unknown(error) => {
                        assert!(error.is_retryable(), "{error}")
                    }
                }
            }
            assert_eq!(env.close(&name).await, Outcome::Applied(()));
            assert!(matches!(env.reads(&name).await, Some(StoredSecret::Deleting)));
            assert_rejected(ErrorKind::Gone, &env.create(&name, &value).await);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_is_validated() {
    let Some(env) = &TestEnv::both().await.pop() else { return };
    let (most, too_much) = ("a".repeat(400), "a".repeat(401));
    let with = |prefix| async move { secrets(&env.proxy.url(), prefix, env.suite.clock).await };
    for prefix in ["", "/a", "a/", "a b", "a*", "é", too_much.as_str()] {
        assert_eq!(with(prefix).await.expect_err(prefix), PrefixError);
    }
    for prefix in ["cdm", "a/b_c+d=e.f@g-h", most.as_str()] {
        with(prefix).await.expect(prefix);
    }
}

/// Uses a separate prefix, whose secrets are deleted afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_fulfills_the_contract() {
    if !backends::has_aws_account() {
        return;
    }
    let suite = SystemEnv::new();
    let prefix = format!("cdm-test/{}", suite.cx().uid());
    let settings = SecretsManagerSettings { prefix: prefix.clone() };
    let aws = Aws::load(&AwsSettings::default()).await;
    let secrets = SecretsManager::new(&aws, &settings, Arc::new(suite.clock)).expect("settings");
    contract::secrets::suite(&secrets, &suite.cx()).await;
    secrets.check().await.expect("a response");
    let client = Client::new(&config().load().await);
    let named = Filter::builder().key(FilterNameStringType::Name).values(format!("{prefix}/")).build();
    let listed = client.list_secrets().filters(named).include_planned_deletion(true).max_results(100);
    for secret in listed.send().await.expect("secrets").secret_list() {
        let delete = client.delete_secret().set_secret_id(secret.arn().map(str::to_owned));
        delete.force_delete_without_recovery(true).send().await.expect("deleted");
    }
}
