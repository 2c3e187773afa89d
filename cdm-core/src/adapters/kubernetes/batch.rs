//! A job for many sites: each index has a bounded number of sites, each site has a separate container without
//! credentials.
//!
//! The image looks up a site by its address, as for a visitor. The exit code and the termination message of a container
//! determine the result of its site, so that the failure of one site, or an end before its flush, affects no other
//! site.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::job_status::JobEnd;
use super::names::{Texts, annotation};
use super::pods;
use super::settings::KubernetesSettings;
use super::wp::{self, proof_annotation};
use crate::domain::Uid;
use crate::ports::{JobFailure, JobState};

/// The annotation with the sites, in order.
const SITES: &str = "cdm/sites";
/// The annotation with the sites that have no address any more.
const WITHOUT_ADDRESS: &str = "cdm/left-out";
/// The annotation with the number of sites per index.
const SLOTS: &str = "cdm/slots";
/// The annotation with the index of a pod.
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// Maximum number of sites in a batch. Their addresses must fit in one ConfigMap, whose limit is 1 MiB.
pub(super) const MAX_SITES: usize = 2_000;

/// The sites of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    sites: Vec<Uid>,
    without_address: Vec<Uid>,
    slots: usize,
}

impl Batch {
    /// Distributes sites evenly over the smallest number of indexes with at most `max_per_index` sites each.
    pub(super) fn new(sites: Vec<Uid>, without_address: Vec<Uid>, max_per_index: usize) -> Self {
        let indexes = sites.len().div_ceil(max_per_index.max(1)).max(1);
        let slots = sites.len().div_ceil(indexes).max(1);
        Self { sites, without_address, slots }
    }

    /// Returns the number of sites per index.
    pub(super) const fn slots(&self) -> usize {
        self.slots
    }

    fn indexes(&self) -> usize {
        self.sites.len().div_ceil(self.slots)
    }

    fn of_index(&self, index: usize) -> impl Iterator<Item = (usize, Uid)> {
        let sites = self.sites.iter().skip(index.saturating_mul(self.slots)).take(self.slots);
        sites.copied().enumerate()
    }

    /// Returns the configuration files of `wp`, one for each slot of each index. Unused slots of the last index get the
    /// last site again, which is harmless: a container without its file would fail.
    pub(super) fn files(&self, addresses: &BTreeMap<Uid, String>) -> BTreeMap<String, String> {
        let file_of_slot = |at: usize| {
            let uid = self.sites.get(at).or(self.sites.last())?;
            let name = format!("{}.{}", at / self.slots, file(at % self.slots));
            Some((name, wp::site_configuration(addresses.get(uid)?)))
        };
        let prelude = (wp::PRELUDE.0.to_owned(), wp::PRELUDE.1.to_owned());
        (0..self.indexes() * self.slots).filter_map(file_of_slot).chain([prelude]).collect()
    }

    /// Adds the batch to a Job.
    pub(super) fn write(&self, settings: &KubernetesSettings, annotations: &mut Texts, body: &mut JobSpec) {
        let list = |uids: &[Uid]| uids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let count = |count: usize| Some(i32::try_from(count).unwrap_or(i32::MAX));
        annotations.insert(SITES.to_owned(), list(&self.sites));
        annotations.insert(WITHOUT_ADDRESS.to_owned(), list(&self.without_address));
        annotations.insert(SLOTS.to_owned(), self.slots.to_string());
        body.completion_mode = Some("Indexed".to_owned());
        body.completions = count(self.indexes());
        body.parallelism = count(self.indexes().min(settings.batch_width as usize));
        // A failed index does not stop the others. The caller that started the job starts another one for the failed
        // sites.
        body.backoff_limit_per_index = Some(0);
        body.backoff_limit = None;
    }

    /// Returns the batch of a Job; `None` for a job of a single site.
    pub(super) fn read(job: &Job) -> Option<Self> {
        let job = &job.metadata;
        let listed = |name| {
            let uids = annotation(job, name).unwrap_or_default().split(',');
            uids.filter_map(|uid| Uid::parse(uid).ok()).collect::<Vec<_>>()
        };
        annotation(job, SITES)?;
        let slots = annotation(job, SLOTS).and_then(|slots| slots.parse().ok()).unwrap_or(1);
        Some(Self { sites: listed(SITES), without_address: listed(WITHOUT_ADDRESS), slots: slots.max(1) })
    }

