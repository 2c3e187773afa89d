//! Jobs: made asleep, given their files, and woken; looked at with their pods.
//!
//! The files lie in a Secret, those of a batch in a ConfigMap. Either belongs to the Job and goes with it, so the Job
//! comes first. One that is still asleep counts as not started, and the next call goes on with it.
//!
//! A Secret does not wait for its Job's own removal: the Job carries the Secret's uid in an annotation while the Secret
//! is there, and [`clear`] deletes the Secret and then the annotation once the Job has ended. Before that a pod that
//! takes a lost one's place could not start without it.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};

use super::anchor::{self, Anchor};
use super::api::{CONFIG_MAPS, JOBS, PODS, Patch, Resource, SECRETS, Session};
use super::batch::{self, Batch};
use super::failure::Failure;
use super::image::is_test;
use super::job::{self, CONFIGURATION_FILE, JOB, Work};
use super::names::{CDM, COMPONENT, MANAGED_BY, annotation, annotation_path, label, own_uid, site_of, text};
use super::pods;
use super::service;
use super::settings::KubernetesSettings;
use super::verdict::{self, End};
use super::wp;
use crate::domain::{JobName, SecretKind, SecretName, Uid};
use crate::ports::{
    Cms, Credentials, Database, ErrorKind, Job, JobKind, JobSpec, JobState, SecretStore, StoredSecret,
};

/// The annotation with the uid of a Job's Secret, which is there while the Secret may be.
pub(super) const SECRET: &str = "cdm/secret";

/// The files of a job, by their names.
enum Files {
    Secret(Vec<(String, SecretString)>),
    Plain(BTreeMap<String, String>),
}

impl Files {
    const fn resource(&self) -> Resource {
        match self {
            Self::Secret(_) => SECRETS,
            Self::Plain(_) => CONFIG_MAPS,
        }
    }
}

pub(super) async fn run(
    session: &Session<'_>,
    settings: &KubernetesSettings,
    secrets: &dyn SecretStore,
    spec: &JobSpec,
) -> Result<(), Failure> {
    let (object, files) = prepare(session, settings, secrets, spec).await?;
    let name = spec.name.as_str();
    let held = match session.create(JOBS, &object).await {
        Ok(made) => made,
        Err(failure) if failure.kind == ErrorKind::Exists => {
            let held = session.get(JOBS, name).await?;
            adopted(held.ok_or_else(|| gone(spec, "the job comes and goes"))?, spec)?
        }
        Err(failure) => return Err(failure),
    };
    let (resource, files) = (files.resource(), written(name, own_uid(&held), &files)?);
    let made = match session.create(resource, &files).await {
        Err(failure) if failure.kind == ErrorKind::Exists => {
            // Of an attempt before, or of a job that is gone.
            session.delete(resource, name, None).await?;
            session.create(resource, &files).await?
        }
        made => made?,
    };
    let mut wake = vec![
        json!({ "op": "test", "path": "/metadata/uid", "value": own_uid(&held) }),
        json!({ "op": "replace", "path": "/spec/suspend", "value": false }),
    ];
    if resource == SECRETS {
        // The object has annotations: the line that proves its work is one.
        wake.push(json!({ "op": "add", "path": annotation_path(SECRET), "value": own_uid(&made) }));
    }
    match session.patch(JOBS, name, Patch::Json(&wake)).await {
        // Another attempt started the Job, and it has ended since: no pod will read the Secret that was just created.
        Ok(job) if verdict::end(&job).is_some() => {
            clear(session, &job).await?;
            Err(Failure::new(ErrorKind::Exists, "the job is there"))
        }
        Ok(_) => Ok(()),
        Err(failure) if failure.kind == ErrorKind::NotFound => Err(gone(spec, "the job was removed")),
        Err(failure) if is_test(&failure) => {
            Err(Failure::new(ErrorKind::Conflict, "another job has taken the name"))
        }
        Err(failure) => Err(failure),
    }
}

/// A Job that has ended, with a Secret that may still be there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Leftover {
    job: String,
    job_uid: String,
    secret_uid: String,
}

impl Leftover {
    /// What a Job leaves behind; `None` while it has not ended, and where nothing is left.
    pub(super) fn of(job: &Value) -> Option<Self> {
        verdict::end(job).filter(|_| is_ours(job))?;
        Some(Self {
            job: text(job, "/metadata/name")?.to_owned(),
            job_uid: own_uid(job).to_owned(),
            secret_uid: annotation(job, SECRET)?.to_owned(),
        })
    }

