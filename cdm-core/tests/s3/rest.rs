//! What must not stay behind, and what must: versions, delete markers, unfinished uploads, odd keys, neighbours.

use cdm_core::domain::ObjectPrefix;
use cdm_core::ports::{ErrorKind, ObjectStore, Outcome};
use cdm_testkit::contract::objects::Plant;

use crate::Lab;
use crate::wire::{Answer, Fault};

/// Deletes page by page, as terminating a site does.
async fn empty(lab: &Lab, uid: cdm_core::domain::Uid) {
    for _ in 0..20 {
        let page = lab.objects.page(&ObjectPrefix::of(uid), None).await.expect("a page");
        if page.keys.is_empty() {
            return assert!(!page.more);
        }
        assert_eq!(lab.delete(uid, &page.keys).await, Outcome::Applied(Vec::new()));
    }
    panic!("the prefix does not get empty");
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_markers_and_uploads_are_gone_and_neighbours_are_not() {
    for lab in Lab::both().await {
        let uid = lab.uid();
        let text = uid.to_string();
        let neighbours = [
            format!("sites/{text}b/a.jpg"),
            format!("sites/{}/a.jpg", &text[..25]),
            format!("sites/{text}"),
            format!("other/sites/{text}/a.jpg"),
        ];
        for key in &neighbours {
            lab.object(key).await;
            lab.upload(key).await;
        }
        let key = |file: &str| format!("sites/{text}/{file}");
        for file in ["a.jpg", "a.jpg", "b.jpg", "", "a.jpg/c"] {
            lab.object(&key(file)).await;
        }
        for file in ["a.jpg", "gone.jpg"] {
            let delete = lab.client.delete_object().bucket(&lab.bucket).key(key(file));
            delete.send().await.expect("a delete marker, where versions are");
        }
        for file in ["big.iso", "big.iso", "a.jpg"] {
            lab.upload(&key(file)).await;
        }
        let before = lab.rest(&key("")).await;
        assert_eq!(before[2], 3);
        let keys = lab.keys(uid).await;
        assert_eq!(keys.len(), before.iter().sum::<usize>(), "{keys:?}");
        empty(&lab, uid).await;
        assert_eq!(lab.rest(&key("")).await, [0, 0, 0]);
        for key in &neighbours {
            let [versions, markers, uploads] = lab.rest(key).await;
            assert!(versions >= 1 && markers == 0 && uploads >= 1, "{key}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_are_paged_without_a_gap() {
    let Some(lab) = Lab::versioned().await else { return };
    let uid = lab.uid();
    // A page ends among the versions of one key, and among those are delete markers.
    let file = |n: usize| format!("sites/{uid}/{n:03}.jpg");
    let keys: Vec<_> = (0..333).flat_map(|n| [file(n), file(n), file(n)]).collect();
    for round in 0..3 {
        let some: Vec<_> = keys.iter().skip(round).step_by(3).cloned().collect();
        lab.plant(&some).await;
    }
    for n in 330..333 {
        lab.client.delete_object().bucket(&lab.bucket).key(file(n)).send().await.expect("a marker");
    }
    let upload = lab.upload(&file(0)).await;
    let listed = lab.keys(uid).await;
    let listed_once: std::collections::BTreeSet<_> = listed.iter().collect();
    assert_eq!((listed.len(), listed_once.len()), (1_003, 1_003));
    assert_eq!(listed.last(), Some(&format!("{}?uploadId={upload}", file(0))));
    empty(&lab, uid).await;
    assert_eq!(lab.rest(&format!("sites/{uid}/")).await, [0, 0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_keys_are_listed_and_deleted_as_they_are() {
    for lab in Lab::both().await {
        let uid = lab.uid();
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
        lab.plant(&keys).await;
        let listed = lab.keys(uid).await;
        let objects: Vec<_> =
            listed.iter().map(|key| key.rsplit_once("?versionId=").expect("a version").0).collect();
        let mut keys = keys;
        keys.sort();
        assert_eq!(objects, keys);
        empty(&lab, uid).await;
        assert_eq!(lab.rest(&format!("sites/{uid}/")).await, [0, 0, 0]);
    }
}

/// Keys that moto does not take.
#[tokio::test(flavor = "multi_thread")]
async fn what_xml_cannot_write_is_listed_and_deleted_too() {
    let Some(lab) = Lab::plain().await else { return };
    let uid = lab.uid();
    let one =
        |file: &str| format!("<Version><Key>sites/{uid}/{file}</Key><VersionId>v1</VersionId></Version>");
    let listed = ["a+b", "bell%07", "line%0Abreak", "return%0Dhere"].map(one).concat();
    let listed = format!(
        "<ListVersionsResult><EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>{listed}\
         </ListVersionsResult>"
    );
    lab.strict.wire.next("ListObjectVersions", Fault::Say(Answer::new(200, "application/xml", &listed)));
    let keys = lab.objects.page(&ObjectPrefix::of(uid), None).await.expect("a page").keys;
    let key = |file: &str| format!("sites/{uid}/{file}?versionId=v1");
    assert_eq!(keys, [key("a b"), key("bell\u{7}"), key("line\nbreak"), key("return\rhere")]);
    for operation in ["DeleteObjects", "DeleteObject"] {
        let done = Answer::new(200, "application/xml", "<DeleteResult></DeleteResult>");
        lab.strict.wire.next(operation, Fault::Say(done));
    }
    lab.strict.wire.asked();
    assert_eq!(lab.delete(uid, &keys).await, Outcome::Applied(Vec::new()));
    let asked = lab.strict.wire.asked();
    let [list, single] = asked.as_slice() else { panic!("{asked:?}") };
    let list = String::from_utf8_lossy(&list.body);
    for written in ["/a b<", "/line&#xA;break<", "/return&#xD;here<"] {
        assert!(list.contains(written), "{list}");
    }
    assert!(!list.contains("bell"), "{list}");
    assert!(single.target.contains("/bell%07?") && single.query("versionId") == Some("v1"), "{single:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_has_a_thousand_keys_at_most() {
    let Some(lab) = Lab::plain().await else { return };
    let uid = lab.uid();
    let keys =
        |count: usize| -> Vec<_> { (0..count).map(|n| format!("sites/{uid}/{n}?versionId=null")).collect() };
    lab.strict.wire.asked();
    let outcome = lab.delete(uid, &keys(1_001)).await;
    assert!(
        matches!(&outcome, Outcome::NotApplied(error) if error.kind == ErrorKind::Invalid),
        "{outcome:?}"
    );
    assert_eq!(lab.strict.wire.operations(), [] as [String; 0]);
    // The doorman counts, too.
    assert_eq!(lab.delete(uid, &keys(1_000)).await, Outcome::Applied(Vec::new()));
    assert_eq!(lab.strict.wire.operations(), ["DeleteObjects"]);
    assert_eq!(lab.delete(uid, &[]).await, Outcome::Applied(Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_without_a_version_is_deleted_as_one() {
    for lab in Lab::both().await {
        let uid = lab.uid();
        let key = format!("sites/{uid}/a.jpg");
        lab.object(&key).await;
        assert_eq!(lab.delete(uid, std::slice::from_ref(&key)).await, Outcome::Applied(Vec::new()));
        let get = lab.client.get_object().bucket(&lab.bucket).key(&key);
        get.send().await.expect_err("deleted");
        empty(&lab, uid).await;
        assert_eq!(lab.rest(&key).await, [0, 0, 0]);
    }
}
