//! Credentials in Secrets Manager: the promises of the port on moto, on a stand-in that is as strict as AWS, and with
//! `CDM_TEST_AWS=1` on an account.

#[path = "../parts/mod.rs"]
mod parts;
mod strict;
mod trouble;
#[path = "../wire/mod.rs"]
mod wire;

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
use cdm_testkit::contract;
use secrecy::SecretString;

use parts::Bench;
use wire::{Wire, passed_on};

/// What no message may show.
const HUSHED: &str = "a-hushed-word";

/// A store of secrets, whose requests go over a wire that can fail.
#[derive(Debug)]
struct Lab {
    bench: Bench,
    wire: Wire,
    secrets: SecretsManager,
    prefix: String,
}

impl Lab {
    /// On moto and on the strict stand-in; nothing where parts were not started.
    async fn both() -> Vec<Self> {
        let Some(moto) = parts::address("CDM_TEST_AWS_ENDPOINT") else { return Vec::new() };
        let wire = Wire::start(move |request| passed_on(&moto, request));
        vec![Self::at(wire).await, Self::at(strict::start()).await]
    }

    async fn at(wire: Wire) -> Self {
        let bench = Bench::new();
        let prefix = format!("cdm/{}", bench.cx().uid());
        let secrets = secrets(&wire.endpoint(), &prefix, bench.clock).await.expect("settings");
        Self { bench, wire, secrets, prefix }
    }

    /// A client of the test's own, past the adapter.
    async fn client(&self) -> Client {
        Client::new(&config().endpoint_url(self.wire.endpoint()).load().await)
    }

    fn name(&self, kind: SecretKind) -> SecretName {
        SecretName { uid: self.bench.cx().uid(), kind }
    }

    fn id(&self, name: &SecretName) -> String {
        format!("{}/{name}", self.prefix)
    }

    async fn create(&self, name: &SecretName, value: &Credentials) -> Outcome<()> {
        self.secrets.create(&self.bench.cx().call(), name, value).await
    }

    async fn close(&self, name: &SecretName) -> Outcome<()> {
        self.secrets.schedule_delete(&self.bench.cx().call(), name).await
    }

    async fn reads(&self, name: &SecretName) -> Option<StoredSecret> {
        self.secrets.read(name).await.expect("an answer")
    }
}

/// For a client of the test's own.
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

