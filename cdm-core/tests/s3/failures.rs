//! Lost and late responses, rejections of single keys and of whole requests, and a marker whose deadline has passed.

use std::sync::atomic::Ordering;
use std::time::Duration;

use cdm_core::domain::ObjectPrefix;
use cdm_core::ports::{CallContext, Clock, ErrorKind, ObjectStore, Outcome};
use cdm_testkit::contract::objects::ObjectSeeder;
use cdm_testkit::proxy::{HttpFault, HttpResponse};

use crate::TestEnv;
use crate::strict::error;

#[track_caller]
fn unknown<T: std::fmt::Debug>(outcome: &Outcome<T>) {
    assert!(matches!(outcome, Outcome::Unknown(error) if error.is_retryable()), "{outcome:?}");
}

#[track_caller]
fn assert_rejected<T: std::fmt::Debug>(kind: ErrorKind, outcome: &Outcome<T>) {
    assert!(matches!(outcome, Outcome::NotApplied(error) if error.kind == kind), "{kind:?}: {outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_error_of_one_key_is_reported_and_the_others_are_deleted() {
    for env in TestEnv::both().await {
        let uid = env.uid();
        let file = |n: usize| format!("sites/{uid}/{n}.jpg");
        env.seed_objects(&[file(0), file(1), file(2)]).await;
        let kept = format!("arn:aws:s3:::{}/{}", env.bucket, file(1));
        let policy = serde_json::json!({ "Version": "2012-10-17", "Statement": [{
            "Effect": "Deny", "Principal": "*", "Resource": kept,
            "Action": ["s3:DeleteObject", "s3:DeleteObjectVersion"],
        }]});
        let put = env.client.put_bucket_policy().bucket(&env.bucket).policy(policy.to_string());
        put.send().await.expect("a policy");
        let keys = env.keys(uid).await;
        let Outcome::Applied(failed) = env.delete(uid, &keys).await else { panic!("no response") };
        let [(key, why)] = failed.as_slice() else { panic!("one failed key: {failed:?}") };
        assert!(key.starts_with(&file(1)) && why == "AccessDenied", "{failed:?}");
        assert_eq!(env.remaining(&format!("sites/{uid}/")).await, [1, 0, 0]);
        env.client.delete_bucket_policy().bucket(&env.bucket).send().await.expect("no policy");
        assert_eq!(env.delete(uid, &env.keys(uid).await).await, Outcome::Applied(Vec::new()));
        assert_eq!(env.keys(uid).await, [] as [String; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_with_errors_is_read_completely() {
    let Some(env) = TestEnv::plain().await else { return };
    let uid = env.uid();
    let key = |name: &str| format!("sites/{uid}/{name}?versionId=v1");
    let keys = [key("a"), key("b"), key("c"), format!("sites/{uid}/d")];
    let one = |name: &str, version: &str, code: &str| {
        let key = format!("sites/{uid}/{name}");
        format!("<Error><Key>{key}</Key>{version}<Code>{code}</Code><Message>a message</Message></Error>")
    };
    let version = "<VersionId>v1</VersionId>";
    let errors = [
        one("a", version, "AccessDenied"),
        one("b", version, "NoSuchVersion"),
        one("c", version, "InternalError"),
        one("d", "", "SlowDown"),
    ];
    let body = format!("<DeleteResult>{}</DeleteResult>", errors.concat());
    env.strict
        .proxy
        .next("DeleteObjects", HttpFault::Respond(HttpResponse::new(200, "application/xml", &body)));
    let failure = |key: &String, why: &str| (key.clone(), why.to_owned());
    let expected = vec![
        failure(&keys[0], "AccessDenied"),
        failure(&keys[2], "InternalError"),
        failure(&keys[3], "SlowDown"),
    ];
    assert_eq!(env.delete(uid, &keys).await, Outcome::Applied(expected));

    // An error body with status 200.
    env.strict.proxy.next("DeleteObjects", HttpFault::Respond(error(200, "InternalError")));
    unknown(&env.delete(uid, &keys).await);
    // A truncated response.
    let cut = HttpResponse::new(200, "application/xml", "<DeleteResult></DeleteResult>").truncated();
    env.strict.proxy.next("DeleteObjects", HttpFault::Respond(cut));
    unknown(&env.delete(uid, &keys).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_s3_map_to_errors_of_the_port() {
    let Some(env) = TestEnv::plain().await else { return };
    let uid = env.uid();
    let prefix = ObjectPrefix::of(uid);
    let versions = [format!("sites/{uid}/a?versionId=null")];
    let upload = [format!("sites/{uid}/a?uploadId=b")];
    for (status, code, kind, lost) in [
        (503, "SlowDown", ErrorKind::Throttled(None), false),
        (403, "AccessDenied", ErrorKind::Denied, false),
        (404, "NoSuchBucket", ErrorKind::NotFound, false),
        (500, "InternalError", ErrorKind::Unavailable, true),
        (503, "ServiceUnavailable", ErrorKind::Unavailable, true),
        (504, "", ErrorKind::Unavailable, true),
    ] {
        let respond = |operation| env.strict.proxy.next(operation, HttpFault::Respond(error(status, code)));
        let assert_outcome = |failure: Outcome<()>| match (lost, &failure) {
            (true, Outcome::Unknown(error)) | (false, Outcome::NotApplied(error)) => {
                assert_eq!(error.kind, kind, "{code}");
                assert!(!error.to_string().contains("a-message-of-the-service"), "{error}");
            }
            _ => panic!("{code}: {failure:?}"),
        };
        respond("PutObject");
        assert_outcome(env.objects.put_marker(&env.suite.cx().call(), &prefix).await);
        respond("DeleteObjects");
        assert_outcome(match env.delete(uid, &versions).await {
            Outcome::Applied(kept) => panic!("{kept:?}"),
            Outcome::NotApplied(error) => Outcome::NotApplied(error),
            Outcome::Unknown(error) => Outcome::Unknown(error),
        });
        respond("AbortMultipartUpload");
        let aborted = env.delete(uid, &upload).await;
        match lost {
            true => unknown(&aborted),
            false => assert_eq!(aborted, Outcome::Applied(vec![(upload[0].clone(), code.to_owned())])),
        }
        for operation in ["ListObjectVersions", "ListMultipartUploads"] {
            respond(operation);
            assert_eq!(env.objects.page(&prefix, None).await.expect_err(code).kind, kind);
            respond(operation);
            assert_eq!(env.objects.check().await.expect_err(code).kind, kind);
        }
    }
    assert_eq!(env.keys(uid).await, [] as [String; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_response_is_unknown_and_the_call_can_be_repeated() {
    for env in TestEnv::both().await {
        let uid = env.uid();
        let prefix = ObjectPrefix::of(uid);
        let call = env.suite.cx().call();
        env.strict.proxy.next("PutObject", HttpFault::LoseResponse);
        unknown(&env.objects.put_marker(&call, &prefix).await);
        assert_eq!(env.objects.put_marker(&call, &prefix).await, Outcome::Applied(()));
        // The marker was not written again.
        assert_eq!(env.remaining(&prefix.to_string()).await, [1, 0, 0]);
        env.upload(&prefix.marker()).await;
        let keys = env.keys(uid).await;
        assert_eq!(keys.len(), 2);
        for operation in ["DeleteObjects", "AbortMultipartUpload"] {
            env.strict.proxy.next(operation, HttpFault::LoseResponse);
            unknown(&env.delete(uid, &keys).await);
        }
        assert_eq!(env.delete(uid, &keys).await, Outcome::Applied(Vec::new()));
        assert_eq!(env.remaining(&prefix.to_string()).await, [0, 0, 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_marker_is_rejected_by_the_store() {
    let Some(env) = TestEnv::plain().await else { return };
    let prefix = ObjectPrefix::of(env.uid());
    let within = |time| {
        let deadline = env.suite.clock.monotonic().after(time);
        CallContext { deadline, ..env.suite.cx().call() }
    };
    env.strict.proxy.take_requests();
    // The server's clock is set to when a delayed request would have arrived.
    env.strict.ahead.store(20, Ordering::Relaxed);
    assert_rejected(
        ErrorKind::Denied,
        &env.objects.put_marker(&within(Duration::from_millis(15_900)), &prefix).await,
    );
    assert_eq!(env.remaining(&prefix.to_string()).await, [0, 0, 0]);
    assert_eq!(
        env.objects.put_marker(&within(Duration::from_millis(25_900)), &prefix).await,
        Outcome::Applied(())
    );
    let requests = env.strict.proxy.take_requests();
    let good_for: Vec<_> = requests.iter().filter_map(|request| request.query("X-Amz-Expires")).collect();
    assert_eq!(good_for, ["15", "25"]);
    assert!(requests.iter().all(|request| request.header("if-none-match") == Some("*")));

    // With less than a whole second left, no request is sent.
    let late = within(Duration::from_millis(900));
    assert_rejected(ErrorKind::Unavailable, &env.objects.put_marker(&late, &prefix).await);
    assert_eq!(env.strict.proxy.take_operations(), [] as [String; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_concurrent_marker_is_at_most_a_conflict() {
    let Some(env) = TestEnv::plain().await else { return };
    let prefix = ObjectPrefix::of(env.uid());
    env.strict.proxy.next("PutObject", HttpFault::Respond(error(409, "ConditionalRequestConflict")));
    assert_rejected(ErrorKind::Conflict, &env.objects.put_marker(&env.suite.cx().call(), &prefix).await);
    assert_eq!(env.objects.put_marker(&env.suite.cx().call(), &prefix).await, Outcome::Applied(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_ends_at_its_deadline() {
    let Some(env) = TestEnv::plain().await else { return };
    let uid = env.uid();
    let keys = [format!("sites/{uid}/a?versionId=null")];
    let late = env.suite.cx().late_call().await;
    env.strict.proxy.take_requests();
    assert_rejected(ErrorKind::Unavailable, &env.objects.delete(&late, &ObjectPrefix::of(uid), &keys).await);
    assert_eq!(env.strict.proxy.take_operations(), [] as [String; 0]);

    env.strict.proxy.next("DeleteObjects", HttpFault::NeverRespond);
    let deadline = env.suite.clock.monotonic().after(Duration::from_millis(300));
    let call = CallContext { deadline, ..env.suite.cx().call() };
    unknown(&env.objects.delete(&call, &ObjectPrefix::of(uid), &keys).await);
    let over = env.suite.clock.monotonic().since(deadline);
    assert!(over < Duration::from_millis(500), "{over:?} after the deadline");
}

#[tokio::test(flavor = "multi_thread")]
async fn account_details_are_not_shown() {
    let Some(env) = TestEnv::plain().await else { return };
    let uid = env.uid();
    env.strict.proxy.next("PutObject", HttpFault::LoseResponse);
    let put = env.objects.put_marker(&env.suite.cx().call(), &ObjectPrefix::of(uid)).await;
    for text in [format!("{:?}", env.objects), format!("{put:?}")] {
        for hidden in ["127.0.0.1", "Signature", "Credential", "secret"] {
            assert!(!text.contains(hidden), "{text}");
        }
    }
}
