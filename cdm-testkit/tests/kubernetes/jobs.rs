//! Jobs: the pods that they create, how they end, and what remains.

use std::sync::Arc;
use std::time::Duration;

use cdm_testkit::kubernetes::{Container, Containers, Exit, ImageBehavior, KubernetesApi, Settings};
use serde_json::{Value, json};

use super::client::Client;

const ALL: &str = "/apis/batch/v1/namespaces/cdm/jobs";
const ONE: &str = "/apis/batch/v1/namespaces/cdm/jobs/one";

/// Containers that follow their first argument, such as `exit 3`, or print what they received.
#[derive(Debug)]
struct Scripted;

impl Containers for Scripted {
    fn run(&self, container: &Container) -> Exit {
        let words: Vec<&str> = container.argv.iter().flat_map(|argument| argument.split(' ')).collect();
        match words.as_slice() {
            ["exit", code, ..] => Exit::failure(code.parse().expect("a code"), "failed\n"),
            ["index", index, "not", bad] => Exit { code: i32::from(index == bad), ..Exit::success("") },
            ["sleep", seconds] => {
                Exit { takes: Duration::from_secs(seconds.parse().expect("seconds")), ..Exit::success("") }
            }
            words => Exit::success(format!("{words:?} {:?} {:?}\n", container.env, container.files)),
        }
    }
}

async fn started() -> (KubernetesApi, Client) {
    let settings = Settings { containers: Arc::new(Scripted), ..Settings::default() };
    let api = KubernetesApi::start(settings).await.expect("a server");
    let client = Client::of(&api);
    (api, client)
}

fn job(args: &[&str], spec: Value) -> Value {
    let mut job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "one"},
        "spec": {"template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "wp", "image": "site:1", "args": args}],
        }}},
    });
    for (key, value) in spec.as_object().cloned().unwrap_or_default() {
        job["spec"][key] = value;
    }
    job
}

/// Returns the job after so many seconds.
async fn after(api: &KubernetesApi, client: &Client, job: &Value, seconds: u64) -> Value {
    let (code, made) = client.post(ALL, job).await;
    assert_eq!(code, 201, "{made}");
    api.advance(Duration::from_secs(seconds));
    client.get(ONE).await.1
}

