//! Lost and late responses, and rejections.

use std::time::Duration;

use cdm_core::domain::SecretKind;
use cdm_core::ports::{CallContext, Clock, ErrorKind, Outcome, SecretStore, StoredSecret};
use cdm_testkit::proxy::{HttpFault, HttpResponse};

use crate::strict::error;
use crate::{HUSHED, TestEnv, assert_rejected, cms, secrets};

fn unknown(outcome: &Outcome<()>) {
    assert!(matches!(outcome, Outcome::Unknown(error) if error.is_retryable()), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_response_is_unknown_and_resolved_by_a_repetition() {
    for env in TestEnv::both().await {
        let (name, value) = (env.name(SecretKind::Cms), cms("p"));
        let call = env.suite.cx().call();
        env.proxy.next("CreateSecret", HttpFault::LoseResponse);
        unknown(&env.secrets.create(&call, &name, &value).await);
        assert!(matches!(env.reads(&name).await, Some(StoredSecret::Value(stored)) if stored == value));
        assert_eq!(env.secrets.create(&call, &name, &value).await, Outcome::Applied(()));
        assert_rejected(ErrorKind::Exists, &env.create(&name, &cms("q")).await);
        assert!(matches!(env.reads(&name).await, Some(StoredSecret::Value(stored)) if stored == value));

        // The adapter reads the state before it reports an unknown outcome.
        env.proxy.next("DeleteSecret", HttpFault::LoseResponse);
        assert_eq!(env.close(&name).await, Outcome::Applied(()));
        assert!(matches!(env.reads(&name).await, Some(StoredSecret::Deleting)));

        let nothing = env.name(SecretKind::Cms);
        env.proxy.next("CreateSecret", HttpFault::LoseResponse);
        unknown(&env.close(&nothing).await);
        // A half-finished close already rejects a create.
        assert_rejected(ErrorKind::Gone, &env.create(&nothing, &value).await);
        assert!(matches!(env.reads(&nothing).await, Some(StoredSecret::Deleting)));
        assert_eq!(env.close(&nothing).await, Outcome::Applied(()));
        assert_rejected(ErrorKind::Gone, &env.create(&nothing, &value).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_aws_map_to_errors_of_the_port() {
    for env in TestEnv::both().await {
        let name = env.name(SecretKind::Cms);
        let throttled = ErrorKind::Throttled(None);
        for (code, status, kind, lost) in [
            ("ThrottlingException", 400, throttled, false),
            ("AccessDeniedException", 400, ErrorKind::Denied, false),
            ("InternalServiceError", 500, ErrorKind::Unavailable, true),
            ("", 503, ErrorKind::Unavailable, true),
            ("", 504, ErrorKind::Unavailable, true),
        ] {
            let respond = |operation| env.proxy.next(operation, HttpFault::Respond(error(status, code)));
            let assert_outcome = |outcome: Outcome<()>| match (lost, outcome) {
                (true, Outcome::Unknown(error)) | (false, Outcome::NotApplied(error)) => {
                    assert_eq!(error.kind, kind, "{code}: {error}");
                    assert!(!error.to_string().contains("a-message-of-the-service"), "{error}");
                }
                (_, outcome) => panic!("{code}: {outcome:?}"),
            };
            respond("CreateSecret");
            assert_outcome(env.create(&name, &cms("p")).await);
            respond("CreateSecret");
            assert_outcome(env.close(&name).await);
            respond("DescribeSecret");
            assert_eq!(env.secrets.read(&name).await.expect_err(code).kind, kind);
            respond("DescribeSecret");
            assert_eq!(env.secrets.check().await.expect_err(code).kind, kind);
            // As long as the call only reads, nothing can have happened.
            respond("DescribeSecret");
            assert_rejected(kind, &env.close(&name).await);
        }
        // A truncated response is not a response.
        env.proxy.next("CreateSecret", HttpFault::Respond(error(400, "ResourceExistsException").truncated()));
        unknown(&env.create(&name, &cms("p")).await);
        assert!(env.reads(&name).await.is_none());
        let stored = env.name(SecretKind::Cms);
        assert_eq!(env.create(&stored, &cms("p")).await, Outcome::Applied(()));
        env.proxy.next("DeleteSecret", HttpFault::Respond(error(400, "ThrottlingException")));
        assert_rejected(throttled, &env.close(&stored).await);
        env.proxy.next("DeleteSecret", HttpFault::Respond(error(500, "InternalServiceError")));
        unknown(&env.close(&stored).await);
        env.proxy.next("GetSecretValue", HttpFault::Respond(error(400, "AccessDeniedException")));
        assert_eq!(env.secrets.read(&stored).await.expect_err("denied").kind, ErrorKind::Denied);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_not_visible_yet_is_awaited() {
    for env in TestEnv::both().await {
        let unseen = || HttpFault::Respond(error(400, "ResourceNotFoundException"));
        let name = env.name(SecretKind::Cms);
        env.proxy.next("DescribeSecret", unseen());
        assert_eq!(env.create(&name, &cms("p")).await, Outcome::Applied(()));
        env.proxy.next("DescribeSecret", unseen());
        assert_rejected(ErrorKind::Conflict, &env.create(&name, &cms("q")).await);
        env.proxy.next("GetSecretValue", unseen());
        assert!(env.reads(&name).await.is_none());
        // A deletion detects the secret by an attempt to create it.
        for _ in 0..2 {
            env.proxy.next("DescribeSecret", unseen());
        }
        assert_rejected(ErrorKind::Conflict, &env.close(&name).await);
        env.proxy.next("DeleteSecret", unseen());
        assert_rejected(ErrorKind::Conflict, &env.close(&name).await);
        env.proxy.next("DescribeSecret", unseen());
        assert_eq!(env.close(&name).await, Outcome::Applied(()));
        assert!(matches!(env.reads(&name).await, Some(StoredSecret::Deleting)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_ends_at_its_deadline() {
    for env in TestEnv::both().await {
        let name = env.name(SecretKind::Cms);
        let late = env.suite.cx().late_call().await;
        env.proxy.take_requests();
        assert_rejected(ErrorKind::Unavailable, &env.secrets.create(&late, &name, &cms("p")).await);
        assert_rejected(ErrorKind::Unavailable, &env.secrets.schedule_delete(&late, &name).await);
        assert_eq!(env.proxy.take_operations(), [] as [String; 0]);

        let deadline = env.suite.clock.monotonic().after(Duration::from_millis(300));
        env.proxy.next("CreateSecret", HttpFault::NeverRespond);
        let call = CallContext { deadline, ..env.suite.cx().call() };
        unknown(&env.secrets.create(&call, &name, &cms("p")).await);
        let over = env.suite.clock.monotonic().since(deadline);
        assert!(over < Duration::from_millis(500), "{over:?} after the deadline");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_not_shown() {
    for env in TestEnv::both().await {
        let (name, value) = (env.name(SecretKind::Cms), cms(HUSHED));
        let mut shown = vec![format!("{:?}", env.secrets), format!("{value:?}")];
        for (status, code) in [(400, "ValidationException"), (500, "InternalServiceError")] {
            env.proxy.next("CreateSecret", HttpFault::Respond(error(status, code)));
            shown.push(format!("{:?}", env.create(&name, &value).await));
        }
        env.proxy.next("CreateSecret", HttpFault::Respond(HttpResponse::new(400, "text/plain", HUSHED)));
        shown.push(format!("{:?}", env.create(&name, &value).await));
        assert_eq!(env.create(&name, &value).await, Outcome::Applied(()));
        shown.push(format!("{:?}", env.create(&name, &value).await));
        shown.push(format!("{:?}", env.reads(&name).await));
        for text in shown {
            assert!(!text.contains(HUSHED) && !text.contains("127.0.0.1"), "{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_server_is_unavailable() {
    let Some(env) = TestEnv::both().await.pop() else { return };
    // A port without a listener.
    let endpoint =
        std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address");
    let unreachable =
        secrets(&format!("http://{endpoint}"), &env.prefix, env.suite.clock).await.expect("settings");
    assert_eq!(unreachable.check().await.expect_err("no server").kind, ErrorKind::Unavailable);
    let name = env.name(SecretKind::Cms);
    assert_rejected(
        ErrorKind::Unavailable,
        &unreachable.schedule_delete(&env.suite.cx().call(), &name).await,
    );
    unknown(&unreachable.create(&env.suite.cx().call(), &name, &cms("p")).await);
}