    /// Deletes the Secret, and then what says that it is there. A Job that is gone has taken its Secret with it.
    pub(super) async fn clear(&self, session: &Session<'_>) -> Result<(), Failure> {
        session.delete(SECRETS, &self.job, Some(&self.secret_uid)).await?;
        let cleared = [
            json!({ "op": "test", "path": "/metadata/uid", "value": self.job_uid }),
            json!({ "op": "test", "path": annotation_path(SECRET), "value": self.secret_uid }),
            json!({ "op": "remove", "path": annotation_path(SECRET) }),
        ];
        match session.patch(JOBS, &self.job, Patch::Json(&cleared)).await {
            Err(failure) if failure.kind != ErrorKind::NotFound && !is_test(&failure) => Err(failure),
            // Another process was first.
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

/// Deletes the Secret of a Job that has ended, where one may be left.
async fn clear(session: &Session<'_>, job: &Value) -> Result<(), Failure> {
    match Leftover::of(job) {
        Some(leftover) => leftover.clear(session).await,
        None => Ok(()),
    }
}

/// A job of a site vanishes when the site's anchor has; a batch has none.
fn gone(spec: &JobSpec, message: &str) -> Failure {
    let kind = if spec.kind.uid().is_some() { ErrorKind::Gone } else { ErrorKind::Unavailable };
    Failure::new(kind, message)
}

/// The job that has the name already, where it is ours and still asleep.
fn adopted(held: Value, spec: &JobSpec) -> Result<Value, Failure> {
    if !is_ours(&held) || site_of(&held) != spec.kind.uid() {
        return Err(Failure::new(ErrorKind::Foreign, "another owner has a job of that name"));
    }
    if pods::is_going(&held) || !verdict::is_suspended(&held) {
        return Err(Failure::new(ErrorKind::Exists, "the job is there"));
    }
    Ok(held)
}

fn is_ours(job: &Value) -> bool {
    label(job, MANAGED_BY) == Some(CDM) && label(job, COMPONENT) == Some(JOB)
}

/// The Job and its files.
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
            let mut files = database_files(&required(secrets, *uid).await?);
            let configuration = wp::install_configuration(cms.password.expose_secret());
            let configuration = configuration.ok_or_else(|| {
                invalid("the administrator's password has other characters than letters, digits, `_` and `-`")
            })?;
            files.push((CONFIGURATION_FILE.to_owned(), SecretString::from(configuration)));
            let site =
                wp::Site { address: &address, title: title.as_str(), user: &cms.username, email: &cms.email };
            let commands = wp::install(settings, &site);
            let object = make(session, settings, spec, (&commands, &Work::Site), Some(&anchor)).await?;
            Ok((object, Files::Secret(files)))
        }
        JobKind::ActivateTheme { uid, theme } => {
            let anchor = anchored(session, *uid).await?;
            let files = database_files(&required(secrets, *uid).await?);
            let commands = wp::activate_theme(settings, &anchor.address, theme.as_str());
            let object = make(session, settings, spec, (&commands, &Work::Site), Some(&anchor)).await?;
            Ok((object, Files::Secret(files)))
        }
        JobKind::FlushCaches { uids } => {
            if uids.len() > batch::MOST {
                return Err(invalid("a batch has at most 2000 sites"));
            }
            let anchors = anchor::of_many(session, uids).await?;
            let owner = match spec.kind.uid() {
                Some(uid) => Some(anchored(session, uid).await?),
                None => None,
            };
            let addresses: BTreeMap<Uid, String> =
                anchors.into_iter().map(|anchor| (anchor.uid, anchor.address)).collect();
            let (sites, left_out) = uids.iter().partition(|uid| addresses.contains_key(uid));
            let batch = Batch::new(sites, left_out, settings.batch_slots as usize);
            let files = Files::Plain(batch.files(&addresses));
            let (commands, work) = (wp::flush_caches(settings), Work::Batch(batch));
            let object = make(session, settings, spec, (&commands, &work), owner.as_ref()).await?;
            Ok((object, files))
        }
    }
}

