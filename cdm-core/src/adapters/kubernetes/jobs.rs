//! Jobs: created suspended, given their files, and resumed; read together with their pods.
//!
//! The files of a job are in a Secret, those of a batch in a ConfigMap. The Job owns this object, so the Job is created
//! first, and the object is deleted with the Job. A suspended job counts as not started, and the next call continues
//! it.
//!
//! A Secret is deleted before its Job: an annotation of the Job has the Secret's uid while the Secret exists. After the
//! Job has ended, [`clear`] deletes the Secret and then the annotation. Before that, a pod that replaces a lost one
//! could not start without the Secret.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use kube::api::Patch;
use kube::core::ObjectMeta;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::Value;

use super::anchor::{self, Anchor};
use super::api::{Kind, Session};
use super::batch::{self, Batch};
use super::failure::Failure;
use super::image::is_failed_test;
use super::job::{self, CONFIGURATION_FILE, JOB, Work};
use super::job_status::{self, JobEnd};
use super::names::{
    self, CDM, COMPONENT, MANAGED_BY, SECRET, annotation, is_deleting, label, own_uid, site_of, texts,
};
use super::patch::{self, add, remove, replace, test};
use super::pods;
use super::service;
use super::settings::KubernetesSettings;
use super::wp;
use crate::domain::{JobName, SecretKind, SecretName, Uid};
use crate::ports::{
    self, Cms, Credentials, Database, ErrorKind, JobKind, JobSpec, JobState, SecretStore, StoredSecret,
};

/// The files of a job, by name.
enum Files {
    Secret(Vec<(String, SecretString)>),
    Plain(BTreeMap<String, String>),
}

pub(super) async fn run(
    session: &Session<'_>,
    settings: &KubernetesSettings,
    secrets: &dyn SecretStore,
    spec: &JobSpec,
) -> Result<(), Failure> {
    let (object, files) = prepare(session, settings, secrets, spec).await?;
    let name = spec.name.as_str();
    let existing = match session.create::<Job>(&object).await {
        Ok(created) => created,
        Err(failure) if failure.kind == ErrorKind::Exists => {
            let existing = session.get::<Job>(name).await?;
            adoptable(
                existing.ok_or_else(|| {
                    deletion_failure(spec, "the job was created and deleted at the same time")
                })?,
                spec,
            )?
        }
        Err(failure) => return Err(failure),
    };
    let own = own_uid(&existing.metadata);
    let mut resume = vec![test(&["metadata", "uid"], own), replace(&["spec", "suspend"], false)];
    match files {
        Files::Secret(files) => {
            let created = create_anew(session, name, &secret(name, own, &files)).await?;
            // The object has annotations, because the proof of its work is one.
            resume.push(add(&patch::annotation(SECRET), own_uid(&created.metadata)));
        }
        Files::Plain(files) => {
            create_anew(session, name, &config_map(name, own, files)).await?;
        }
    }
    match session.patch::<Job>(name, Patch::Json(json_patch::Patch(resume))).await {
        // Another attempt started the Job, and the Job has ended since: no pod will read the Secret that was just
        // created.
        Ok(job) if job_status::end(&job).is_some() => {
            clear(session, &job).await?;
            Err(Failure::new(ErrorKind::Exists, "the job already exists"))
        }
        Ok(_) => Ok(()),
        Err(failure) if failure.kind == ErrorKind::NotFound => {
            Err(deletion_failure(spec, "the job was deleted"))
        }
        Err(failure) if is_failed_test(&failure) => {
            Err(Failure::new(ErrorKind::Conflict, "another job has this name"))
        }
        Err(failure) => Err(failure),
    }
}

/// Creates the object with the files of a job. An object that exists belongs to an earlier attempt, or to a deleted job,
/// and is replaced.
async fn create_anew<K: Kind + Serialize>(
    session: &Session<'_>,
    name: &str,
    object: &K,
) -> Result<K, Failure> {
    match session.create(object).await {
        Err(failure) if failure.kind == ErrorKind::Exists => {
            session.delete::<K>(name, None).await?;
            session.create(object).await
        }
        created => created,
    }
}

