//! What became of a job: by the conditions of the Job, by what keeps its pods from starting, and by the proof in its
//! log.

use serde_json::Value;

use super::job::proof_annotation;
use super::names::{annotation, text};
use super::pods;
use super::wp::{ADDRESS, MARK, PROVE};
use crate::domain::Timestamp;
use crate::ports::{JobFailure, JobState};

/// So many milliseconds after its start nobody looks yet what keeps a job's pods from running.
const YOUNG: u64 = 3_000;

/// How a Job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    Complete,
    Failed { reason: String, message: String },
}

/// How it ended; `None` while it has not. Conditions that only announce an end are none.
pub(super) fn end(job: &Value) -> Option<End> {
    let is_so =
        |of_type| pods::condition(job, of_type).filter(|found| text(found, "/status") == Some("True"));
    if is_so("Complete").is_some() {
        return Some(End::Complete);
    }
    let failed = is_so("Failed")?;
    let said = |pointer| text(failed, pointer).unwrap_or_default().to_owned();
    Some(End::Failed { reason: said("/reason"), message: said("/message") })
}

/// Whether a Job waits for its Secret, and so was not really started.
pub(super) fn is_suspended(job: &Value) -> bool {
    job.pointer("/spec/suspend").and_then(Value::as_bool) == Some(true)
}

/// Whether a job that has not ended needs no look at its pods: all of them run, or it has only just begun.
pub(super) fn is_well(job: &Value, now: Timestamp) -> bool {
    let count = |pointer| job.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
    let (active, ready) = (count("/status/active"), count("/status/ready"));
    let begun = text(job, "/status/startTime").and_then(|at| at.parse::<jiff::Timestamp>().ok());
    let begun = begun.and_then(|at| u64::try_from(at.as_millisecond()).ok());
    // The server writes whole seconds; one whose clock is ahead of ours is not believed.
    let young = begun.is_some_and(|begun| (begun..begun + YOUNG).contains(&now.millis()));
    active > 0 && (active == ready || young)
}

/// What is known of a job that has not ended. One whose image does not come fails at once: its Job would wait for the
/// whole of its deadline.
pub(super) fn unfinished(pods: &[Value]) -> JobState {
    let troubles = pods.iter().filter_map(pods::trouble);
    match troubles.filter(pods::Trouble::fails_job).max_by_key(|trouble| trouble.cause) {
        Some(trouble) if trouble.cause.is_pull() => {
            JobState::Failed { message: trouble.message, cause: JobFailure::Other }
        }
        Some(trouble) => {
            let message = format!(
                "{}; name a user by number, `runAsUser`, in the Deployment's securityContext",
                trouble.message
            );
            JobState::Failed { message, cause: JobFailure::Other }
        }
        None => JobState::Running,
    }
}

/// What a container printed.
pub(super) type Log = (String, String);

/// The state of a job for one site that has ended, whose containers printed `logs`.
pub(super) fn of_site(job: &Value, end: &End, pods: &[Value], logs: &[Log]) -> JobState {
    match end {
        End::Complete => {
            let containers = [ADDRESS, MARK, PROVE].into_iter();
            let unproved = containers.filter_map(|container| unproved(job, container, logs)).next();
            unproved.unwrap_or(JobState::Succeeded { failed: Vec::new() })
        }
        End::Failed { reason, message } => {
            let words = pods.iter().rev().find_map(pods::last_words);
            let of_words = words.as_deref().map(JobFailure::of_output).unwrap_or_default();
            let all = || logs.iter().map(|(_, log)| JobFailure::of_output(log));
            let cause = match of_words {
                JobFailure::Other | JobFailure::EndedEarly => {
                    all().find(|cause| *cause != JobFailure::Other).unwrap_or(of_words)
                }
                cause => cause,
            };
            let message = words.unwrap_or_else(|| message.clone());
            JobState::Failed { message: format!("{reason}: {message}"), cause }
        }
    }
}

