//! The Job controller: creates pods until enough of them have succeeded or too many have failed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cdm_core::domain::Timestamp;
use serde_json::{Value, json};

use super::super::kinds::Kind;
use super::super::object::Object;
use super::super::object::rfc3339;
use super::super::store::{Key, Store};
use super::super::writes::{self, Propagation, Run};
use super::replicaset::suffix;
use super::{
    ControllerMemory, all, by_controller, condition, garbage_collector, has_condition, is_terminating,
    pod_of, put_if_changed,
};

const INDEX: &str = "batch.kubernetes.io/job-completion-index";
const BACKOFF: Duration = Duration::from_secs(10);
const LONGEST_BACKOFF: Duration = Duration::from_secs(360);

type Pods = Vec<(Key, Arc<Value>)>;

#[derive(Debug, Default)]
pub(super) struct JobCounters {
    started: Option<Timestamp>,
    finished: Option<Timestamp>,
    /// The uids of counted pods, and of pods in progress.
    counted: BTreeSet<String>,
    under_way: BTreeSet<String>,
    succeeded: i64,
    failed: i64,
    completed: BTreeSet<i64>,
    failed_indexes: BTreeSet<i64>,
    /// Failures by index, or under -1 for a Job without indexes: their number, and the earliest time of the
    /// next pod.
    failures: BTreeMap<i64, (i64, Timestamp)>,
    /// The decided end of the Job.
    end: Option<JobEnd>,
}