    /// Returns the state of a finished Job of this batch.
    pub(super) fn state(&self, job: &Job, end: &JobEnd, pods: &[Pod]) -> JobState {
        let without_address = self.without_address.iter().map(|uid| (*uid, "it has no address".to_owned()));
        // A container's success needs the line that proves its work. Jobs of older versions have no such line.
        let proof = annotation(&job.metadata, &proof_annotation(wp::FLUSH));
        let indexes = match end {
            JobEnd::Complete if proof.is_none() => Vec::new(),
            JobEnd::Failed { reason, .. } if reason == "FailedIndexes" && proof.is_none() => {
                let status = job.status.as_ref();
                indexes(status.and_then(|status| status.failed_indexes.as_deref()).unwrap_or_default())
            }
            JobEnd::Complete => (0..self.indexes()).collect(),
            JobEnd::Failed { reason, .. } if reason == "FailedIndexes" => (0..self.indexes()).collect(),
            JobEnd::Failed { reason, message } => {
                return JobState::Failed {
                    message: format!("{reason}: {message}"),
                    cause: JobFailure::Other,
                };
            }
        };
        let mut failed = Vec::new();
        for index in indexes {
            let of_index = |pod: &&Pod| {
                annotation(&pod.metadata, INDEX).and_then(|text| text.parse().ok()) == Some(index)
            };
            let pods: Vec<&Pod> = pods.iter().filter(of_index).collect();
            for (slot, uid) in self.of_index(index) {
                failed.extend(failure(&pods, &container(slot), proof).map(|why| (uid, why)));
            }
        }
        JobState::Succeeded { failed: failed.into_iter().chain(without_address).collect() }
    }
}

pub(super) fn container(slot: usize) -> String {
    format!("{}-{slot}", wp::FLUSH)
}

/// Returns the name of a slot's file, without its index.
pub(super) fn file(slot: usize) -> String {
    format!("{slot}.yml")
}

/// Returns why a container did not complete in any of the pods of its index; `None` if it did.
fn failure(pods: &[&Pod], container: &str, proof: Option<&str>) -> Option<String> {
    let named = |status: &&ContainerStatus| status.name == container;
    let ended = pods.iter().flat_map(|pod| pods::statuses(pod).filter(named)).filter_map(pods::exit);
    let exits: Vec<pods::Termination<'_>> = ended.collect();
    let proved =
        |exit: &&pods::Termination<'_>| exit.code == 0 && proof.is_none_or(|proof| exit.has_line(proof));
    if exits.iter().any(|exit| proved(&exit)) {
        return None;
    }
    Some(match (exits.last(), proof) {
        (None, _) => "the state of its container is unknown".to_owned(),
        (Some(exit), Some(proof)) if exit.code == 0 => {
            format!(
                "`{container}` {}: it exited with code 0 but without the line `{proof}`",
                JobFailure::ENDED_EARLY
            )
        }
        (Some(exit), _) => exit.describe(),
    })
}

/// Parses a list of numbers and ranges such as `1,3-5`.
fn indexes(text: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse::<usize>().ok()?..=last.trim().parse::<usize>().ok()?)
    };
    // CDM creates no longer ranges.
    text.split(',').filter_map(range).flatten().take(MAX_SITES).collect()
}

#[cfg(test)]
mod tests {
    use kube::core::ObjectMeta;
    use serde_json::{Value, json};

    use super::*;

    fn uids(many: u128) -> Vec<Uid> {
        (1..=many).map(|n| Uid::from_parts(1, n)).collect()
    }

    fn job(batch: &Batch) -> Job {
        let (mut annotations, mut body) =
            (Texts::new(), JobSpec { backoff_limit: Some(0), ..JobSpec::default() });
        batch.write(&KubernetesSettings::new("sites", "repo"), &mut annotations, &mut body);
        annotations.insert(proof_annotation(wp::FLUSH), wp::FLUSHED.to_owned());
        let metadata = ObjectMeta { annotations: Some(annotations), ..ObjectMeta::default() };
        Job { metadata, spec: Some(body), ..Job::default() }
    }

    fn pod_of(value: Value) -> Pod {
        serde_json::from_value(value).expect("a pod")
    }

    #[test]
    fn sites_are_distributed_evenly_over_few_indexes() {
        for (sites, indexes, slots) in [(1, 1, 1), (8, 1, 8), (9, 2, 5), (20, 3, 7), (128, 16, 8)] {
            let batch = Batch::new(uids(sites), Vec::new(), 8);
            let job = job(&batch);
            let spec = job.spec.as_ref().expect("a specification");
            assert_eq!((batch.indexes(), batch.slots()), (indexes, slots), "{sites}");
            let indexes = i32::try_from(indexes).expect("a small number");
            assert_eq!((spec.completions, spec.parallelism), (Some(indexes), Some(indexes.min(4))));
            assert_eq!((spec.backoff_limit_per_index, spec.backoff_limit), (Some(0), None));
            assert_eq!(Batch::read(&job), Some(batch));
        }
    }

