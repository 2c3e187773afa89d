//! Faults on demand, rights, and the list of requests.

use std::time::Duration;

use cdm_testkit::kubernetes::{Fault, KubernetesApi, Matching, Moment, Settings, Trouble, User};
use futures_util::FutureExt;
use serde_json::{Value, json};

use super::client::Client;
use super::{MAPS, map, started};

const ROLES: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: cdm}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: cdm, namespace: cdm}
rules:
- apiGroups: ['']
  resources: [configmaps]
  verbs: [create, list]
- apiGroups: ['']
  resources: [configmaps]
  resourceNames: [canary]
  verbs: [get, patch, watch]
- apiGroups: ['']
  resources: [pods/log]
  verbs: [get]
";

#[tokio::test]
async fn a_role_allows_what_it_says_and_nothing_else() {
    let name = "system:serviceaccount:cdm:cdm";
    let user = User::with_roles(name, "cdm-token", ROLES, "cdm").expect("roles");
    assert_eq!(user.rules(), 3);
    let settings = Settings { users: vec![user], ..Settings::default() };
    let api = KubernetesApi::start(settings).await.expect("a server");
    let client = Client::with_token(&api, "cdm-token");
    assert_eq!(client.post(MAPS, &map("canary", json!({}), json!({}))).await.0, 201);
    assert_eq!(client.post(MAPS, &map("other", json!({}), json!({}))).await.0, 201);
    assert_eq!(client.get(&format!("{MAPS}/canary")).await.0, 200);
    let (code, answer) = client.get(&format!("{MAPS}/other")).await;
    assert_eq!((code, &answer["reason"]), (403, &json!("Forbidden")));
    assert_eq!(
        answer["message"],
        "configmaps \"other\" is forbidden: User \"system:serviceaccount:cdm:cdm\" cannot get resource \"configmaps\" \
         in API group \"\" in the namespace \"cdm\""
    );
    assert_eq!(client.get(MAPS).await.0, 200);
    assert_eq!(client.get("/api/v1/namespaces/default/configmaps").await.0, 403);
    assert_eq!(client.get("/api/v1/configmaps").await.0, 403);
    assert_eq!(client.get(&format!("{MAPS}?watch=true")).await.0, 403);
    client.watch(&format!("{MAPS}?watch=true&fieldSelector=metadata.name=canary")).await.event().await;
    assert_eq!(client.delete(&format!("{MAPS}/canary")).await.0, 403);
    let logs = "/api/v1/namespaces/cdm/pods/none/log";
    assert_eq!(
        (client.get(logs).await.0, client.get("/api/v1/namespaces/cdm/pods/none").await.0),
        (404, 403)
    );
    let review = |verb: &str, name: &str| {
        let asked = json!({"namespace": "cdm", "verb": verb, "resource": "configmaps", "name": name});
        json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "metadata": {},
            "spec": {"resourceAttributes": asked},
        })
    };
    let reviews = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    for (verb, name, allowed) in
        [("get", "canary", true), ("get", "other", false), ("delete", "canary", false)]
    {
        let (code, answer) = client.post(reviews, &review(verb, name)).await;
        assert_eq!((code, &answer["status"]["allowed"]), (201, &json!(allowed)), "{verb} {name}");
    }
    assert_eq!(Client::with_token(&api, "nobody").get(MAPS).await.0, 401);
}

#[tokio::test]
async fn a_request_may_be_answered_with_a_failure() {
    let (api, client) = started().await;
    let creates = || Matching::of("create", "configmaps");
    let busy = Trouble::Answer(429, Some(3));
    api.fault(Fault::next(creates(), Moment::Before, busy).after(1).times(2));
    let codes = async |name: &str| client.post(MAPS, &map(name, json!({}), json!({}))).await.0;
    assert_eq!(
        [codes("a").await, codes("b").await, codes("b").await, codes("b").await],
        [201, 429, 429, 201]
    );
    assert_eq!(api.faults(), 0);
    api.fault(Fault::next(creates(), Moment::Before, busy));
    let object = map("c", json!({}), json!({})).to_string();
    let answer = client.send("POST", MAPS, "application/json", &object).await.expect("an answer");
    assert_eq!(answer.headers()["retry-after"], "3");
    api.fault(Fault::next(creates(), Moment::After, Trouble::Answer(504, None)));
    assert_eq!([codes("d").await, codes("d").await], [504, 409]);
}

#[tokio::test]
async fn an_answer_may_be_lost_before_or_after_the_effect() {
    let (api, client) = started().await;
    for (moment, there) in [(Moment::Before, false), (Moment::After, true)] {
        let name = format!("{moment:?}").to_lowercase();
        let matching = Matching { name: name.clone(), ..Matching::of("create", "configmaps") };
        api.fault(Fault::next(matching, moment, Trouble::Reset));
        let object = map(&name, json!({}), json!({})).to_string();
        assert!(client.send("POST", MAPS, "application/json", &object).await.is_err());
        assert_eq!(api.object("configmaps", "cdm", &name).is_some(), there);
    }
}

#[tokio::test]
async fn a_delay_is_one_of_the_servers_clock() {
    let (api, client) = started().await;
    let matching = Matching::of("list", "configmaps");
    api.fault(Fault::next(matching, Moment::Before, Trouble::Delay(Duration::from_secs(30))));
    let mut slow = Box::pin(client.get(MAPS));
    while api.faults() > 0 {
        assert!((&mut slow).now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    api.advance(Duration::from_secs(29));
    assert_eq!(client.get(MAPS).await.0, 200);
    assert!((&mut slow).now_or_never().is_none());
    api.advance(Duration::from_secs(1));
    assert_eq!(slow.await.0, 200);
}

#[tokio::test]
async fn requests_are_counted_at_the_server() {
    let (api, client) = started().await;
    client.post(MAPS, &map("one", json!({}), json!({}))).await;
    client.get(&format!("{MAPS}/one")).await;
    client.get(&format!("{MAPS}/two")).await;
    let told: Vec<(String, String, u16)> =
        api.requests().into_iter().map(|request| (request.verb, request.name, request.code)).collect();
    let want = [("create", "one", 201), ("get", "one", 200), ("get", "two", 404)];
    assert_eq!(told, want.map(|(verb, name, code)| (verb.to_owned(), name.to_owned(), code)));
    api.forget_requests();
    assert_eq!(api.requests(), []);
    assert_eq!(client.get("/api/v1").await.0, 200);
    assert_eq!(api.requests(), [], "what a server has is no question about an object");
    let put = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": "cdm"}});
    assert_eq!(api.put(&put), Ok(()));
    assert_eq!(api.objects("configmaps", "cdm").len(), 2);
    assert_eq!(api.counts().get("configmaps"), Some(&2));
    let unknown = Value::from(1);
    assert!(api.put(&unknown).is_err());
}
