//! The status of a job, from the conditions of its Job, the problems of its pods, and the proof in its log.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;

use super::names::annotation;
use super::pods;
use super::wp::{ADDRESS, MARKER, PROVE, proof_annotation};
use crate::domain::Timestamp;
use crate::ports::{JobFailure, JobState};

/// How long after its start a job's pods are not examined yet, in milliseconds.
const STARTUP_MILLIS: u64 = 3_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum JobEnd {
    Complete,
    Failed { reason: String, message: String },
}

/// Returns the end of a Job; `None` if it has not ended. Conditions that only announce the end do not count.
pub(super) fn end(job: &Job) -> Option<JobEnd> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let is_true = |of_type: &str| {
        conditions.iter().find(|condition| condition.type_ == of_type && condition.status == "True")
    };
    if is_true("Complete").is_some() {
        return Some(JobEnd::Complete);
    }
    let failed = is_true("Failed")?;
    let detail = |text: &Option<String>| text.clone().unwrap_or_default();
    Some(JobEnd::Failed { reason: detail(&failed.reason), message: detail(&failed.message) })
}

/// Returns whether a Job is suspended until its Secret exists, and so has not started.
pub(super) fn is_suspended(job: &Job) -> bool {
    job.spec.as_ref().is_some_and(|spec| spec.suspend == Some(true))
}

/// Returns whether the pods of an unfinished job need no examination: all are ready, or the job has just started.
pub(super) fn is_healthy(job: &Job, now: Timestamp) -> bool {
    let Some(status) = &job.status else { return false };
    let (active, ready) = (status.active.unwrap_or_default(), status.ready.unwrap_or_default());
    let started = status.start_time.as_ref().and_then(|at| u64::try_from(at.0.as_millisecond()).ok());
    // The server's times have whole seconds. A start in the future means that its clock is ahead, and does not count.
    let starting = started.is_some_and(|started| (started..started + STARTUP_MILLIS).contains(&now.millis()));
    active > 0 && (active == ready || starting)
}

/// Returns the state of a job that has not ended. A job whose image cannot be pulled fails at once, because its Job
/// would otherwise wait for its whole deadline.
pub(super) fn unfinished(pods: &[Pod]) -> JobState {
    let problems = pods.iter().filter_map(pods::problem);
    match problems.filter(pods::PodProblem::fails_job).max_by_key(|problem| problem.cause) {
        Some(problem) if problem.cause.is_pull() => {
            JobState::Failed { message: problem.message, cause: JobFailure::Other }
        }
        Some(problem) => {
            let message = format!(
                "{}; set `runAsUser` to the number of a user in the Deployment's securityContext",
                problem.message
            );
            JobState::Failed { message, cause: JobFailure::Other }
        }
        None => JobState::Running,
    }
}

/// The name of a container, and its log.
pub(super) type Log = (String, String);

/// Returns the state of an ended job of one site, whose containers printed `logs`.
pub(super) fn of_site(job: &Job, end: &JobEnd, pods: &[Pod], logs: &[Log]) -> JobState {
    match end {
        JobEnd::Complete => {
            let containers = [ADDRESS, MARKER, PROVE].into_iter();
            let missing_proof = containers.filter_map(|container| missing_proof(job, container, logs)).next();
            missing_proof.unwrap_or(JobState::Succeeded { failed: Vec::new() })
        }
        JobEnd::Failed { reason, message } => {
            let output = pods.iter().rev().find_map(pods::failure_message);
            let output_cause = output.as_deref().map(JobFailure::of_output).unwrap_or_default();
            let all = || logs.iter().map(|(_, log)| JobFailure::of_output(log));
            let cause = match output_cause {
                JobFailure::Other | JobFailure::EndedEarly => {
                    all().find(|cause| *cause != JobFailure::Other).unwrap_or(output_cause)
                }
                cause => cause,
            };
            let message = output.unwrap_or_else(|| message.clone());
            JobState::Failed { message: format!("{reason}: {message}"), cause }
        }
    }
}

