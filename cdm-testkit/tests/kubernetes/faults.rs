//! Injected faults, authorization, and the log of requests.

use std::time::Duration;

use cdm_testkit::kubernetes::{Fault, FaultKind, FaultTiming, KubernetesApi, RequestMatcher, Settings, User};
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
async fn a_role_allows_its_rules_only() {
    let name = "system:serviceaccount:cdm:cdm";
    let user = User::with_roles(name, "cdm-token", ROLES, "cdm").expect("roles");
    assert_eq!(user.rules(), 3);
    let settings = Settings { users: vec![user], ..Settings::default() };
    let api = KubernetesApi::start(settings).await.expect("a server");
    let client = Client::with_token(&api, "cdm-token");
    assert_eq!(client.post(MAPS, &map("canary", json!({}), json!({}))).await.0, 201);
    assert_eq!(client.post(MAPS, &map("other", json!({}), json!({}))).await.0, 201);
    assert_eq!(client.get(&format!("{MAPS}/canary")).await.0, 200);
    let (code, response) = client.get(&format!("{MAPS}/other")).await;
    assert_eq!((code, &response["reason"]), (403, &json!("Forbidden")));
    assert_eq!(
        response["message"],
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
        let attributes = json!({"namespace": "cdm", "verb": verb, "resource": "configmaps", "name": name});
        json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "metadata": {},
            "spec": {"resourceAttributes": attributes},
        })
    };
    let reviews = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    for (verb, name, allowed) in
        [("get", "canary", true), ("get", "other", false), ("delete", "canary", false)]
    {
        let (code, response) = client.post(reviews, &review(verb, name)).await;
        assert_eq!((code, &response["status"]["allowed"]), (201, &json!(allowed)), "{verb} {name}");
    }
    assert_eq!(Client::with_token(&api, "unknown-token").get(MAPS).await.0, 401);
}

#[tokio::test]
async fn a_request_may_fail() {
    let (api, client) = started().await;
    let creates = || RequestMatcher::of("create", "configmaps");
    let busy = FaultKind::Respond(429, Some(3));
    api.fault(Fault::next(creates(), FaultTiming::Before, busy).after(1).times(2));
    let codes = async |name: &str| client.post(MAPS, &map(name, json!({}), json!({}))).await.0;
    assert_eq!(
        [codes("a").await, codes("b").await, codes("b").await, codes("b").await],
        [201, 429, 429, 201]
    );
    assert_eq!(api.faults(), 0);
    api.fault(Fault::next(creates(), FaultTiming::Before, busy));
    let object = map("c", json!({}), json!({})).to_string();
    let response = client.send("POST", MAPS, "application/json", &object).await.expect("a response");
    assert_eq!(response.headers()["retry-after"], "3");
    api.fault(Fault::next(creates(), FaultTiming::After, FaultKind::Respond(504, None)));
    assert_eq!([codes("d").await, codes("d").await], [504, 409]);
}

#[tokio::test]
async fn a_response_may_be_lost_before_or_after_the_effect() {
    let (api, client) = started().await;
    for (timing, exists) in [(FaultTiming::Before, false), (FaultTiming::After, true)] {
        let name = format!("{timing:?}").to_lowercase();
        let matcher = RequestMatcher { name: name.clone(), ..RequestMatcher::of("create", "configmaps") };
        api.fault(Fault::next(matcher, timing, FaultKind::Reset));
        let object = map(&name, json!({}), json!({})).to_string();
        assert!(client.send("POST", MAPS, "application/json", &object).await.is_err());
        assert_eq!(api.object("configmaps", "cdm", &name).is_some(), exists);
    }
}

#[tokio::test]
async fn a_delay_follows_the_servers_clock() {
    let (api, client) = started().await;
    let matcher = RequestMatcher::of("list", "configmaps");
    api.fault(Fault::next(matcher, FaultTiming::Before, FaultKind::Delay(Duration::from_secs(30))));
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
async fn requests_are_logged() {
    let (api, client) = started().await;
    client.post(MAPS, &map("one", json!({}), json!({}))).await;
    client.get(&format!("{MAPS}/one")).await;
    client.get(&format!("{MAPS}/two")).await;
    let logged: Vec<(String, String, u16)> =
        api.requests().into_iter().map(|request| (request.verb, request.name, request.code)).collect();
    let want = [("create", "one", 201), ("get", "one", 200), ("get", "two", 404)];
    assert_eq!(logged, want.map(|(verb, name, code)| (verb.to_owned(), name.to_owned(), code)));
    api.forget_requests();
    assert_eq!(api.requests(), []);
    assert_eq!(client.get("/api/v1").await.0, 200);
    assert_eq!(api.requests(), [], "discovery is not logged");
    let put = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": "cdm"}});
    assert_eq!(api.put(&put), Ok(()));
    assert_eq!(api.objects("configmaps", "cdm").len(), 2);
    assert_eq!(api.counts().get("configmaps"), Some(&2));
    let unknown = Value::from(1);
    assert!(api.put(&unknown).is_err());
}
