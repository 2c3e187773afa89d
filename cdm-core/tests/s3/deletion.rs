//! What a deletion must remove and what it must keep: versions, delete markers, unfinished uploads, unusual keys, keys
//! of other sites.

use cdm_core::domain::ObjectPrefix;
use cdm_core::ports::{ErrorKind, ObjectStore, Outcome};
use cdm_testkit::contract::objects::ObjectSeeder;
use cdm_testkit::proxy::{HttpFault, HttpResponse};

use crate::TestEnv;

/// Deletes page by page, as the termination of a site does.
async fn empty(env: &TestEnv, uid: cdm_core::domain::Uid) {
    for _ in 0..20 {
        let page = env.objects.page(&ObjectPrefix::of(uid), None).await.expect("a page");
        if page.keys.is_empty() {
            return assert!(!page.more);
        }
        assert_eq!(env.delete(uid, &page.keys).await, Outcome::Applied(Vec::new()));
    }
    panic!("the prefix does not get empty");
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_markers_and_uploads_are_deleted_and_other_keys_are_kept() {
    for env in TestEnv::both().await {
        let uid = env.uid();
        let text = uid.to_string();
        let other_keys = [
            format!("sites/{text}b/a.jpg"),
            format!("sites/{}/a.jpg", &text[..25]),
            format!("sites/{text}"),
            format!("other/sites/{text}/a.jpg"),
        ];
        for key in &other_keys {
            env.object(key).await;
            env.upload(key).await;
        }
        let key = |file: &str| format!("sites/{text}/{file}");
        for file in ["a.jpg", "a.jpg", "b.jpg", "", "a.jpg/c"] {
            env.object(&key(file)).await;
        }
        for file in ["a.jpg", "gone.jpg"] {
            let delete = env.client.delete_object().bucket(&env.bucket).key(key(file));
            delete.send().await.expect("a delete marker, where versions are");
        }
        for file in ["big.iso", "big.iso", "a.jpg"] {
            env.upload(&key(file)).await;
        }
        let before = env.remaining(&key("")).await;
        assert_eq!(before[2], 3);
        let keys = env.keys(uid).await;
        assert_eq!(keys.len(), before.iter().sum::<usize>(), "{keys:?}");
        empty(&env, uid).await;
        assert_eq!(env.remaining(&key("")).await, [0, 0, 0]);
        for key in &other_keys {
            let [versions, markers, uploads] = env.remaining(key).await;
            assert!(versions >= 1 && markers == 0 && uploads >= 1, "{key}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_are_paged_without_gaps() {
    let Some(env) = TestEnv::versioned().await else { return };
    let uid = env.uid();
    // A page ends between the versions of one key, some of which are delete markers.
    let file = |n: usize| format!("sites/{uid}/{n:03}.jpg");
    let keys: Vec<_> = (0..333).flat_map(|n| [file(n), file(n), file(n)]).collect();
    for round in 0..3 {
        let some: Vec<_> = keys.iter().skip(round).step_by(3).cloned().collect();
        env.seed_objects(&some).await;
    }
    for n in 330..333 {
        env.client.delete_object().bucket(&env.bucket).key(file(n)).send().await.expect("a marker");
    }
    let upload = env.upload(&file(0)).await;
    let listed = env.keys(uid).await;
    let listed_once: std::collections::BTreeSet<_> = listed.iter().collect();
    assert_eq!((listed.len(), listed_once.len()), (1_003, 1_003));
    assert_eq!(listed.last(), Some(&format!("{}?uploadId={upload}", file(0))));
    empty(&env, uid).await;
    assert_eq!(env.remaining(&format!("sites/{uid}/")).await, [0, 0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn unusual_keys_are_listed_and_deleted() {
    for env in TestEnv::both().await {
        let uid = env.uid();
        let files = [
            "a b.jpg",
            "a+b.jpg",
            "100%25.jpg",
            "né.jpg",
            "\u{1f4f7}.jpg",
            "a&b<c>\"d'.jpg",
            "a?versionId=null",
            "a?uploadId=b/c",
            "a#b",
        ];
        let keys: Vec<_> = files.iter().map(|file| format!("sites/{uid}/{file}")).collect();
        env.seed_objects(&keys).await;
        let listed = env.keys(uid).await;
        let objects: Vec<_> =
            listed.iter().map(|key| key.rsplit_once("?versionId=").expect("a version").0).collect();
        let mut keys = keys;
        keys.sort();
        assert_eq!(objects, keys);
        empty(&env, uid).await;
        assert_eq!(env.remaining(&format!("sites/{uid}/")).await, [0, 0, 0]);
    }
}

/// Keys that moto does not accept.
#[tokio::test(flavor = "multi_thread")]
async fn keys_that_xml_cannot_contain_are_listed_and_deleted() {
    let Some(env) = TestEnv::plain().await else { return };
    let uid = env.uid();
    let one =
        |file: &str| format!("<Version><Key>sites/{uid}/{file}</Key><VersionId>v1</VersionId></Version>");
    let listed = ["a+b", "bell%07", "line%0Abreak", "return%0Dhere"].map(one).concat();
    let listed = format!(
        "<ListVersionsResult><EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>{listed}\
         </ListVersionsResult>"
    );
    env.strict
        .proxy
        .next("ListObjectVersions", HttpFault::Respond(HttpResponse::new(200, "application/xml", &listed)));
    let keys = env.objects.page(&ObjectPrefix::of(uid), None).await.expect("a page").keys;
    let key = |file: &str| format!("sites/{uid}/{file}?versionId=v1");
    assert_eq!(keys, [key("a b"), key("bell\u{7}"), key("line\nbreak"), key("return\rhere")]);
    for operation in ["DeleteObjects", "DeleteObject"] {
        let done = HttpResponse::new(200, "application/xml", "<DeleteResult></DeleteResult>");
        env.strict.proxy.next(operation, HttpFault::Respond(done));
    }
    env.strict.proxy.take_requests();
    assert_eq!(env.delete(uid, &keys).await, Outcome::Applied(Vec::new()));
    let requests = env.strict.proxy.take_requests();
    let [list, single] = requests.as_slice() else { panic!("{requests:?}") };
    let list = String::from_utf8_lossy(&list.body);
    for escaped in ["/a b<", "/line&#xA;break<", "/return&#xD;here<"] {
        assert!(list.contains(escaped), "{list}");
    }
    assert!(!list.contains("bell"), "{list}");
    assert!(single.target.contains("/bell%07?") && single.query("versionId") == Some("v1"), "{single:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_has_at_most_a_thousand_keys() {
    let Some(env) = TestEnv::plain().await else { return };
    let uid = env.uid();
    let keys =
        |count: usize| -> Vec<_> { (0..count).map(|n| format!("sites/{uid}/{n}?versionId=null")).collect() };
    env.strict.proxy.take_requests();
    let outcome = env.delete(uid, &keys(1_001)).await;
    assert!(
        matches!(&outcome, Outcome::NotApplied(error) if error.kind == ErrorKind::Invalid),
        "{outcome:?}"
    );
    assert_eq!(env.strict.proxy.take_operations(), [] as [String; 0]);
    // The proxy checks the limit as well.
    assert_eq!(env.delete(uid, &keys(1_000)).await, Outcome::Applied(Vec::new()));
    assert_eq!(env.strict.proxy.take_operations(), ["DeleteObjects"]);
    assert_eq!(env.delete(uid, &[]).await, Outcome::Applied(Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_without_a_version_is_deleted() {
    for env in TestEnv::both().await {
        let uid = env.uid();
        let key = format!("sites/{uid}/a.jpg");
        env.object(&key).await;
        assert_eq!(env.delete(uid, std::slice::from_ref(&key)).await, Outcome::Applied(Vec::new()));
        let get = env.client.get_object().bucket(&env.bucket).key(&key);
        get.send().await.expect_err("deleted");
        empty(&env, uid).await;
        assert_eq!(env.remaining(&key).await, [0, 0, 0]);
    }
}