/// Returns the failure of a job whose container has not printed its proof; `None` if the container has, or needs none.
///
/// An interrupted installation leaves a site with its address but without an administrator.
fn missing_proof(job: &Job, container: &str, logs: &[Log]) -> Option<JobState> {
    let proof = annotation(&job.metadata, &proof_annotation(container))?;
    let log = logs.iter().find(|(name, _)| name == container).map(|(_, log)| log.as_str());
    let is_proof = |line: &str| line.trim() == proof || line.split(',').any(|word| word.trim() == proof);
    if log.is_some_and(|log| log.lines().any(is_proof)) {
        return None;
    }
    let message = match log.map(pods::tail).filter(|log| !log.is_empty()) {
        Some(log) => format!("the command succeeded, but its output is not `{proof}`: {log}"),
        None => format!("the command succeeded, but without the output `{proof}`"),
    };
    let of_administrator = container == PROVE
        && annotation(&job.metadata, &proof_annotation(ADDRESS)).is_some()
        && log.is_some();
    let cause = if of_administrator { JobFailure::InstallIncomplete } else { JobFailure::Other };
    Some(JobState::Failed { message, cause })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn job_of(value: Value) -> Job {
        serde_json::from_value(value).expect("a Job")
    }

    fn pod_of(value: Value) -> Pod {
        serde_json::from_value(value).expect("a pod")
    }

    fn job(condition: &str, reason: &str) -> Job {
        let proofs = json!({
            "cdm/proof-address": "https://rrr.example.com",
            "cdm/proof": "administrator",
        });
        job_of(json!({
            "metadata": { "annotations": proofs },
            "status": { "conditions": [
                { "type": condition, "status": "True", "reason": reason, "message": "as it is" },
            ] },
        }))
    }

    fn failed_pod(container: &str, output: &str) -> Pod {
        let ended = json!({ "terminated": { "exitCode": 1, "reason": "Error", "message": output } });
        pod_of(json!({ "status": { "initContainerStatuses": [{ "name": container, "state": ended }] } }))
    }

    #[test]
    fn an_announced_end_does_not_count() {
        assert_eq!(end(&job("SuccessCriteriaMet", "")), None);
        assert_eq!(end(&job("FailureTarget", "DeadlineExceeded")), None);
        assert_eq!(end(&job("Complete", "")), Some(JobEnd::Complete));
    }

    #[test]
    fn a_success_needs_its_proof() {
        let job = job("Complete", "");
        let state = |address: Option<&str>, roles: Option<&str>| {
            let logs = [("address", address), ("prove", roles)];
            let logs = logs.into_iter().filter_map(|(name, log)| Some((name.to_owned(), log?.to_owned())));
            of_site(&job, &JobEnd::Complete, &[], &logs.collect::<Vec<_>>())
        };
        let (address, roles) = (Some("Warning: x\nhttps://rrr.example.com\n"), Some("administrator\n"));
        let done = JobState::Succeeded { failed: Vec::new() };
        assert_eq!(state(address, roles), done);
        assert_eq!(state(address, Some("administrator, shop_manager\n")), done);
        for other in [None, Some(""), Some("https://rrr.example.com/site"), Some("https://other.example.com")]
        {
            let state = state(other, roles);
            assert!(matches!(state, JobState::Failed { cause: JobFailure::Other, .. }), "{other:?}");
        }
        for other in ["", "\n", "subscriber\n"] {
            let state = state(address, Some(other));
            assert!(
                matches!(state, JobState::Failed { cause: JobFailure::InstallIncomplete, .. }),
                "{other:?}"
            );
        }
        let no_log = state(address, None);
        assert!(matches!(no_log, JobState::Failed { cause: JobFailure::Other, .. }), "{no_log:?}");
    }

    #[test]
    fn the_last_message_of_wp_is_the_cause() {
        let missing =
            "Error: The 'nope' theme could not be found.\nError: the command ended before it did its work";
        let state = |output: &str, logs: &[Log]| {
            let job = job("Failed", "BackoffLimitExceeded");
            let end = end(&job).expect("an end");
            of_site(&job, &end, &[failed_pod("activate", output)], logs)
        };
        let JobState::Failed { message, cause: JobFailure::ThemeMissing } = state(missing, &[]) else {
            panic!("{:?}", state(missing, &[]));
        };
        assert!(message.starts_with("BackoffLimitExceeded: `activate` ended with 1: Error: The 'nope'"));
        let refused = "Error: Error establishing a database connection.".to_owned();
        for (output, logs, cause) in [
            ("Error: no", Vec::new(), JobFailure::Other),
            ("Error", vec![("install".to_owned(), refused)], JobFailure::DatabaseRefused),
            ("Error: the command ended before it did its work", Vec::new(), JobFailure::EndedEarly),
        ] {
            let JobState::Failed { cause: found, .. } = state(output, &logs) else { panic!("{output}") };
            assert_eq!(found, cause, "{output}");
        }
    }

    #[test]
    fn pods_are_examined_when_some_are_not_ready_after_a_while() {
        let healthy = |active: u64, ready: u64, at: u64| {
            let status = json!({ "active": active, "ready": ready, "startTime": "1970-01-01T00:00:10Z" });
            is_healthy(&job_of(json!({ "status": status })), Timestamp::from_millis(at))
        };
        assert!(healthy(3, 3, 100_000), "all are ready");
        assert!(healthy(3, 0, 10_000) && healthy(3, 0, 12_999), "the job has just started");
        assert!(!healthy(3, 2, 13_000), "one is not ready");
        assert!(!healthy(3, 0, 9_999), "a start in the future does not count");
        assert!(!healthy(0, 0, 10_500), "no pod is active");
    }

    #[test]
    fn a_failed_pull_fails_the_job_at_once() {
        let waiting = |reason: &str| {
            let state = json!({ "waiting": { "reason": reason, "message": "not found" } });
            pod_of(
                json!({ "metadata": { "name": "p" }, "status": { "initContainerStatuses": [{ "state": state }] } }),
            )
        };
        let JobState::Failed { message, .. } = unfinished(&[waiting("ErrImagePull")]) else {
            panic!("the job fails")
        };
        assert!(message.contains("ErrImagePull"), "{message}");
        assert_eq!(unfinished(&[waiting("PodInitializing")]), JobState::Running);
        assert_eq!(unfinished(&[waiting("CreateContainerConfigError")]), JobState::Running);
    }

    #[test]
    fn an_image_whose_user_is_root_fails_the_job_at_once() {
        let detail = "container has runAsNonRoot and image will run as root";
        let state = json!({ "waiting": { "reason": "CreateContainerConfigError", "message": detail } });
        let pod = json!({ "metadata": { "name": "p" }, "status": { "initContainerStatuses": [{ "state": state }] } });
        let pod = pod_of(pod);
        let JobState::Failed { message, cause: JobFailure::Other } = unfinished(&[pod]) else {
            panic!("the job fails")
        };
        assert!(message.contains(detail) && message.contains("`runAsUser`"), "{message}");
    }

    #[test]
    fn a_job_without_waiting_pods_is_running() {
        assert_eq!(unfinished(&[]), JobState::Running);
    }
}