async fn make(
    session: &Session<'_>,
    settings: &KubernetesSettings,
    spec: &JobSpec,
    what: (&wp::Commands, &Work),
    owner: Option<&Anchor>,
) -> Result<Value, Failure> {
    let deployment = service::deployment(session, settings, spec.service).await?;
    job::object(settings, &deployment, spec, what, owner.map(Anchor::owner))
}

async fn anchored(session: &Session<'_>, uid: Uid) -> Result<Anchor, Failure> {
    let none = || Failure::new(ErrorKind::NotFound, "the site has nothing in the cluster");
    anchor::find(session, uid).await?.ok_or_else(none)
}

/// The secret of that kind; `None` where there is none, or none any more.
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

async fn required(secrets: &dyn SecretStore, uid: Uid) -> Result<Database, Failure> {
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

/// The object with the files of a job, which goes when the job does.
fn written(name: &str, job: &str, files: &Files) -> Result<Value, Failure> {
    let owner = json!({ "apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": job });
    let mut object = json!({
        "apiVersion": "v1",
        "kind": files.resource().kind,
        "metadata": {
            "name": name,
            "labels": { MANAGED_BY: CDM, COMPONENT: JOB },
            "ownerReferences": [owner],
        },
    });
    match files {
        Files::Plain(files) => object["data"] = json!(files),
        Files::Secret(files) => {
            let mut data = Map::new();
            for (file, content) in files {
                let content = ByteString(content.expose_secret().as_bytes().to_vec());
                let content = serde_json::to_value(content)
                    .map_err(|_| Failure::new(ErrorKind::Invalid, "a credential cannot be written"))?;
                data.insert(file.clone(), content);
            }
            object["type"] = json!("Opaque");
            object["data"] = Value::Object(data);
        }
    }
    Ok(object)
}

pub(super) async fn read(session: &Session<'_>, name: &JobName) -> Result<Option<Job>, Failure> {
    let Some(job) = session.get(JOBS, name.as_str()).await? else { return Ok(None) };
    if !is_ours(&job) || pods::is_going(&job) || verdict::is_suspended(&job) {
        return Ok(None);
    }
    let (end, batch) = (verdict::end(&job), Batch::read(&job));
    let mut pods = Vec::new();
    if end.is_some() || !verdict::is_well(&job, session.clock().wall()) {
        pods = session.list(PODS, &format!("batch.kubernetes.io/job-name={name}")).await?;
        pods.sort_by(|a, b| age(a).cmp(&age(b)));
    }
    let Some(end) = end else {
        return Ok(Some(Job { state: verdict::unfinished(&pods), log: String::new() }));
    };
    clear(session, &job).await?;
    if let Some(batch) = batch {
        let state = batch.verdict(&job, &end, &pods);
        let log = batch_log(&state);
        return Ok(Some(Job { state, log }));
    }
    let logs = logs(session, pods.last()).await?;
    let state = verdict::of_site(&job, &end, &pods, &logs);
    let log: String = logs.iter().map(|(name, log)| format!("{name}: {}\n", log.trim_end())).collect();
    Ok(Some(Job { state, log: log + &ending(&end) }))
}

fn age(pod: &Value) -> (Option<&str>, Option<&str>) {
    (text(pod, "/metadata/creationTimestamp"), text(pod, "/metadata/name"))
}

fn ending(end: &End) -> String {
    match end {
        End::Complete => String::new(),
        End::Failed { reason, message } => format!("{reason}: {message}\n"),
    }
}

/// What the containers of a pod printed, one after the other.
async fn logs(session: &Session<'_>, pod: Option<&Value>) -> Result<Vec<verdict::Log>, Failure> {
    let mut all = Vec::new();
    let Some(pod) = pod else { return Ok(all) };
    let name = text(pod, "/metadata/name").unwrap_or_default();
    for status in pods::statuses(pod) {
        let container = text(status, "/name").unwrap_or_default();
        let Some(log) = session.log(name, container).await? else { continue };
        all.push((container.to_owned(), log));
    }
    Ok(all)
}

/// A batch's log is what it has to say about sites: the pods of those that are done have nothing to add.
fn batch_log(state: &JobState) -> String {
    match state {
        JobState::Succeeded { failed } => failed.iter().map(|(uid, why)| format!("{uid}: {why}\n")).collect(),
        JobState::Failed { message, .. } => format!("{message}\n"),
        JobState::Running => String::new(),
    }
}
