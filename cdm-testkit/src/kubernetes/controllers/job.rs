//! Jobs: pods until enough of them succeeded, or too many did not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cdm_core::domain::Timestamp;
use serde_json::{Value, json};

use super::super::kinds::Kind;
use super::super::object::Object;
use super::super::store::{Key, Store};
use super::super::time::written;
use super::super::writes::{self, Propagation, Run};
use super::replicas::suffix;
use super::{Memory, all, by_controller, collect, condition, has_condition, keep, leaving, pod_of};

const INDEX: &str = "batch.kubernetes.io/job-completion-index";
const BACKOFF: Duration = Duration::from_secs(10);
const LONGEST_BACKOFF: Duration = Duration::from_secs(360);

type Pods = Vec<(Key, Arc<Value>)>;

/// What a job's controller has counted.
#[derive(Debug, Default)]
pub(super) struct Tally {
    started: Option<Timestamp>,
    finished: Option<Timestamp>,
    /// The uids of pods that were counted, and of those that are under way.
    counted: BTreeSet<String>,
    under_way: BTreeSet<String>,
    succeeded: i64,
    failed: i64,
    completed: BTreeSet<i64>,
    lost: BTreeSet<i64>,
    /// Failures by index, or under -1, and when the next pod of it may begin.
    failures: BTreeMap<i64, (i64, Timestamp)>,
    /// How it is going to end.
    end: Option<End>,
}