fn ends(job: &Value) -> Vec<(String, String)> {
    let conditions = job["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let text = |one: &Value, part: &str| one[part].as_str().unwrap_or("").to_owned();
    conditions
        .iter()
        .filter(|one| one["status"] == "True")
        .map(|one| (text(one, "type"), text(one, "reason")))
        .collect()
}

fn pair(kind: &str, reason: &str) -> (String, String) {
    (kind.to_owned(), reason.to_owned())
}

#[tokio::test]
async fn a_job_runs_its_pod_and_completes() {
    let (api, client) = started().await;
    let one = after(&api, &client, &job(&["hello"], json!({})), 30).await;
    assert_eq!(
        ends(&one),
        [pair("SuccessCriteriaMet", "CompletionsReached"), pair("Complete", "CompletionsReached")]
    );
    assert_eq!(one["status"]["succeeded"], 1);
    assert_eq!(one["status"]["completionTime"], "2026-01-01T00:00:02Z");
    let pods = api.objects("pods", "cdm");
    assert_eq!((pods.len(), &pods[0]["status"]["phase"]), (1, &json!("Succeeded")));
    let labels = &pods[0]["metadata"]["labels"];
    assert_eq!(labels["batch.kubernetes.io/job-name"], "one");
    assert_eq!(labels["batch.kubernetes.io/controller-uid"], one["metadata"]["uid"]);
    let name = pods[0]["metadata"]["name"].as_str().expect("a name");
    let log = format!("/api/v1/namespaces/cdm/pods/{name}/log");
    assert_eq!(client.get(&log).await, (200, json!("[\"hello\"] {} {}\n")));
    assert_eq!(client.get(&format!("{log}?limitBytes=4")).await.1, json!("[\"he"));
    assert_eq!(client.get(&format!("{log}?container=no")).await.0, 400);
}

#[tokio::test]
async fn a_job_fails_when_its_retries_are_exhausted() {
    let (api, client) = started().await;
    let one = after(&api, &client, &job(&["exit 3"], json!({"backoffLimit": 1})), 9).await;
    assert_eq!((ends(&one), &one["status"]["failed"]), (vec![], &json!(1)), "a retry waits ten seconds");
    api.advance(Duration::from_secs(20));
    let one = client.get(ONE).await.1;
    assert_eq!(
        ends(&one),
        [pair("FailureTarget", "BackoffLimitExceeded"), pair("Failed", "BackoffLimitExceeded")]
    );
    assert_eq!(one["status"]["failed"], 2);
    let pods = api.objects("pods", "cdm");
    assert_eq!((pods.len(), &pods[0]["status"]["phase"]), (2, &json!("Failed")));
    assert_eq!(pods[0]["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"], 3);
}

#[tokio::test]
async fn a_policy_fails_a_job_or_ignores_a_failure() {
    let policy = |action: &str, values: &[i64]| {
        json!({"backoffLimit": 0, "podFailurePolicy": {"rules": [
            {"action": action, "onExitCodes": {"operator": "In", "values": values}},
        ]}})
    };
    let (api, client) = started().await;
    let one = after(&api, &client, &job(&["exit 21"], policy("FailJob", &[20, 21])), 30).await;
    assert_eq!(ends(&one), [pair("FailureTarget", "PodFailurePolicy"), pair("Failed", "PodFailurePolicy")]);
    let message = one["status"]["conditions"][0]["message"].as_str().unwrap_or("").to_owned();
    assert!(message.contains("failed with exit code 21 matching FailJob rule at index 0"), "{message}");
    let (api, client) = started().await;
    let one = after(&api, &client, &job(&["exit 21"], policy("Ignore", &[21])), 5).await;
    assert_eq!((ends(&one), one["status"].get("failed")), (vec![], None));
    let (api, client) = started().await;
    let one = after(&api, &client, &job(&["exit 3"], policy("FailJob", &[21])), 30).await;
    assert_eq!(ends(&one)[1], pair("Failed", "BackoffLimitExceeded"));
}

#[tokio::test]
async fn a_deadline_ends_a_job_and_its_pods() {
    let (api, client) = started().await;
    let one = after(&api, &client, &job(&["sleep 900"], json!({"activeDeadlineSeconds": 60})), 59).await;
    assert_eq!((ends(&one), &one["status"]["active"]), (vec![], &json!(1)));
    api.advance(Duration::from_secs(1));
    let one = client.get(ONE).await.1;
    assert_eq!(ends(&one), [pair("FailureTarget", "DeadlineExceeded")], "its pod is still ending");
    api.advance(Duration::from_secs(2));
    assert_eq!(ends(&client.get(ONE).await.1)[1], pair("Failed", "DeadlineExceeded"));
    assert_eq!(api.objects("pods", "cdm"), Vec::<Value>::new());
}

#[tokio::test]
async fn a_job_whose_image_is_missing_waits_for_its_deadline() {
    let (api, client) = started().await;
    api.set_image_behavior("site:1", ImageBehavior::Missing);
    let one = after(&api, &client, &job(&[], json!({"activeDeadlineSeconds": 300})), 250).await;
    assert_eq!((ends(&one), &one["status"]["active"]), (vec![], &json!(1)));
    let pod = api.objects("pods", "cdm").remove(0);
    assert_eq!(pod["status"]["phase"], "Pending");
    assert_eq!(pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"], "ImagePullBackOff");
    let log =
        format!("/api/v1/namespaces/cdm/pods/{}/log", pod["metadata"]["name"].as_str().expect("a name"));
    let (code, response) = client.get(&log).await;
    assert_eq!((code, &response["reason"]), (400, &json!("BadRequest")));
    api.advance(Duration::from_secs(60));
    assert_eq!(ends(&client.get(ONE).await.1)[1], pair("Failed", "DeadlineExceeded"));
}

#[tokio::test]
async fn an_indexed_job_reports_its_failed_indexes() {
    let (api, client) = started().await;
    let spec = json!({
        "completionMode": "Indexed", "completions": 5, "parallelism": 2, "backoffLimitPerIndex": 1,
    });
    let one = after(&api, &client, &job(&["index", "$(JOB_COMPLETION_INDEX)", "not", "3"], spec), 120).await;
    assert_eq!(ends(&one), [pair("FailureTarget", "FailedIndexes"), pair("Failed", "FailedIndexes")]);
    assert_eq!(
        (&one["status"]["completedIndexes"], &one["status"]["failedIndexes"]),
        (&json!("0-2,4"), &json!("3"))
    );
    assert_eq!((&one["status"]["succeeded"], &one["status"]["failed"]), (&json!(4), &json!(2)));
    let pods = api.objects("pods", "cdm");
    assert_eq!(pods.len(), 6);
    for pod in pods {
        let index = &pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"];
        assert!(index.is_string(), "{pod}");
    }
}

#[tokio::test]
async fn init_containers_run_in_order_and_block_the_others() {
    let (api, client) = started().await;
    let mut both = job(&["last"], json!({"backoffLimit": 0}));
    let initial = json!([
        {"name": "a", "image": "site:1", "args": ["first"]}, {"name": "b", "image": "site:1", "args": ["exit 9"]},
    ]);
    both["spec"]["template"]["spec"]["initContainers"] = initial;
    let one = after(&api, &client, &both, 60).await;
    assert_eq!(ends(&one)[1], pair("Failed", "BackoffLimitExceeded"));
    let pod = api.objects("pods", "cdm").remove(0);
    let codes: Vec<Value> = pod["status"]["initContainerStatuses"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|status| status["state"]["terminated"]["exitCode"].clone())
        .collect();
    assert_eq!(codes, [json!(0), json!(9)]);
    assert_eq!(pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"], "PodInitializing");
    let log =
        format!("/api/v1/namespaces/cdm/pods/{}/log", pod["metadata"]["name"].as_str().expect("a name"));
    assert_eq!(client.get(&format!("{log}?container=b")).await, (200, json!("failed\n")));
    assert_eq!(client.get(&format!("{log}?container=wp")).await.0, 400);
}

#[tokio::test]
async fn a_container_starts_when_its_sources_exist() {
    let (api, client) = started().await;
    let mut mounted = job(&["$(A)", "$(NO)", "$$(A)"], json!({}));
    mounted["spec"]["template"]["spec"]["volumes"] =
        json!([{"name": "s", "secret": {"secretName": "s", "items": [{"key": "k", "path": "deep/k"}]}}]);
    let wp = &mut mounted["spec"]["template"]["spec"]["containers"][0];
    wp["env"] =
        json!([{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)$(C)"}, {"name": "C", "value": "3"}]);
    wp["volumeMounts"] = json!([{"name": "s", "mountPath": "/run/s"}]);
    let one = after(&api, &client, &mounted, 30).await;
    assert_eq!(ends(&one), [], "the pod waits for its secret");
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"k": "v"}});
    client.post("/api/v1/namespaces/cdm/secrets", &secret).await;
    api.advance(Duration::from_secs(5));
    assert_eq!(ends(&client.get(ONE).await.1).len(), 2);
    let name = api.objects("pods", "cdm")[0]["metadata"]["name"].as_str().expect("a name").to_owned();
    let (_, log) = client.get(&format!("/api/v1/namespaces/cdm/pods/{name}/log")).await;
    let want = r#"["1", "$(NO)", "$(A)"] {"A": "1", "B": "1$(C)", "C": "3"} {"/run/s/deep/k": "v"}"#;
    assert_eq!(log.as_str().map(str::trim), Some(want));
}

#[tokio::test]
async fn a_suspended_job_starts_when_it_is_resumed() {
    let (api, client) = started().await;
    let one =
        after(&api, &client, &job(&[], json!({"suspend": true, "activeDeadlineSeconds": 10})), 60).await;
    assert_eq!((ends(&one), api.objects("pods", "cdm").len()), (vec![pair("Suspended", "JobSuspended")], 0));
    let go = json!([{"op": "replace", "path": "/spec/suspend", "value": false}]);
    assert_eq!(client.patch(ONE, "json-patch+json", &go).await.0, 200);
    api.advance(Duration::from_secs(5));
    assert_eq!(ends(&client.get(ONE).await.1)[1], pair("Complete", "CompletionsReached"));
}

#[tokio::test]
async fn a_finished_job_is_removed_after_its_ttl() {
    let (api, client) = started().await;
    let one = after(&api, &client, &job(&[], json!({"ttlSecondsAfterFinished": 100})), 90).await;
    assert_eq!(ends(&one).len(), 2);
    api.advance(Duration::from_secs(15));
    assert_eq!((client.get(ONE).await.0, api.objects("pods", "cdm").len()), (404, 0));
}

#[tokio::test]
async fn deleting_a_job_without_a_policy_keeps_its_pods() {
    for (query, remaining) in
        [("", 1), ("?propagationPolicy=Background", 0), ("?propagationPolicy=Foreground", 0)]
    {
        let (api, client) = started().await;
        after(&api, &client, &job(&[], json!({})), 30).await;
        let response = client
            .send("DELETE", &format!("{ONE}{query}"), "application/json", "")
            .await
            .expect("a response");
        assert_eq!(response.headers().contains_key("warning"), query.is_empty());
        api.advance(Duration::from_secs(5));
        assert_eq!((client.get(ONE).await.0, api.objects("pods", "cdm").len()), (404, remaining), "{query}");
    }
}

#[tokio::test]
async fn one_watch_reports_a_thousand_completed_jobs() {
    const MANY: usize = 1_000;
    let (api, client) = started().await;
    let mut watch = client.watch(&format!("{ALL}?watch=true")).await;
    for number in 0..MANY {
        let mut one = job(&["hello"], json!({}));
        one["apiVersion"] = json!("batch/v1");
        one["metadata"] = json!({"name": format!("job-{number}"), "namespace": "cdm"});
        assert_eq!(api.put(&one), Ok(()));
    }
    api.advance(Duration::from_secs(30));
    let mut complete = 0;
    while complete < MANY {
        let event = watch.event().await;
        complete += ends(&event["object"]).iter().filter(|(kind, _)| kind == "Complete").count();
    }
    assert_eq!(api.requests().len(), 1);
    assert_eq!(api.counts()["pods"], MANY);
}
