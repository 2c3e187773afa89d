//! Answers that are lost or late, refusals of single keys and of all, and a marker whose time is over.

use std::sync::atomic::Ordering;
use std::time::Duration;

use cdm_core::domain::ObjectPrefix;
use cdm_core::ports::{CallContext, Clock, ErrorKind, ObjectStore, Outcome};
use cdm_testkit::contract::objects::Plant;

use crate::Lab;
use crate::strict::error;
use crate::wire::{Answer, Fault};

#[track_caller]
fn unknown<T: std::fmt::Debug>(outcome: &Outcome<T>) {
    assert!(matches!(outcome, Outcome::Unknown(error) if error.is_retryable()), "{outcome:?}");
}

#[track_caller]
fn refused_as<T: std::fmt::Debug>(kind: ErrorKind, outcome: &Outcome<T>) {
    assert!(matches!(outcome, Outcome::NotApplied(error) if error.kind == kind), "{kind:?}: {outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_key_is_refused_for_is_told_and_the_others_go() {
    for lab in Lab::both().await {
        let uid = lab.uid();
        let file = |n: usize| format!("sites/{uid}/{n}.jpg");
        lab.plant(&[file(0), file(1), file(2)]).await;
        let kept = format!("arn:aws:s3:::{}/{}", lab.bucket, file(1));
        let policy = serde_json::json!({ "Version": "2012-10-17", "Statement": [{
            "Effect": "Deny", "Principal": "*", "Resource": kept,
            "Action": ["s3:DeleteObject", "s3:DeleteObjectVersion"],
        }]});
        let put = lab.client.put_bucket_policy().bucket(&lab.bucket).policy(policy.to_string());
        put.send().await.expect("a policy");
        let keys = lab.keys(uid).await;
        let Outcome::Applied(failed) = lab.delete(uid, &keys).await else { panic!("an answer") };
        let [(key, why)] = failed.as_slice() else { panic!("one of them: {failed:?}") };
        assert!(key.starts_with(&file(1)) && why == "AccessDenied", "{failed:?}");
        assert_eq!(lab.rest(&format!("sites/{uid}/")).await, [1, 0, 0]);
        lab.client.delete_bucket_policy().bucket(&lab.bucket).send().await.expect("no policy");
        assert_eq!(lab.delete(uid, &lab.keys(uid).await).await, Outcome::Applied(Vec::new()));
        assert_eq!(lab.keys(uid).await, [] as [String; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_with_errors_is_read_to_its_end() {
    let Some(lab) = Lab::plain().await else { return };
    let uid = lab.uid();
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
    lab.strict.wire.next("DeleteObjects", Fault::Say(Answer::new(200, "application/xml", &body)));
    let told = |key: &String, why: &str| (key.clone(), why.to_owned());
    let expected =
        vec![told(&keys[0], "AccessDenied"), told(&keys[2], "InternalError"), told(&keys[3], "SlowDown")];
    assert_eq!(lab.delete(uid, &keys).await, Outcome::Applied(expected));

    // An error in place of the answer, with a status that says that all is well.
    lab.strict.wire.next("DeleteObjects", Fault::Say(error(200, "InternalError")));
    unknown(&lab.delete(uid, &keys).await);
    // An answer that is cut short.
    let cut = Answer::new(200, "application/xml", "<DeleteResult></DeleteResult>").cut();
    lab.strict.wire.next("DeleteObjects", Fault::Say(cut));
    unknown(&lab.delete(uid, &keys).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_s3_says_is_what_the_port_says() {
    let Some(lab) = Lab::plain().await else { return };
    let uid = lab.uid();
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
        let say = |operation| lab.strict.wire.next(operation, Fault::Say(error(status, code)));
        let is = |told: Outcome<()>| match (lost, &told) {
            (true, Outcome::Unknown(error)) | (false, Outcome::NotApplied(error)) => {
                assert_eq!(error.kind, kind, "{code}");
                assert!(!error.to_string().contains("a-message-of-the-service"), "{error}");
            }
            _ => panic!("{code}: {told:?}"),
        };
        say("PutObject");
        is(lab.objects.put_marker(&lab.bench.cx().call(), &prefix).await);
        say("DeleteObjects");
        is(match lab.delete(uid, &versions).await {
            Outcome::Applied(kept) => panic!("{kept:?}"),
            Outcome::NotApplied(error) => Outcome::NotApplied(error),
            Outcome::Unknown(error) => Outcome::Unknown(error),
        });
        say("AbortMultipartUpload");
        let aborted = lab.delete(uid, &upload).await;
        match lost {
            true => unknown(&aborted),
            false => assert_eq!(aborted, Outcome::Applied(vec![(upload[0].clone(), code.to_owned())])),
        }
        for operation in ["ListObjectVersions", "ListMultipartUploads"] {
            say(operation);
            assert_eq!(lab.objects.page(&prefix, None).await.expect_err(code).kind, kind);
            say(operation);
            assert_eq!(lab.objects.check().await.expect_err(code).kind, kind);
        }
    }
    assert_eq!(lab.keys(uid).await, [] as [String; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_unknown_and_may_be_asked_for_again() {
    for lab in Lab::both().await {
        let uid = lab.uid();
        let prefix = ObjectPrefix::of(uid);
        let call = lab.bench.cx().call();
        lab.strict.wire.next("PutObject", Fault::LoseAnswer);
        unknown(&lab.objects.put_marker(&call, &prefix).await);
        assert_eq!(lab.objects.put_marker(&call, &prefix).await, Outcome::Applied(()));
        // It was not written again.
        assert_eq!(lab.rest(&prefix.to_string()).await, [1, 0, 0]);
        lab.upload(&prefix.marker()).await;
        let keys = lab.keys(uid).await;
        assert_eq!(keys.len(), 2);
        for operation in ["DeleteObjects", "AbortMultipartUpload"] {
            lab.strict.wire.next(operation, Fault::LoseAnswer);
            unknown(&lab.delete(uid, &keys).await);
        }
        assert_eq!(lab.delete(uid, &keys).await, Outcome::Applied(Vec::new()));
        assert_eq!(lab.rest(&prefix.to_string()).await, [0, 0, 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_marker_that_comes_late_is_refused_by_the_store() {
    let Some(lab) = Lab::plain().await else { return };
    let prefix = ObjectPrefix::of(lab.uid());
    let within = |time| {
        let deadline = lab.bench.clock.monotonic().after(time);
        CallContext { deadline, ..lab.bench.cx().call() }
    };
    lab.strict.wire.asked();
    // The store's clock stands where the request would have arrived.
    lab.strict.ahead.store(20, Ordering::Relaxed);
    refused_as(
        ErrorKind::Denied,
        &lab.objects.put_marker(&within(Duration::from_millis(15_900)), &prefix).await,
    );
    assert_eq!(lab.rest(&prefix.to_string()).await, [0, 0, 0]);
    assert_eq!(
        lab.objects.put_marker(&within(Duration::from_millis(25_900)), &prefix).await,
        Outcome::Applied(())
    );
    let asked = lab.strict.wire.asked();
    let good_for: Vec<_> = asked.iter().filter_map(|request| request.query("X-Amz-Expires")).collect();
    assert_eq!(good_for, ["15", "25"]);
    assert!(asked.iter().all(|request| request.header("if-none-match") == Some("*")));

    // Where there is no whole second left, nothing is sent.
    let late = within(Duration::from_millis(900));
    refused_as(ErrorKind::Unavailable, &lab.objects.put_marker(&late, &prefix).await);
    assert_eq!(lab.strict.wire.operations(), [] as [String; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_marker_beside_another_is_a_conflict_at_most() {
    let Some(lab) = Lab::plain().await else { return };
    let prefix = ObjectPrefix::of(lab.uid());
    lab.strict.wire.next("PutObject", Fault::Say(error(409, "ConditionalRequestConflict")));
    refused_as(ErrorKind::Conflict, &lab.objects.put_marker(&lab.bench.cx().call(), &prefix).await);
    assert_eq!(lab.objects.put_marker(&lab.bench.cx().call(), &prefix).await, Outcome::Applied(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_ends_with_its_deadline() {
    let Some(lab) = Lab::plain().await else { return };
    let uid = lab.uid();
    let keys = [format!("sites/{uid}/a?versionId=null")];
    let late = lab.bench.cx().late_call().await;
    lab.strict.wire.asked();
    refused_as(ErrorKind::Unavailable, &lab.objects.delete(&late, &ObjectPrefix::of(uid), &keys).await);
    assert_eq!(lab.strict.wire.operations(), [] as [String; 0]);

    lab.strict.wire.next("DeleteObjects", Fault::KeepBack);
    let deadline = lab.bench.clock.monotonic().after(Duration::from_millis(300));
    let call = CallContext { deadline, ..lab.bench.cx().call() };
    unknown(&lab.objects.delete(&call, &ObjectPrefix::of(uid), &keys).await);
    let over = lab.bench.clock.monotonic().since(deadline);
    assert!(over < Duration::from_millis(500), "{over:?} after its deadline");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_the_account_is_shown() {
    let Some(lab) = Lab::plain().await else { return };
    let uid = lab.uid();
    lab.strict.wire.next("PutObject", Fault::LoseAnswer);
    let put = lab.objects.put_marker(&lab.bench.cx().call(), &ObjectPrefix::of(uid)).await;
    for text in [format!("{:?}", lab.objects), format!("{put:?}")] {
        for hidden in ["127.0.0.1", "Signature", "Credential", "secret"] {
            assert!(!text.contains(hidden), "{text}");
        }
    }
}
