//! Answers that are lost or late, and refusals.

use std::time::Duration;

use cdm_core::domain::SecretKind;
use cdm_core::ports::{CallContext, Clock, ErrorKind, Outcome, SecretStore, StoredSecret};

use crate::strict::error;
use crate::wire::{Answer, Fault};
use crate::{HUSHED, Lab, cms, refused_as, secrets};

fn unknown(outcome: &Outcome<()>) {
    assert!(matches!(outcome, Outcome::Unknown(error) if error.is_retryable()), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_unknown_and_found_again() {
    for lab in Lab::both().await {
        let (name, value) = (lab.name(SecretKind::Cms), cms("p"));
        let call = lab.bench.cx().call();
        lab.wire.next("CreateSecret", Fault::LoseAnswer);
        unknown(&lab.secrets.create(&call, &name, &value).await);
        assert!(matches!(lab.reads(&name).await, Some(StoredSecret::Value(held)) if held == value));
        assert_eq!(lab.secrets.create(&call, &name, &value).await, Outcome::Applied(()));
        refused_as(ErrorKind::Exists, &lab.create(&name, &cms("q")).await);
        assert!(matches!(lab.reads(&name).await, Some(StoredSecret::Value(held)) if held == value));

        // It looks before it says that it does not know.
        lab.wire.next("DeleteSecret", Fault::LoseAnswer);
        assert_eq!(lab.close(&name).await, Outcome::Applied(()));
        assert!(matches!(lab.reads(&name).await, Some(StoredSecret::Deleting)));

        let nothing = lab.name(SecretKind::Cms);
        lab.wire.next("CreateSecret", Fault::LoseAnswer);
        unknown(&lab.close(&nothing).await);
        // Half closed keeps a create out already.
        refused_as(ErrorKind::Gone, &lab.create(&nothing, &value).await);
        assert!(matches!(lab.reads(&nothing).await, Some(StoredSecret::Deleting)));
        assert_eq!(lab.close(&nothing).await, Outcome::Applied(()));
        refused_as(ErrorKind::Gone, &lab.create(&nothing, &value).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_aws_says_is_what_the_port_says() {
    for lab in Lab::both().await {
        let name = lab.name(SecretKind::Cms);
        let throttled = ErrorKind::Throttled(None);
        for (code, status, kind, lost) in [
            ("ThrottlingException", 400, throttled, false),
            ("AccessDeniedException", 400, ErrorKind::Denied, false),
            ("InternalServiceError", 500, ErrorKind::Unavailable, true),
            ("", 503, ErrorKind::Unavailable, true),
            ("", 504, ErrorKind::Unavailable, true),
        ] {
            let say = |operation| lab.wire.next(operation, Fault::Say(error(status, code)));
            let told = |outcome: Outcome<()>| match (lost, outcome) {
                (true, Outcome::Unknown(error)) | (false, Outcome::NotApplied(error)) => {
                    assert_eq!(error.kind, kind, "{code}: {error}");
                    assert!(!error.to_string().contains("a-message-of-the-service"), "{error}");
                }
                (_, outcome) => panic!("{code}: {outcome:?}"),
            };
            say("CreateSecret");
            told(lab.create(&name, &cms("p")).await);
            say("CreateSecret");
            told(lab.close(&name).await);
            say("DescribeSecret");
            assert_eq!(lab.secrets.read(&name).await.expect_err(code).kind, kind);
            say("DescribeSecret");
            assert_eq!(lab.secrets.check().await.expect_err(code).kind, kind);
            // While it only looks, nothing can have happened.
            say("DescribeSecret");
            refused_as(kind, &lab.close(&name).await);
        }
        // An answer that is cut short is none.
        lab.wire.next("CreateSecret", Fault::Say(error(400, "ResourceExistsException").cut()));
        unknown(&lab.create(&name, &cms("p")).await);
        assert!(lab.reads(&name).await.is_none());
        let stored = lab.name(SecretKind::Cms);
        assert_eq!(lab.create(&stored, &cms("p")).await, Outcome::Applied(()));
        lab.wire.next("DeleteSecret", Fault::Say(error(400, "ThrottlingException")));
        refused_as(throttled, &lab.close(&stored).await);
        lab.wire.next("DeleteSecret", Fault::Say(error(500, "InternalServiceError")));
        unknown(&lab.close(&stored).await);
        lab.wire.next("GetSecretValue", Fault::Say(error(400, "AccessDeniedException")));
        assert_eq!(lab.secrets.read(&stored).await.expect_err("denied").kind, ErrorKind::Denied);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_cannot_be_seen_yet_is_waited_for() {
    for lab in Lab::both().await {
        let unseen = || Fault::Say(error(400, "ResourceNotFoundException"));
        let name = lab.name(SecretKind::Cms);
        lab.wire.next("DescribeSecret", unseen());
        assert_eq!(lab.create(&name, &cms("p")).await, Outcome::Applied(()));
        lab.wire.next("DescribeSecret", unseen());
        refused_as(ErrorKind::Conflict, &lab.create(&name, &cms("q")).await);
        lab.wire.next("GetSecretValue", unseen());
        assert!(lab.reads(&name).await.is_none());
        // A deletion finds it by trying to make it.
        for _ in 0..2 {
            lab.wire.next("DescribeSecret", unseen());
        }
        refused_as(ErrorKind::Conflict, &lab.close(&name).await);
        lab.wire.next("DeleteSecret", unseen());
        refused_as(ErrorKind::Conflict, &lab.close(&name).await);
        lab.wire.next("DescribeSecret", unseen());
        assert_eq!(lab.close(&name).await, Outcome::Applied(()));
        assert!(matches!(lab.reads(&name).await, Some(StoredSecret::Deleting)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_ends_with_its_deadline() {
    for lab in Lab::both().await {
        let name = lab.name(SecretKind::Cms);
        let late = lab.bench.cx().late_call().await;
        lab.wire.asked();
        refused_as(ErrorKind::Unavailable, &lab.secrets.create(&late, &name, &cms("p")).await);
        refused_as(ErrorKind::Unavailable, &lab.secrets.schedule_delete(&late, &name).await);
        assert_eq!(lab.wire.operations(), [] as [String; 0]);

        let deadline = lab.bench.clock.monotonic().after(Duration::from_millis(300));
        lab.wire.next("CreateSecret", Fault::KeepBack);
        let call = CallContext { deadline, ..lab.bench.cx().call() };
        unknown(&lab.secrets.create(&call, &name, &cms("p")).await);
        let over = lab.bench.clock.monotonic().since(deadline);
        assert!(over < Duration::from_millis(500), "{over:?} after its deadline");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_shown() {
    for lab in Lab::both().await {
        let (name, value) = (lab.name(SecretKind::Cms), cms(HUSHED));
        let mut shown = vec![format!("{:?}", lab.secrets), format!("{value:?}")];
        for (status, code) in [(400, "ValidationException"), (500, "InternalServiceError")] {
            lab.wire.next("CreateSecret", Fault::Say(error(status, code)));
            shown.push(format!("{:?}", lab.create(&name, &value).await));
        }
        lab.wire.next("CreateSecret", Fault::Say(Answer::new(400, "text/plain", HUSHED)));
        shown.push(format!("{:?}", lab.create(&name, &value).await));
        assert_eq!(lab.create(&name, &value).await, Outcome::Applied(()));
        shown.push(format!("{:?}", lab.create(&name, &value).await));
        shown.push(format!("{:?}", lab.reads(&name).await));
        for text in shown {
            assert!(!text.contains(HUSHED) && !text.contains("127.0.0.1"), "{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_is_unavailable() {
    let Some(lab) = Lab::both().await.pop() else { return };
    // A port that nobody listens on any more.
    let endpoint =
        std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address");
    let nobody =
        secrets(&format!("http://{endpoint}"), &lab.prefix, lab.bench.clock).await.expect("settings");
    assert_eq!(nobody.check().await.expect_err("nobody").kind, ErrorKind::Unavailable);
    let name = lab.name(SecretKind::Cms);
    refused_as(ErrorKind::Unavailable, &nobody.schedule_delete(&lab.bench.cx().call(), &name).await);
    unknown(&nobody.create(&lab.bench.cx().call(), &name, &cms("p")).await);
}