/// The failure of a job whose container has not printed its proof; `None` where it has, or has none to print.
///
/// A site that has its address and no administrator is what an installation that was cut short has left.
fn unproved(job: &Value, container: &str, logs: &[Log]) -> Option<JobState> {
    let proof = annotation(job, &proof_annotation(container))?;
    let log = logs.iter().find(|(name, _)| name == container).map(|(_, log)| log.as_str());
    let is_proof = |line: &str| line.trim() == proof || line.split(',').any(|word| word.trim() == proof);
    if log.is_some_and(|log| log.lines().any(is_proof)) {
        return None;
    }
    let message = match log.map(pods::tail).filter(|log| !log.is_empty()) {
        Some(log) => format!("it ended without an error, but `{proof}` is not what it found: {log}"),
        None => format!("it ended without an error, but nothing shows `{proof}`"),
    };
    let of_administrator =
        container == PROVE && annotation(job, &proof_annotation(ADDRESS)).is_some() && log.is_some();
    let cause = if of_administrator { JobFailure::InstallIncomplete } else { JobFailure::Other };
    Some(JobState::Failed { message, cause })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn job(condition: &str, reason: &str) -> Value {
        let proofs = json!({
            "cdm/proof-address": "https://rrr.example.com",
            "cdm/proof": "administrator",
        });
        json!({
            "metadata": { "annotations": proofs },
            "status": { "conditions": [
                { "type": condition, "status": "True", "reason": reason, "message": "as it is" },
            ] },
        })
    }

    fn failed_pod(container: &str, words: &str) -> Value {
        let ended = json!({ "terminated": { "exitCode": 1, "reason": "Error", "message": words } });
        json!({ "status": { "initContainerStatuses": [{ "name": container, "state": ended }] } })
    }

    #[test]
    fn an_end_that_is_only_announced_is_none() {
        assert_eq!(end(&job("SuccessCriteriaMet", "")), None);
        assert_eq!(end(&job("FailureTarget", "DeadlineExceeded")), None);
        assert_eq!(end(&job("Complete", "")), Some(End::Complete));
    }

    #[test]
    fn an_end_without_an_error_is_no_proof() {
        let job = job("Complete", "");
        let state = |address: Option<&str>, roles: Option<&str>| {
            let logs = [("address", address), ("prove", roles)];
            let logs = logs.into_iter().filter_map(|(name, log)| Some((name.to_owned(), log?.to_owned())));
            of_site(&job, &End::Complete, &[], &logs.collect::<Vec<_>>())
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
        let silent = state(address, None);
        assert!(matches!(silent, JobState::Failed { cause: JobFailure::Other, .. }), "{silent:?}");
    }

    #[test]
    fn what_wp_says_last_is_the_cause() {
        let missing =
            "Error: The 'nope' theme could not be found.\nError: the command ended before it did its work";
        let state = |words: &str, logs: &[Log]| {
            let job = job("Failed", "BackoffLimitExceeded");
            let end = end(&job).expect("an end");
            of_site(&job, &end, &[failed_pod("activate", words)], logs)
        };
        let JobState::Failed { message, cause: JobFailure::ThemeMissing } = state(missing, &[]) else {
            panic!("{:?}", state(missing, &[]));
        };
        assert!(message.starts_with("BackoffLimitExceeded: `activate` ended with 1: Error: The 'nope'"));
        let refused = "Error: Error establishing a database connection.".to_owned();
        for (words, logs, cause) in [
            ("Error: no", Vec::new(), JobFailure::Other),
            ("Error", vec![("install".to_owned(), refused)], JobFailure::DatabaseRefused),
            ("Error: the command ended before it did its work", Vec::new(), JobFailure::EndedEarly),
        ] {
            let JobState::Failed { cause: found, .. } = state(words, &logs) else { panic!("{words}") };
            assert_eq!(found, cause, "{words}");
        }
    }

    #[test]
    fn pods_are_looked_at_when_some_do_not_run_and_had_time_to() {
        let well = |active: u64, ready: u64, at: u64| {
            let status = json!({ "active": active, "ready": ready, "startTime": "1970-01-01T00:00:10Z" });
            is_well(&json!({ "status": status }), Timestamp::from_millis(at))
        };
        assert!(well(3, 3, 100_000), "all run");
        assert!(well(3, 0, 10_000) && well(3, 0, 12_999), "it has only just begun");
        assert!(!well(3, 2, 13_000), "one does not run");
        assert!(!well(3, 0, 9_999), "a clock that is ahead is not believed");
        assert!(!well(0, 0, 10_500), "there is none to wait for");
    }

    #[test]
    fn an_image_that_does_not_come_fails_the_job_at_once() {
        let waiting = |reason: &str| {
            let state = json!({ "waiting": { "reason": reason, "message": "not found" } });
            json!({ "metadata": { "name": "p" }, "status": { "initContainerStatuses": [{ "state": state }] } })
        };
        let JobState::Failed { message, .. } = unfinished(&[waiting("ErrImagePull")]) else {
            panic!("it fails")
        };
        assert!(message.contains("ErrImagePull"), "{message}");
        assert_eq!(unfinished(&[waiting("PodInitializing")]), JobState::Running);
        assert_eq!(unfinished(&[waiting("CreateContainerConfigError")]), JobState::Running);
    }

    #[test]
    fn an_image_whose_user_is_root_fails_the_job_at_once() {
        let said = "container has runAsNonRoot and image will run as root";
        let state = json!({ "waiting": { "reason": "CreateContainerConfigError", "message": said } });
        let pod = json!({ "metadata": { "name": "p" }, "status": { "initContainerStatuses": [{ "state": state }] } });
        let JobState::Failed { message, cause: JobFailure::Other } = unfinished(&[pod]) else {
            panic!("it fails")
        };
        assert!(message.contains(said) && message.contains("`runAsUser`"), "{message}");
    }

    #[test]
    fn a_job_without_pods_that_wait_goes_on() {
        assert_eq!(unfinished(&[]), JobState::Running);
    }
}