    #[test]
    fn every_slot_has_a_file_with_a_sites_address() {
        let sites = uids(3);
        let batch = Batch::new(sites.clone(), Vec::new(), 2);
        let address = |n: usize| format!("https://s{n}.example.com");
        let addresses = sites.iter().enumerate().map(|(n, uid)| (*uid, address(n))).collect();
        let files = batch.files(&addresses);
        let names: Vec<&str> = files.keys().map(String::as_str).collect();
        assert_eq!(names, ["0.0.yml", "0.1.yml", "1.0.yml", "1.1.yml", "wp-cli.php"]);
        assert_eq!(files["0.1.yml"], "url: https://s1.example.com\n");
        // The last site again.
        assert_eq!(files["1.1.yml"], files["1.0.yml"]);
    }

    #[test]
    fn a_site_fails_by_the_exit_of_its_container() {
        let sites = uids(7);
        let batch = Batch::new(sites[..6].to_vec(), vec![sites[6]], 3);
        let mut job = job(&batch);
        job.status = serde_json::from_value(json!({ "failedIndexes": "1" })).expect("a status");
        let exit = |slot: usize, code: i64| {
            let output = if code == 0 { "Success: The cache was flushed.\n" } else { "Error: no" };
            let ended = json!({ "exitCode": code, "reason": "Error", "message": output });
            json!({ "name": container(slot), "state": { "terminated": ended } })
        };
        let pod = |index: &str, exits: &[Value]| {
            pod_of(json!({
                "metadata": { "annotations": { INDEX: index } },
                "status": { "containerStatuses": exits },
            }))
        };
        let end = JobEnd::Failed { reason: "FailedIndexes".to_owned(), message: String::new() };
        let failed = |pods: &[Pod]| {
            let JobState::Succeeded { failed } = batch.state(&job, &end, pods) else { panic!("a batch") };
            failed
        };
        let first = pod("0", &[exit(0, 0), exit(1, 0), exit(2, 0)]);
        let one = failed(&[first.clone(), pod("1", &[exit(0, 0), exit(1, 1), exit(2, 0)])]);
        assert_eq!(one.iter().map(|(uid, _)| *uid).collect::<Vec<_>>(), [sites[4], sites[6]]);
        assert_eq!(one[0].1, "`flush-1` ended with 1: Error: no");
        // The containers of a disrupted pod that had completed count as completed.
        let disturbed = pod("1", &[exit(0, 137), exit(1, 0)]);
        let two = failed(&[first, disturbed, pod("1", &[exit(0, 0), exit(1, 1), exit(2, 0)])]);
        assert_eq!(two.len(), 1);
        // Without any status, every site counts as failed.
        assert_eq!(failed(&[]).len(), 7);
        let end = JobEnd::Failed { reason: "DeadlineExceeded".to_owned(), message: "too long".to_owned() };
        assert!(matches!(batch.state(&job, &end, &[]), JobState::Failed { cause: JobFailure::Other, .. }));
    }

    #[test]
    fn an_exit_without_the_line_of_a_flush_is_a_failure() {
        let sites = uids(2);
        let batch = Batch::new(sites.clone(), Vec::new(), 8);
        let job = job(&batch);
        let ended = |slot: usize, message: &str| {
            let ended = json!({ "exitCode": 0, "reason": "Completed", "message": message });
            json!({ "name": container(slot), "state": { "terminated": ended } })
        };
        let exits = json!([ended(0, "Success: The cache was flushed.\n"), ended(1, "")]);
        let pod = pod_of(json!({
            "metadata": { "annotations": { INDEX: "0" } },
            "status": { "containerStatuses": exits },
        }));
        let JobState::Succeeded { failed } = batch.state(&job, &JobEnd::Complete, &[pod]) else {
            panic!("a batch")
        };
        assert_eq!(failed.len(), 1);
        assert_eq!(failed[0].0, sites[1]);
        assert_eq!(JobFailure::of_output(&failed[0].1), JobFailure::EndedEarly, "{}", failed[0].1);
    }

    #[test]
    fn a_job_of_an_older_version_is_judged_by_exit_codes() {
        let sites = uids(3);
        let batch = Batch::new(sites[..2].to_vec(), vec![sites[2]], 8);
        let mut job = job(&batch);
        if let Some(annotations) = &mut job.metadata.annotations {
            annotations.remove(&proof_annotation(wp::FLUSH));
        }
        assert_eq!(
            batch.state(&job, &JobEnd::Complete, &[]),
            JobState::Succeeded { failed: vec![(sites[2], "it has no address".to_owned())] }
        );
    }

    #[test]
    fn failed_indexes_are_read_as_kubernetes_writes_them() {
        assert_eq!(indexes("1,3-5,9"), [1, 3, 4, 5, 9]);
        assert_eq!(indexes(""), [0; 0]);
        assert_eq!(indexes("x,2-y"), [0; 0]);
        assert_eq!(indexes("0-4000000000").len(), MAX_SITES);
    }
}