#[derive(Clone, Debug)]
enum JobEnd {
    Complete(&'static str, &'static str),
    Failed(&'static str, String),
}

/// What a failed pod counts as.
enum Verdict {
    Count,
    Ignore,
    FailIndex,
    FailJob(String),
}

pub(super) fn reconcile(store: &mut Store, memory: &mut ControllerMemory, now: Timestamp) {
    let jobs = all(store, "jobs");
    let existing: BTreeSet<&str> = jobs.iter().map(|(_, job)| job.text("/metadata/uid")).collect();
    memory.jobs.retain(|uid, _| existing.contains(uid.as_str()));
    let mut owned = by_controller(store, "pods");
    for (key, job) in &jobs {
        if is_terminating(job) {
            continue;
        }
        let uid = job.text("/metadata/uid").to_owned();
        let mut counters = memory.jobs.remove(&uid).unwrap_or_default();
        let pods = owned.remove(&uid).unwrap_or_default();
        reconcile_one(store, memory, now, (key, job), &mut counters, pods);
        memory.jobs.insert(uid, counters);
    }
}

fn seconds(job: &Value, pointer: &str) -> Option<Duration> {
    job.number(pointer).map(|seconds| Duration::from_secs(seconds.unsigned_abs()))
}

fn reconcile_one(
    store: &mut Store,
    memory: &mut ControllerMemory,
    now: Timestamp,
    (key, job): (&Key, &Value),
    counters: &mut JobCounters,
    mut pods: Pods,
) {
    if let Some(finished) = counters.finished {
        if let Some(keep) = seconds(job, "/spec/ttlSecondsAfterFinished") {
            if now >= finished.after(keep) {
                garbage_collector::delete(store, now, key, Propagation::Foreground);
            } else {
                memory.wake_at(finished.after(keep));
            }
        }
        return;
    }
    count(counters, job, &pods, now);
    if job.is("/spec/suspend") {
        counters.started = None;
        for (pod, _) in active(&pods) {
            garbage_collector::delete(store, now, &pod, Propagation::Background);
            counters.under_way.clear();
        }
    } else {
        let started = *counters.started.get_or_insert(now);
        if let Some(timeout) = seconds(job, "/spec/activeDeadlineSeconds").filter(|_| counters.end.is_none())
        {
            if now >= started.after(timeout) {
                let message = "Job was active longer than specified deadline".to_owned();
                counters.end = Some(JobEnd::Failed("DeadlineExceeded", message));
            } else {
                memory.wake_at(started.after(timeout));
            }
        }
        decide_end(counters, job);
        if counters.end.is_none() {
            create_pods(store, memory, now, (key, job), counters, &mut pods);
        } else {
            for (pod, _) in active(&pods).into_iter().filter(|(_, pod)| !is_terminating(pod)) {
                garbage_collector::delete(store, now, &pod, Propagation::Background);
            }
        }
    }
    write_status(store, now, key, job, counters, &pods);
}

/// Returns the pods that have not ended.
fn active(pods: &Pods) -> Pods {
    let over = |pod: &Value| ["Succeeded", "Failed"].contains(&pod.text("/status/phase"));
    pods.iter().filter(|(_, pod)| !over(pod)).cloned().collect()
}

fn indexed(job: &Value) -> bool {
    job.text("/spec/completionMode") == "Indexed"
}

/// Returns the index of a pod, or -1 if it has none.
fn index(pod: &Value) -> i64 {
    let annotations = pod.pointer("/metadata/annotations").and_then(|all| all.get(INDEX));
    annotations.and_then(Value::as_str).and_then(|index| index.parse().ok()).unwrap_or(-1)
}

/// Counts the pods that ended or disappeared.
fn count(counters: &mut JobCounters, job: &Value, pods: &Pods, now: Timestamp) {
    for (_, pod) in pods {
        let uid = pod.text("/metadata/uid");
        let phase = pod.text("/status/phase");
        if !["Succeeded", "Failed"].contains(&phase) || !counters.counted.insert(uid.to_owned()) {
            continue;
        }
        counters.under_way.remove(uid);
        if phase == "Succeeded" {
            counters.succeeded += 1;
            if index(pod) >= 0 {
                counters.completed.insert(index(pod));
            }
            continue;
        }
        match verdict(job, pod) {
            Verdict::Ignore => {}
            Verdict::Count => fail(counters, index(pod), now),
            Verdict::FailIndex => {
                fail(counters, index(pod), now);
                counters.failed_indexes.insert(index(pod));
            }
            Verdict::FailJob(message) => {
                fail(counters, index(pod), now);
                counters.end.get_or_insert(JobEnd::Failed("PodFailurePolicy", message));
            }
        }
    }
    let existing: BTreeSet<&str> = pods.iter().map(|(_, pod)| pod.text("/metadata/uid")).collect();
    let vanished: Vec<String> =
        counters.under_way.iter().filter(|uid| !existing.contains(uid.as_str())).cloned().collect();
    for uid in vanished {
        counters.under_way.remove(&uid);
        if counters.end.is_none() {
            fail(counters, -1, now);
        }
    }
    if let Some(limit) = job.number("/spec/backoffLimitPerIndex") {
        let over = counters.failures.iter().filter(|(_, (times, _))| *times > limit).map(|(index, _)| *index);
        counters.failed_indexes.extend(over.filter(|index| *index >= 0));
    }
    if !indexed(job) {
        counters.completed.clear();
    } else {
        counters.succeeded = i64::try_from(counters.completed.len()).unwrap_or(i64::MAX);
    }
}

fn fail(counters: &mut JobCounters, index: i64, now: Timestamp) {
    counters.failed += 1;
    let failures = counters.failures.entry(index).or_insert((0, now));
    failures.0 += 1;
    let times = u32::try_from(failures.0 - 1).unwrap_or(0).min(8);
    failures.1 = now.after(BACKOFF.saturating_mul(1 << times).min(LONGEST_BACKOFF));
}

/// Returns the action of the first rule that matches a failed pod.
fn verdict(job: &Value, pod: &Value) -> Verdict {
    let ended = |list: &str| pod.list(&format!("/status/{list}")).to_vec();
    let containers: Vec<Value> = [ended("initContainerStatuses"), ended("containerStatuses")].concat();
    for (number, rule) in job.list("/spec/podFailurePolicy/rules").iter().enumerate() {
        let codes = rule.list("/onExitCodes/values");
        let named = rule.text("/onExitCodes/containerName");
        let failed_container = containers.iter().find(|container| {
            let Some(code) = container.number("/state/terminated/exitCode").filter(|code| *code != 0) else {
                return false;
            };
            let listed = codes.contains(&json!(code));
            (named.is_empty() || container["name"] == named)
                && listed == (rule.text("/onExitCodes/operator") == "In")
                && rule.get("onExitCodes").is_some()
        });
        let conditions = rule.list("/onPodConditions").iter();
        let mut matching_conditions = conditions.filter(|wanted| {
            pod.list("/status/conditions")
                .iter()
                .any(|one| one["type"] == wanted["type"] && one["status"] == wanted["status"])
        });
        let pod_name = format!("{}/{}", pod.text("/metadata/namespace"), pod.text("/metadata/name"));
        let action = rule.text("/action");
        let message = match (failed_container, matching_conditions.next()) {
            (Some(container), _) => format!(
                "Container {} for pod {pod_name} failed with exit code {} matching {action} rule at index {number}",
                container.text("/name"),
                container.number("/state/terminated/exitCode").unwrap_or(0),
            ),
            (None, Some(condition)) => format!(
                "Pod {pod_name} has condition {} matching {action} rule at index {number}",
                condition.text("/type"),
            ),
            (None, None) => continue,
        };
        return match action {
            "FailJob" => Verdict::FailJob(message),
            "FailIndex" => Verdict::FailIndex,
            "Ignore" => Verdict::Ignore,
            _ => Verdict::Count,
        };
    }
    Verdict::Count
}

/// Decides whether and how a Job ends.
fn decide_end(counters: &mut JobCounters, job: &Value) {
    if counters.end.is_some() {
        return;
    }
    let completions = job.number("/spec/completions");
    let failed_indexes = i64::try_from(counters.failed_indexes.len()).unwrap_or(i64::MAX);
    if counters.failed > job.number("/spec/backoffLimit").unwrap_or(6) {
        let message = "Job has reached the specified backoff limit".to_owned();
        counters.end = Some(JobEnd::Failed("BackoffLimitExceeded", message));
    } else if job.number("/spec/maxFailedIndexes").is_some_and(|most| failed_indexes > most) {
        let message = "Job has exceeded the specified maximal number of failed indexes".to_owned();
        counters.end = Some(JobEnd::Failed("MaxFailedIndexesExceeded", message));
    } else if completions.is_some_and(|all| counters.succeeded + failed_indexes >= all) {
        counters.end = Some(if failed_indexes > 0 {
            JobEnd::Failed("FailedIndexes", "Job has failed indexes".to_owned())
        } else {
            JobEnd::Complete("CompletionsReached", "Reached expected number of succeeded pods")
        });
    } else if completions.is_none() && counters.succeeded > 0 && counters.under_way.is_empty() {
        // A Job without `completions` is complete when one pod has succeeded and all other pods have ended.
        counters.end =
            Some(JobEnd::Complete("CompletionsReached", "Reached expected number of succeeded pods"));
    }
}

/// Creates the missing pods.
fn create_pods(
    store: &mut Store,
    memory: &mut ControllerMemory,
    now: Timestamp,
    (key, job): (&Key, &Value),
    counters: &mut JobCounters,
    pods: &mut Pods,
) {
    let replaced_late = job.text("/spec/podReplacementPolicy") == "Failed";
    let mut running = active(pods);
    running.retain(|(_, pod)| replaced_late || !is_terminating(pod));
    let parallelism = usize::try_from(job.number("/spec/parallelism").unwrap_or(1)).unwrap_or(0);
    let capacity = parallelism.saturating_sub(running.len());
    let mut wanted: Vec<i64> = if indexed(job) {
        let busy: BTreeSet<i64> = running.iter().map(|(_, pod)| index(pod)).collect();
        let open = |index: &i64| {
            !busy.contains(index)
                && !counters.completed.contains(index)
                && !counters.failed_indexes.contains(index)
        };
        (0..job.number("/spec/completions").unwrap_or(0)).filter(open).collect()
    } else {
        let missing = match job.number("/spec/completions") {
            Some(all) => usize::try_from(all - counters.succeeded).unwrap_or(0).saturating_sub(running.len()),
            None if counters.succeeded > 0 => 0,
            None => capacity,
        };
        vec![-1; missing]
    };
    let per_index = job.number("/spec/backoffLimitPerIndex").is_some();
    wanted.retain(|index| {
        let begins = counters
            .failures
            .iter()
            .filter(|(of, _)| !per_index || *of == index)
            .map(|(_, (_, at))| *at)
            .max();
        let later = begins.filter(|begins| *begins > now);
        if let Some(later) = later {
            memory.wake_at(later);
        }
        later.is_none()
    });
    let Some(kind) = Kind::of("pods") else { return };
    for index in wanted.into_iter().take(capacity) {
        let mut pod = pod_of(job, "");
        let mut name = format!("{}-{}", key.2, suffix(store));
        if index >= 0 {
            name = format!("{}-{index}-{}", key.2, suffix(store));
            for map in ["labels", "annotations"] {
                pod.map(&format!("/metadata/{map}")).insert(INDEX.to_owned(), json!(index.to_string()));
            }
            if per_index {
                let times = counters.failures.get(&index).map_or(0, |(times, _)| *times);
                let count = "batch.kubernetes.io/job-index-failure-count".to_owned();
                pod.map("/metadata/annotations").insert(count, json!(times.to_string()));
            }
            set_index_variable(&mut pod);
        }
        pod.put("/metadata/name", name.as_str());
        if let Ok(pod) = writes::create(store, now, kind, &key.1, pod, Run::Real) {
            counters.under_way.insert(pod.text("/metadata/uid").to_owned());
            pods.push((("pods", key.1.clone(), name), pod));
        }
    }
}

/// Sets the index as an environment variable of every container.
fn set_index_variable(pod: &mut Value) {
    for list in ["initContainers", "containers"] {
        let containers = pod.pointer_mut(&format!("/spec/{list}")).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let mut env = container.list("/env").to_vec();
            if env.iter().all(|variable| variable["name"] != "JOB_COMPLETION_INDEX") {
                let field = format!("metadata.labels['{INDEX}']");
                env.push(json!({
                    "name": "JOB_COMPLETION_INDEX", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": field}},
                }));
                container.put("/env", env);
            }
        }
    }
}