fn refused_as(kind: ErrorKind, outcome: &Outcome<()>) {
    assert!(matches!(outcome, Outcome::NotApplied(error) if error.kind == kind), "{kind:?}: {outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_is_kept() {
    for lab in Lab::both().await {
        contract::secrets::suite(&lab.secrets, &lab.bench.cx()).await;
        lab.secrets.check().await.expect("it answers");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_tags_and_values_are_the_public_ones() {
    for lab in Lab::both().await {
        let client = lab.client().await;
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
            let name = lab.name(kind);
            assert_eq!(lab.create(&name, &value).await, Outcome::Applied(()));
            let held = client.get_secret_value().secret_id(lab.id(&name)).send().await.expect("a value");
            assert_eq!(held.secret_string(), Some(text));
            let described = client.describe_secret().secret_id(lab.id(&name)).send().await.expect("a secret");
            let uid = name.uid.to_string();
            for (key, value) in [("managed-by", "cdm"), ("cdm-uid", uid.as_str())] {
                let tagged = |tag: &Tag| tag.key() == Some(key) && tag.value() == Some(value);
                assert!(described.tags().iter().any(tagged), "{key}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_someone_elses_is_left_alone() {
    for lab in Lab::both().await {
        let client = lab.client().await;
        let other = lab.bench.cx().uid().to_string();
        let tags = [
            vec![],
            vec![("managed-by", "cdm")],
            vec![("managed-by", "somebody"), ("cdm-uid", "own")],
            vec![("managed-by", "cdm"), ("cdm-uid", other.as_str())],
        ];
        for tags in tags {
            let name = lab.name(SecretKind::Cms);
            let uid = name.uid.to_string();
            let tag = |(key, value): (&str, &str)| {
                Tag::builder().key(key).value(if value == "own" { &uid } else { value }).build()
            };
            let tags = Some(tags.into_iter().map(tag).collect());
            let text = r#"{"username":"a","password":"b","email":"c"}"#;
            let make = client.create_secret().name(lab.id(&name)).secret_string(text).set_tags(tags);
            make.send().await.expect("a stranger's secret");
            refused_as(ErrorKind::Foreign, &lab.create(&name, &cms("p")).await);
            refused_as(ErrorKind::Foreign, &lab.close(&name).await);
            let read = lab.secrets.read(&name).await.expect_err("not ours");
            assert_eq!(read.kind, ErrorKind::Foreign);
            let held = client.get_secret_value().secret_id(lab.id(&name)).send().await.expect("still there");
            assert_eq!(held.secret_string(), Some(text));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_holds_no_credentials_is_not_read_as_such() {
    for lab in Lab::both().await {
        let client = lab.client().await;
        let (name, uid) = (lab.name(SecretKind::Database), lab.bench.cx().uid());
        assert_eq!(lab.create(&name, &database("p")).await, Outcome::Applied(()));
        refused_as(ErrorKind::Invalid, &lab.create(&SecretName { uid, ..name }, &cms("p")).await);
        let described = client.describe_secret().secret_id(lab.id(&name)).send().await.expect("a secret");
        let name = SecretName { uid, ..name };
        let swap = |tag: &Tag| {
            let value = if tag.key() == Some("cdm-uid") { uid.to_string() } else { "cdm".to_owned() };
            Tag::builder().set_key(tag.key().map(str::to_owned)).value(value).build()
        };
        let tags = described.tags().iter().map(swap).collect();
        let make = client.create_secret().name(lab.id(&name)).secret_string("{}").set_tags(Some(tags));
        make.send().await.expect("a secret of ours that holds nothing of use");
        assert_eq!(lab.secrets.read(&name).await.expect_err("no credentials").kind, ErrorKind::Foreign);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_window_is_seven_days_and_does_not_move() {
    for lab in Lab::both().await {
        let client = lab.client().await;
        for stored in [true, false] {
            let name = lab.name(SecretKind::Cms);
            if stored {
                assert_eq!(lab.create(&name, &cms("p")).await, Outcome::Applied(()));
            }
            lab.wire.asked();
            assert_eq!(lab.close(&name).await, Outcome::Applied(()));
            let asked = lab.wire.asked();
            let delete =
                asked.iter().find(|request| request.operation() == "DeleteSecret").expect("a delete");
            let body: serde_json::Value = serde_json::from_slice(&delete.body).expect("JSON");
            assert_eq!(body["RecoveryWindowInDays"], 7);
            assert_eq!(body["ForceDeleteWithoutRecovery"], serde_json::Value::Null);
            let until = async || {
                let described = client.describe_secret().secret_id(lab.id(&name)).send().await;
                described.expect("a secret").deleted_date().copied()
            };
            let end = until().await;
            assert!(end.is_some());
            lab.wire.asked();
            assert_eq!(lab.close(&name).await, Outcome::Applied(()));
            assert_eq!(lab.wire.operations(), ["DescribeSecret"]);
            assert_eq!(until().await, end);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_creators_one_is_first() {
    for lab in Lab::both().await {
        for _ in 0..5 {
            let name = lab.name(SecretKind::Cms);
            let values: Vec<_> = (0..6).map(|n| cms(&format!("p{n}"))).collect();
            let outcomes =
                futures_util::future::join_all(values.iter().map(|value| lab.create(&name, value))).await;
            let applied: Vec<_> = (0..6).filter(|&n| outcomes[n] == Outcome::Applied(())).collect();
            assert_eq!(applied.len(), 1, "{outcomes:?}");
            for outcome in outcomes.iter().filter(|outcome| **outcome != Outcome::Applied(())) {
                refused_as(ErrorKind::Exists, outcome);
            }
            let Some(StoredSecret::Value(held)) = lab.reads(&name).await else { panic!("a value") };
            assert!(held == values[applied[0]]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_beside_a_deletion_leaves_nothing() {
    for lab in Lab::both().await {
        for _ in 0..10 {
            let (name, value) = (lab.name(SecretKind::Database), database("p"));
            let (_, closed, _, again) = tokio::join!(
                lab.create(&name, &value),
                lab.close(&name),
                lab.create(&name, &value),
                lab.close(&name)
            );
            // A deletion that meets another one's tombstone, or a create, may have to be repeated, and never fails.
            for outcome in [&closed, &again] {
                match outcome {
                    Outcome::Applied(()) => {}
                    Outcome::NotApplied(error) | Outcome::Unknown(error) => {
                        assert!(error.is_retryable(), "{error}")
                    }
                }
            }
            assert_eq!(lab.close(&name).await, Outcome::Applied(()));
            assert!(matches!(lab.reads(&name).await, Some(StoredSecret::Deleting)));
            refused_as(ErrorKind::Gone, &lab.create(&name, &value).await);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_is_judged() {
    let Some(lab) = &Lab::both().await.pop() else { return };
    let (most, too_much) = ("a".repeat(400), "a".repeat(401));
    let with = |prefix| async move { secrets(&lab.wire.endpoint(), prefix, lab.bench.clock).await };
    for prefix in ["", "/a", "a/", "a b", "a*", "é", too_much.as_str()] {
        assert_eq!(with(prefix).await.expect_err(prefix), PrefixError);
    }
    for prefix in ["cdm", "a/b_c+d=e.f@g-h", most.as_str()] {
        with(prefix).await.expect(prefix);
    }
}

/// Below a prefix of its own, whose secrets are deleted afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_keeps_the_contract() {
    #[expect(
        clippy::disallowed_methods,
        reason = "tests are told by their surroundings whether there is an account"
    )]
    if std::env::var("CDM_TEST_AWS").as_deref() != Ok("1") {
        return;
    }
    let bench = Bench::new();
    let prefix = format!("cdm-test/{}", bench.cx().uid());
    let settings = SecretsManagerSettings { prefix: prefix.clone() };
    let aws = Aws::load(&AwsSettings::default()).await;
    let secrets = SecretsManager::new(&aws, &settings, Arc::new(bench.clock)).expect("settings");
    contract::secrets::suite(&secrets, &bench.cx()).await;
    secrets.check().await.expect("it answers");
    let client = Client::new(&config().load().await);
    let named = Filter::builder().key(FilterNameStringType::Name).values(format!("{prefix}/")).build();
    let listed = client.list_secrets().filters(named).include_planned_deletion(true).max_results(100);
    for secret in listed.send().await.expect("secrets").secret_list() {
        let delete = client.delete_secret().set_secret_id(secret.arn().map(str::to_owned));
        delete.force_delete_without_recovery(true).send().await.expect("deleted");
    }
}