/// A Job that has ended, and whose Secret may still exist.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Leftover {
    job: String,
    job_uid: String,
    secret_uid: String,
}

impl Leftover {
    /// Returns the remaining Secret of a Job; `None` if the Job has not ended, or if its Secret was deleted.
    pub(super) fn of(job: &Job) -> Option<Self> {
        job_status::end(job).filter(|_| is_ours(job))?;
        let job = &job.metadata;
        Some(Self {
            job: job.name.clone()?,
            job_uid: own_uid(job).to_owned(),
            secret_uid: annotation(job, SECRET)?.to_owned(),
        })
    }

    /// Deletes the Secret, then the annotation. The Secret of a deleted Job is garbage-collected.
    pub(super) async fn clear(&self, session: &Session<'_>) -> Result<(), Failure> {
        session.delete::<Secret>(&self.job, Some(&self.secret_uid)).await?;
        let path = patch::annotation(SECRET);
        let cleared = vec![
            test(&["metadata", "uid"], self.job_uid.as_str()),
            test(&path, self.secret_uid.as_str()),
            remove(&path),
        ];
        match session.patch::<Job>(&self.job, Patch::Json(json_patch::Patch(cleared))).await {
            Err(failure) if failure.kind != ErrorKind::NotFound && !is_failed_test(&failure) => Err(failure),
            // Another process has removed the annotation first.
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

/// Deletes the Secret of a Job that has ended, if it may still exist.
async fn clear(session: &Session<'_>, job: &Job) -> Result<(), Failure> {
    match Leftover::of(job) {
        Some(leftover) => leftover.clear(session).await,
        None => Ok(()),
    }
}

/// Returns the failure of a job that was deleted. A job of a site is deleted with the site's anchor; a batch has no
/// anchor.
fn deletion_failure(spec: &JobSpec, message: &str) -> Failure {
    let kind = if spec.kind.uid().is_some() { ErrorKind::Gone } else { ErrorKind::Unavailable };
    Failure::new(kind, message)
}

/// Returns the existing job with this name, if CDM created it for the same site and it is still suspended.
fn adoptable(existing: Job, spec: &JobSpec) -> Result<Job, Failure> {
    if !is_ours(&existing) || site_of(&existing.metadata) != spec.kind.uid() {
        return Err(Failure::new(ErrorKind::Foreign, "another owner has a job with this name"));
    }
    if is_deleting(&existing.metadata) || !job_status::is_suspended(&existing) {
        return Err(Failure::new(ErrorKind::Exists, "the job already exists"));
    }
    Ok(existing)
}

fn is_ours(job: &Job) -> bool {
    label(&job.metadata, MANAGED_BY) == Some(CDM) && label(&job.metadata, COMPONENT) == Some(JOB)
}

/// Creates the Job object and its files.
async fn prepare(
    session: &Session<'_>,
    settings: &KubernetesSettings,
    secrets: &dyn SecretStore,
    spec: &JobSpec,
) -> Result<(Value, Files), Failure> {
    let invalid = |message: &str| Failure::new(ErrorKind::Invalid, message);
    match &spec.kind {
        JobKind::Install { uid, hostnames, title } => {
            let address = anchor::address(settings, hostnames);
            let anchor = anchor::ensure(session, *uid, &address).await?;
            let cms = cms(secrets, *uid).await?;
            let mut files = database_files(&required_database(secrets, *uid).await?);
            let configuration = wp::install_configuration(cms.password.expose_secret());
            let configuration = configuration.ok_or_else(|| {
                invalid("the administrator's password has characters other than letters, digits, `_` and `-`")
            })?;
            files.push((CONFIGURATION_FILE.to_owned(), SecretString::from(configuration)));
            let site =
                wp::Site { address: &address, title: title.as_str(), user: &cms.username, email: &cms.email };
            let commands = wp::install(settings, &site);
            let object = job_object(session, settings, spec, (&commands, &Work::Site), Some(&anchor)).await?;
            Ok((object, Files::Secret(files)))
        }
        JobKind::ActivateTheme { uid, theme } => {
            let anchor = required_anchor(session, *uid).await?;
            let files = database_files(&required_database(secrets, *uid).await?);
            let commands = wp::activate_theme(settings, &anchor.address, theme.as_str());
            let object = job_object(session, settings, spec, (&commands, &Work::Site), Some(&anchor)).await?;
            Ok((object, Files::Secret(files)))
        }
        JobKind::FlushCaches { uids } => {
            if uids.len() > batch::MAX_SITES {
                return Err(invalid("a batch must have at most 2000 sites"));
            }
            let anchors = anchor::of_many(session, uids).await?;
            let owner = match spec.kind.uid() {
                Some(uid) => Some(required_anchor(session, uid).await?),
                None => None,
            };
            let addresses: BTreeMap<Uid, String> =
                anchors.into_iter().map(|anchor| (anchor.uid, anchor.address)).collect();
            let (sites, without_address) = uids.iter().partition(|uid| addresses.contains_key(uid));
            let batch = Batch::new(sites, without_address, settings.batch_slots as usize);
            let files = Files::Plain(batch.files(&addresses));
            let (commands, work) = (wp::flush_caches(settings), Work::Batch(batch));
            let object = job_object(session, settings, spec, (&commands, &work), owner.as_ref()).await?;
            Ok((object, files))
        }
    }
}

async fn job_object(
    session: &Session<'_>,
    settings: &KubernetesSettings,
    spec: &JobSpec,
    what: (&wp::Commands, &Work),
    owner: Option<&Anchor>,
) -> Result<Value, Failure> {
    let template = service::workload(session, settings, spec.service).await?.template;
    job::object(settings, &template, spec, what, owner.map(Anchor::owner))
}

async fn required_anchor(session: &Session<'_>, uid: Uid) -> Result<Anchor, Failure> {
    let none = || Failure::new(ErrorKind::NotFound, "the site has no anchor in the cluster");
    anchor::find(session, uid).await?.ok_or_else(none)
}

/// Returns the secret of this kind; `None` if it does not exist or is being deleted.
async fn stored(
    secrets: &dyn SecretStore,
    uid: Uid,
    kind: SecretKind,
) -> Result<Option<Credentials>, Failure> {
    match secrets.read(&SecretName { uid, kind }).await {
        Ok(Some(StoredSecret::Value(credentials))) => Ok(Some(credentials)),
        Ok(Some(StoredSecret::Deleting) | None) => Ok(None),
        Err(error) => Err(Failure::new(error.kind, error.to_string())),
    }
}

async fn database(secrets: &dyn SecretStore, uid: Uid) -> Result<Option<Database>, Failure> {
    Ok(match stored(secrets, uid, SecretKind::Database).await? {
        Some(Credentials::Database(database)) => Some(database),
        Some(Credentials::Cms(_) | Credentials::Webhook(_) | Credentials::Sealing(_)) | None => None,
    })
}

async fn required_database(secrets: &dyn SecretStore, uid: Uid) -> Result<Database, Failure> {
    let none = || Failure::new(ErrorKind::NotFound, "the site has no database credentials");
    database(secrets, uid).await?.ok_or_else(none)
}

async fn cms(secrets: &dyn SecretStore, uid: Uid) -> Result<Cms, Failure> {
    match stored(secrets, uid, SecretKind::Cms).await? {
        Some(Credentials::Cms(cms)) => Ok(cms),
        Some(Credentials::Database(_) | Credentials::Webhook(_) | Credentials::Sealing(_)) | None => {
            Err(Failure::new(ErrorKind::NotFound, "the site has no administrator's credentials"))
        }
    }
}

fn database_files(database: &Database) -> Vec<(String, SecretString)> {
    let file = |name: &str, text: String| (name.to_owned(), SecretString::from(text));
    vec![
        file("host", format!("{}:{}", database.host, database.port)),
        file("name", database.dbname.clone()),
        file("user", database.username.clone()),
        ("password".to_owned(), database.password.clone()),
        file(wp::PRELUDE.0, wp::PRELUDE.1.to_owned()),
    ]
}

/// Returns the metadata of the object with the files of a job, which the job owns.
fn files_metadata(name: &str, job: &str) -> ObjectMeta {
    let owner = OwnerReference {
        api_version: "batch/v1".to_owned(),
        kind: "Job".to_owned(),
        name: name.to_owned(),
        uid: job.to_owned(),
        ..OwnerReference::default()
    };
    ObjectMeta {
        name: Some(name.to_owned()),
        labels: Some(texts([(MANAGED_BY, CDM), (COMPONENT, JOB)])),
        owner_references: Some(vec![owner]),
        ..ObjectMeta::default()
    }
}

fn config_map(name: &str, job: &str, files: BTreeMap<String, String>) -> ConfigMap {
    ConfigMap { metadata: files_metadata(name, job), data: Some(files), ..ConfigMap::default() }
}

fn secret(name: &str, job: &str, files: &[(String, SecretString)]) -> Secret {
    let content = |content: &SecretString| ByteString(content.expose_secret().as_bytes().to_vec());
    Secret {
        metadata: files_metadata(name, job),
        type_: Some("Opaque".to_owned()),
        data: Some(files.iter().map(|(file, text)| (file.clone(), content(text))).collect()),
        ..Secret::default()
    }
}

pub(super) async fn read(session: &Session<'_>, name: &JobName) -> Result<Option<ports::Job>, Failure> {
    let Some(job) = session.get::<Job>(name.as_str()).await? else { return Ok(None) };
    if !is_ours(&job) || is_deleting(&job.metadata) || job_status::is_suspended(&job) {
        return Ok(None);
    }
    let (end, batch) = (job_status::end(&job), Batch::read(&job));
    let mut pods: Vec<Pod> = Vec::new();
    if end.is_some() || !job_status::is_healthy(&job, session.clock().wall()) {
        pods = session.list(&format!("batch.kubernetes.io/job-name={name}")).await?;
        pods.sort_by(|a, b| age(a).cmp(&age(b)));
    }
    let Some(end) = end else {
        return Ok(Some(ports::Job { state: job_status::unfinished(&pods), log: String::new() }));
    };
    clear(session, &job).await?;
    if let Some(batch) = batch {
        let state = batch.state(&job, &end, &pods);
        let log = batch_log(&state);
        return Ok(Some(ports::Job { state, log }));
    }
    let logs = logs(session, pods.last()).await?;
    let state = job_status::of_site(&job, &end, &pods, &logs);
    let log: String = logs.iter().map(|(name, log)| format!("{name}: {}\n", log.trim_end())).collect();
    Ok(Some(ports::Job { state, log: log + &end_text(&end) }))
}

fn age(pod: &Pod) -> (Option<&Time>, Option<&str>) {
    (pod.metadata.creation_timestamp.as_ref(), pod.metadata.name.as_deref())
}

fn end_text(end: &JobEnd) -> String {
    match end {
        JobEnd::Complete => String::new(),
        JobEnd::Failed { reason, message } => format!("{reason}: {message}\n"),
    }
}

/// Returns the logs of a pod's containers, in order.
async fn logs(session: &Session<'_>, pod: Option<&Pod>) -> Result<Vec<job_status::Log>, Failure> {
    let mut all = Vec::new();
    let Some(pod) = pod else { return Ok(all) };
    let name = names::name(&pod.metadata);
    for status in pods::statuses(pod) {
        let Some(log) = session.log(name, &status.name).await? else { continue };
        all.push((status.name.clone(), log));
    }
    Ok(all)
}

/// Returns the log of a batch: the failures of its sites. The output of successful containers is omitted.
fn batch_log(state: &JobState) -> String {
    match state {
        JobState::Succeeded { failed } => failed.iter().map(|(uid, why)| format!("{uid}: {why}\n")).collect(),
        JobState::Failed { message, .. } => format!("{message}\n"),
        JobState::Running => String::new(),
    }
}