/// Formats indexes as a Job reports them, such as `0-2,4`.
fn ranges(indexes: &BTreeSet<i64>) -> String {
    let mut parts: Vec<(i64, i64)> = Vec::new();
    for index in indexes {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == *index => *last = *index,
            _ => parts.push((*index, *index)),
        }
    }
    let written = parts.iter().map(|(from, to)| match to - from {
        0 => from.to_string(),
        1 => format!("{from},{to}"),
        _ => format!("{from}-{to}"),
    });
    written.collect::<Vec<_>>().join(",")
}

fn write_status(
    store: &mut Store,
    now: Timestamp,
    key: &Key,
    job: &Value,
    counters: &mut JobCounters,
    pods: &Pods,
) {
    let active = active(pods);
    let terminating = active.iter().filter(|(_, pod)| is_terminating(pod)).count();
    let ready = active.iter().filter(|(_, pod)| has_condition(pod, "Ready")).count();
    let mut shown = job.clone();
    let mut status = json!({"uncountedTerminatedPods": {}, "terminating": terminating, "ready": ready});
    for part in ["conditions", "startTime"] {
        if let Some(before) = job.pointer(&format!("/status/{part}")) {
            status[part] = before.clone();
        }
    }
    let running = i64::try_from(active.len() - terminating).unwrap_or(0);
    for (name, many) in [("active", running), ("succeeded", counters.succeeded), ("failed", counters.failed)]
    {
        if many > 0 {
            status[name] = json!(many);
        }
    }
    match counters.started {
        Some(started) => status["startTime"] = json!(rfc3339(started)),
        None => drop(status.remove("/startTime")),
    }
    if indexed(job) && !counters.completed.is_empty() {
        status["completedIndexes"] = json!(ranges(&counters.completed));
    }
    if job.number("/spec/backoffLimitPerIndex").is_some() {
        status["failedIndexes"] = json!(ranges(&counters.failed_indexes));
    }
    shown.put("/status", status);
    if job.is("/spec/suspend") {
        condition(&mut shown, "Suspended", "True", "JobSuspended", "Job suspended", now);
    } else if has_condition(job, "Suspended") {
        condition(&mut shown, "Suspended", "False", "JobResumed", "Job resumed", now);
    }
    // The end is reported twice: when it is decided, and when no pod remains.
    let (decided, over, reason, message) = match &counters.end {
        Some(JobEnd::Complete(reason, message)) => {
            ("SuccessCriteriaMet", "Complete", *reason, (*message).to_owned())
        }
        Some(JobEnd::Failed(reason, message)) => ("FailureTarget", "Failed", *reason, message.clone()),
        None => return put_if_changed(store, key, shown),
    };
    let was_decided = has_condition(job, decided);
    condition(&mut shown, decided, "True", reason, &message, now);
    if was_decided && active.is_empty() {
        condition(&mut shown, over, "True", reason, &message, now);
        if over == "Complete" {
            shown.put("/status/completionTime", rfc3339(now));
        }
        counters.finished = Some(now);
    }
    put_if_changed(store, key, shown);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_written_as_ranges() {
        let set = |indexes: &[i64]| ranges(&indexes.iter().copied().collect());
        assert_eq!(set(&[]), "");
        assert_eq!(set(&[0, 1, 2, 4, 6, 7]), "0-2,4,6,7");
    }
}