#[derive(Clone, Debug)]
enum End {
    Complete(&'static str, &'static str),
    Failed(&'static str, String),
}

/// What a pod that failed counts for.
enum Verdict {
    Count,
    Ignore,
    FailIndex,
    FailJob(String),
}

pub(super) fn look(store: &mut Store, memory: &mut Memory, now: Timestamp) {
    let jobs = all(store, "jobs");
    let there: BTreeSet<&str> = jobs.iter().map(|(_, job)| job.text("/metadata/uid")).collect();
    memory.jobs.retain(|uid, _| there.contains(uid.as_str()));
    let mut owned = by_controller(store, "pods");
    for (key, job) in &jobs {
        if leaving(job) {
            continue;
        }
        let uid = job.text("/metadata/uid").to_owned();
        let mut tally = memory.jobs.remove(&uid).unwrap_or_default();
        let pods = owned.remove(&uid).unwrap_or_default();
        look_at(store, memory, now, (key, job), &mut tally, pods);
        memory.jobs.insert(uid, tally);
    }
}

fn seconds(job: &Value, pointer: &str) -> Option<Duration> {
    job.number(pointer).map(|seconds| Duration::from_secs(seconds.unsigned_abs()))
}

fn look_at(
    store: &mut Store,
    memory: &mut Memory,
    now: Timestamp,
    (key, job): (&Key, &Value),
    tally: &mut Tally,
    mut pods: Pods,
) {
    if let Some(finished) = tally.finished {
        if let Some(keep) = seconds(job, "/spec/ttlSecondsAfterFinished") {
            if now >= finished.after(keep) {
                collect::delete(store, now, key, Propagation::Foreground);
            } else {
                memory.wake_at(finished.after(keep));
            }
        }
        return;
    }
    count(tally, job, &pods, now);
    if job.is("/spec/suspend") {
        tally.started = None;
        for (pod, _) in active(&pods) {
            collect::delete(store, now, &pod, Propagation::Background);
            tally.under_way.clear();
        }
    } else {
        let started = *tally.started.get_or_insert(now);
        if let Some(patience) = seconds(job, "/spec/activeDeadlineSeconds").filter(|_| tally.end.is_none()) {
            if now >= started.after(patience) {
                let message = "Job was active longer than specified deadline".to_owned();
                tally.end = Some(End::Failed("DeadlineExceeded", message));
            } else {
                memory.wake_at(started.after(patience));
            }
        }
        judge(tally, job);
        if tally.end.is_none() {
            spawn(store, memory, now, (key, job), tally, &mut pods);
        } else {
            for (pod, _) in active(&pods).into_iter().filter(|(_, pod)| !leaving(pod)) {
                collect::delete(store, now, &pod, Propagation::Background);
            }
        }
    }
    show(store, now, key, job, tally, &pods);
}

/// Pods that have not ended.
fn active(pods: &Pods) -> Pods {
    let over = |pod: &Value| ["Succeeded", "Failed"].contains(&pod.text("/status/phase"));
    pods.iter().filter(|(_, pod)| !over(pod)).cloned().collect()
}

fn indexed(job: &Value) -> bool {
    job.text("/spec/completionMode") == "Indexed"
}

/// The index of a pod; -1 for all that have none.
fn index(pod: &Value) -> i64 {
    let annotations = pod.pointer("/metadata/annotations").and_then(|all| all.get(INDEX));
    annotations.and_then(Value::as_str).and_then(|index| index.parse().ok()).unwrap_or(-1)
}

/// Counts the pods that ended, and those that vanished.
fn count(tally: &mut Tally, job: &Value, pods: &Pods, now: Timestamp) {
    for (_, pod) in pods {
        let uid = pod.text("/metadata/uid");
        let phase = pod.text("/status/phase");
        if !["Succeeded", "Failed"].contains(&phase) || !tally.counted.insert(uid.to_owned()) {
            continue;
        }
        tally.under_way.remove(uid);
        if phase == "Succeeded" {
            tally.succeeded += 1;
            if index(pod) >= 0 {
                tally.completed.insert(index(pod));
            }
            continue;
        }
        match verdict(job, pod) {
            Verdict::Ignore => {}
            Verdict::Count => fail(tally, index(pod), now),
            Verdict::FailIndex => {
                fail(tally, index(pod), now);
                tally.lost.insert(index(pod));
            }
            Verdict::FailJob(message) => {
                fail(tally, index(pod), now);
                tally.end.get_or_insert(End::Failed("PodFailurePolicy", message));
            }
        }
    }
    let there: BTreeSet<&str> = pods.iter().map(|(_, pod)| pod.text("/metadata/uid")).collect();
    let vanished: Vec<String> =
        tally.under_way.iter().filter(|uid| !there.contains(uid.as_str())).cloned().collect();
    for uid in vanished {
        tally.under_way.remove(&uid);
        if tally.end.is_none() {
            fail(tally, -1, now);
        }
    }
    if let Some(limit) = job.number("/spec/backoffLimitPerIndex") {
        let over = tally.failures.iter().filter(|(_, (times, _))| *times > limit).map(|(index, _)| *index);
        tally.lost.extend(over.filter(|index| *index >= 0));
    }
    if !indexed(job) {
        tally.completed.clear();
    } else {
        tally.succeeded = i64::try_from(tally.completed.len()).unwrap_or(i64::MAX);
    }
}

fn fail(tally: &mut Tally, index: i64, now: Timestamp) {
    tally.failed += 1;
    let failures = tally.failures.entry(index).or_insert((0, now));
    failures.0 += 1;
    let times = u32::try_from(failures.0 - 1).unwrap_or(0).min(8);
    failures.1 = now.after(BACKOFF.saturating_mul(1 << times).min(LONGEST_BACKOFF));
}

/// What the first rule says that a failed pod fits.
fn verdict(job: &Value, pod: &Value) -> Verdict {
    let ended = |list: &str| pod.list(&format!("/status/{list}")).to_vec();
    let containers: Vec<Value> = [ended("initContainerStatuses"), ended("containerStatuses")].concat();
    for (number, rule) in job.list("/spec/podFailurePolicy/rules").iter().enumerate() {
        let codes = rule.list("/onExitCodes/values");
        let named = rule.text("/onExitCodes/containerName");
        let met = containers.iter().find(|container| {
            let Some(code) = container.number("/state/terminated/exitCode").filter(|code| *code != 0) else {
                return false;
            };
            let listed = codes.contains(&json!(code));
            (named.is_empty() || container["name"] == named)
                && listed == (rule.text("/onExitCodes/operator") == "In")
                && rule.get("onExitCodes").is_some()
        });
        let conditions = rule.list("/onPodConditions").iter();
        let mut stands = conditions.filter(|wanted| {
            pod.list("/status/conditions")
                .iter()
                .any(|one| one["type"] == wanted["type"] && one["status"] == wanted["status"])
        });
        let pod_name = format!("{}/{}", pod.text("/metadata/namespace"), pod.text("/metadata/name"));
        let action = rule.text("/action");
        let message = match (met, stands.next()) {
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

/// Decides how a job ends, if it does.
fn judge(tally: &mut Tally, job: &Value) {
    if tally.end.is_some() {
        return;
    }
    let completions = job.number("/spec/completions");
    let lost = i64::try_from(tally.lost.len()).unwrap_or(i64::MAX);
    if tally.failed > job.number("/spec/backoffLimit").unwrap_or(6) {
        let message = "Job has reached the specified backoff limit".to_owned();
        tally.end = Some(End::Failed("BackoffLimitExceeded", message));
    } else if job.number("/spec/maxFailedIndexes").is_some_and(|most| lost > most) {
        let message = "Job has exceeded the specified maximal number of failed indexes".to_owned();
        tally.end = Some(End::Failed("MaxFailedIndexesExceeded", message));
    } else if completions.is_some_and(|all| tally.succeeded + lost >= all) {
        tally.end = Some(if lost > 0 {
            End::Failed("FailedIndexes", "Job has failed indexes".to_owned())
        } else {
            End::Complete("CompletionsReached", "Reached expected number of succeeded pods")
        });
    } else if completions.is_none() && tally.succeeded > 0 && tally.under_way.is_empty() {
        // A job without a number is done when one pod succeeded and all others have ended.
        tally.end = Some(End::Complete("CompletionsReached", "Reached expected number of succeeded pods"));
    }
}

/// Starts the pods that are missing.
fn spawn(
    store: &mut Store,
    memory: &mut Memory,
    now: Timestamp,
    (key, job): (&Key, &Value),
    tally: &mut Tally,
    pods: &mut Pods,
) {
    let replaced_late = job.text("/spec/podReplacementPolicy") == "Failed";
    let mut running = active(pods);
    running.retain(|(_, pod)| replaced_late || !leaving(pod));
    let parallelism = usize::try_from(job.number("/spec/parallelism").unwrap_or(1)).unwrap_or(0);
    let room = parallelism.saturating_sub(running.len());
    let mut wanted: Vec<i64> = if indexed(job) {
        let busy: BTreeSet<i64> = running.iter().map(|(_, pod)| index(pod)).collect();
        let open = |index: &i64| {
            !busy.contains(index) && !tally.completed.contains(index) && !tally.lost.contains(index)
        };
        (0..job.number("/spec/completions").unwrap_or(0)).filter(open).collect()
    } else {
        let missing = match job.number("/spec/completions") {
            Some(all) => usize::try_from(all - tally.succeeded).unwrap_or(0).saturating_sub(running.len()),
            None if tally.succeeded > 0 => 0,
            None => room,
        };
        vec![-1; missing]
    };
    let per_index = job.number("/spec/backoffLimitPerIndex").is_some();
    wanted.retain(|index| {
        let begins =
            tally.failures.iter().filter(|(of, _)| !per_index || *of == index).map(|(_, (_, at))| *at).max();
        let later = begins.filter(|begins| *begins > now);
        if let Some(later) = later {
            memory.wake_at(later);
        }
        later.is_none()
    });
    let Some(kind) = Kind::of("pods") else { return };
    for index in wanted.into_iter().take(room) {
        let mut pod = pod_of(job, "");
        let mut name = format!("{}-{}", key.2, suffix(store));
        if index >= 0 {
            name = format!("{}-{index}-{}", key.2, suffix(store));
            for map in ["labels", "annotations"] {
                pod.map(&format!("/metadata/{map}")).insert(INDEX.to_owned(), json!(index.to_string()));
            }
            if per_index {
                let times = tally.failures.get(&index).map_or(0, |(times, _)| *times);
                let count = "batch.kubernetes.io/job-index-failure-count".to_owned();
                pod.map("/metadata/annotations").insert(count, json!(times.to_string()));
            }
            give_index(&mut pod);
        }
        pod.put("/metadata/name", name.as_str());
        if let Ok(pod) = writes::create(store, now, kind, &key.1, pod, Run::Real) {
            tally.under_way.insert(pod.text("/metadata/uid").to_owned());
            pods.push((("pods", key.1.clone(), name), pod));
        }
    }
}

/// Tells every container its index.
fn give_index(pod: &mut Value) {
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

/// Indexes as a job writes them, such as `0-2,4`.
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

fn show(store: &mut Store, now: Timestamp, key: &Key, job: &Value, tally: &mut Tally, pods: &Pods) {
    let active = active(pods);
    let terminating = active.iter().filter(|(_, pod)| leaving(pod)).count();
    let ready = active.iter().filter(|(_, pod)| has_condition(pod, "Ready")).count();
    let mut shown = job.clone();
    let mut status = json!({"uncountedTerminatedPods": {}, "terminating": terminating, "ready": ready});
    for part in ["conditions", "startTime"] {
        if let Some(before) = job.pointer(&format!("/status/{part}")) {
            status[part] = before.clone();
        }
    }
    let running = i64::try_from(active.len() - terminating).unwrap_or(0);
    for (name, many) in [("active", running), ("succeeded", tally.succeeded), ("failed", tally.failed)] {
        if many > 0 {
            status[name] = json!(many);
        }
    }
    match tally.started {
        Some(started) => status["startTime"] = json!(written(started)),
        None => drop(status.remove("/startTime")),
    }
    if indexed(job) && !tally.completed.is_empty() {
        status["completedIndexes"] = json!(ranges(&tally.completed));
    }
    if job.number("/spec/backoffLimitPerIndex").is_some() {
        status["failedIndexes"] = json!(ranges(&tally.lost));
    }
    shown.put("/status", status);
    if job.is("/spec/suspend") {
        condition(&mut shown, "Suspended", "True", "JobSuspended", "Job suspended", now);
    } else if has_condition(job, "Suspended") {
        condition(&mut shown, "Suspended", "False", "JobResumed", "Job resumed", now);
    }
    // The end is told twice: that it is decided, and, when no pod is left, that it has come.
    let (decided, over, reason, message) = match &tally.end {
        Some(End::Complete(reason, message)) => {
            ("SuccessCriteriaMet", "Complete", *reason, (*message).to_owned())
        }
        Some(End::Failed(reason, message)) => ("FailureTarget", "Failed", *reason, message.clone()),
        None => return keep(store, key, shown),
    };
    let was_decided = has_condition(job, decided);
    condition(&mut shown, decided, "True", reason, &message, now);
    if was_decided && active.is_empty() {
        condition(&mut shown, over, "True", reason, &message, now);
        if over == "Complete" {
            shown.put("/status/completionTime", written(now));
        }
        tally.finished = Some(now);
    }
    keep(store, key, shown);
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
