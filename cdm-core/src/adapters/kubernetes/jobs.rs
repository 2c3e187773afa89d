//! Jobs: made asleep, given their Secret, and woken; looked at with their pods.
//!
//! The Secret belongs to the Job and goes with it, so the Job comes first. One that is still asleep counts as not
//! started, and the next call goes on with it.

use std::collections::BTreeMap;

use futures_util::{StreamExt, stream};
use k8s_openapi::ByteString;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};

use super::anchor::{self, Anchor};
use super::api::{JOBS, PODS, Patch, SECRETS, Session};
use super::failure::Failure;
use super::image::is_test;
use super::job::{self, JOB, Work, configuration_file, file};
use super::names::{CDM, COMPONENT, MANAGED_BY, label, own_uid, site_of, text};
use super::pods;
use super::service;
use super::settings::KubernetesSettings;
use super::verdict::{self, End};
use super::wp;
use crate::domain::{JobName, SecretKind, SecretName, Uid};
use crate::ports::{
    Cms, Credentials, Database, ErrorKind, Job, JobKind, JobSpec, JobState, SecretStore, StoredSecret,
};

/// How many secrets are read at once.
const READS: usize = 16;

/// The contents of a job's Secret, by the names of its files.
type Files = Vec<(String, SecretString)>;

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
    let secret = secret(name, own_uid(&held), &files)?;
    if let Err(failure) = session.create(SECRETS, &secret).await {
        if failure.kind != ErrorKind::Exists {
            return Err(failure);
        }
        // Of an attempt before, or of a job that is gone.
        session.delete(SECRETS, name, None).await?;
        session.create(SECRETS, &secret).await?;
    }
    let wake = [
        json!({ "op": "test", "path": "/metadata/uid", "value": own_uid(&held) }),
        json!({ "op": "replace", "path": "/spec/suspend", "value": false }),
    ];
    match session.patch(JOBS, name, Patch::Json(&wake)).await {
        Ok(_) => Ok(()),
        Err(failure) if failure.kind == ErrorKind::NotFound => Err(gone(spec, "the job was removed")),
        Err(failure) if is_test(&failure) => {
            Err(Failure::new(ErrorKind::Conflict, "another job has taken the name"))
        }
        Err(failure) => Err(failure),
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

/// The Job and what its Secret will hold.
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
            let mut files = database_files(None, &required(secrets, *uid).await?);
            let configuration = wp::install_configuration(cms.password.expose_secret());
            let configuration = configuration.ok_or_else(|| {
                invalid("the administrator's password has other characters than letters, digits, `_` and `-`")
            })?;
            files.push((configuration_file(None), SecretString::from(configuration)));
            let site =
                wp::Site { address: &address, title: title.as_str(), user: &cms.username, email: &cms.email };
            let commands = wp::install(settings, &site);
            let object = make(session, settings, spec, (&commands, &Work::Site), Some(&anchor)).await?;
            Ok((object, files))
        }
        JobKind::ActivateTheme { uid, theme } => {
            let anchor = anchored(session, *uid).await?;
            let files = database_files(None, &required(secrets, *uid).await?);
            let commands = wp::activate_theme(settings, &anchor.address, theme.as_str());
            let object = make(session, settings, spec, (&commands, &Work::Site), Some(&anchor)).await?;
            Ok((object, files))
        }
        JobKind::FlushCaches { uids } => {
            let anchors = anchor::of_many(session, uids).await?;
            let owner = match spec.kind.uid() {
                Some(uid) => Some(anchored(session, uid).await?),
                None => None,
            };
            let with_anchor: Vec<Uid> = anchors.iter().map(|anchor| anchor.uid).collect();
            let reads = with_anchor
                .into_iter()
                .map(|uid| async move { Ok::<_, Failure>((uid, database(secrets, uid).await?)) });
            let mut databases = stream::iter(reads).buffer_unordered(READS);
            let mut found = BTreeMap::new();
            while let Some(read) = databases.next().await {
                let (uid, database) = read?;
                found.extend(database.map(|database| (uid, database)));
            }
            let (mut sites, mut left_out, mut files) = (Vec::new(), Vec::new(), Files::new());
            for uid in uids {
                let anchor = anchors.iter().find(|anchor| anchor.uid == *uid);
                let (Some(anchor), Some(database)) = (anchor, found.get(uid)) else {
                    left_out.push(*uid);
                    continue;
                };
                let index = Some(sites.len());
                files.extend(database_files(index, database));
                let configuration = SecretString::from(wp::site_configuration(&anchor.address));
                files.push((configuration_file(index), configuration));
                sites.push(*uid);
            }
            let (commands, work) = (wp::flush_caches(settings), Work::Batch { sites, left_out });
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
        Some(Credentials::Cms(_)) | None => None,
    })
}

async fn required(secrets: &dyn SecretStore, uid: Uid) -> Result<Database, Failure> {
    let none = || Failure::new(ErrorKind::NotFound, "the site has no database credentials");
    database(secrets, uid).await?.ok_or_else(none)
}

async fn cms(secrets: &dyn SecretStore, uid: Uid) -> Result<Cms, Failure> {
    match stored(secrets, uid, SecretKind::Cms).await? {
        Some(Credentials::Cms(cms)) => Ok(cms),
        Some(Credentials::Database(_)) | None => {
            Err(Failure::new(ErrorKind::NotFound, "the site has no administrator's credentials"))
        }
    }
}

fn database_files(index: Option<usize>, database: &Database) -> Files {
    let text = |text: String| SecretString::from(text);
    vec![
        (file(index, "host"), text(format!("{}:{}", database.host, database.port))),
        (file(index, "name"), text(database.dbname.clone())),
        (file(index, "user"), text(database.username.clone())),
        (file(index, "password"), database.password.clone()),
    ]
}

/// The Secret of a job, which goes when the job does.
fn secret(name: &str, job: &str, files: &Files) -> Result<Value, Failure> {
    let mut data = Map::new();
    for (file, content) in files {
        let content = ByteString(content.expose_secret().as_bytes().to_vec());
        let content = serde_json::to_value(content)
            .map_err(|_| Failure::new(ErrorKind::Invalid, "a credential cannot be written"))?;
        data.insert(file.clone(), content);
    }
    let owner = json!({ "apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": job });
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "labels": { MANAGED_BY: CDM, COMPONENT: JOB },
            "ownerReferences": [owner],
        },
        "type": "Opaque",
        "data": data,
    }))
}

pub(super) async fn read(session: &Session<'_>, name: &JobName) -> Result<Option<Job>, Failure> {
    let Some(job) = session.get(JOBS, name.as_str()).await? else { return Ok(None) };
    if !is_ours(&job) || pods::is_going(&job) || verdict::is_suspended(&job) {
        return Ok(None);
    }
    let mut pods = session.list(PODS, &format!("batch.kubernetes.io/job-name={name}")).await?;
    pods.sort_by(|a, b| age(a).cmp(&age(b)));
    let Some(end) = verdict::end(&job) else {
        return Ok(Some(Job { state: verdict::unfinished(&pods), log: String::new() }));
    };
    if verdict::is_batch(&job) {
        let state = verdict::of_batch(&job, &end, &pods);
        let log = batch_log(&state);
        return Ok(Some(Job { state, log }));
    }
    let (log, proved) = logs(session, pods.last()).await?;
    let state = verdict::of_site(&job, &end, &pods, &log, proved.as_deref());
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

/// What the containers of a pod printed, one after the other, and what the last of them did.
async fn logs(session: &Session<'_>, pod: Option<&Value>) -> Result<(String, Option<String>), Failure> {
    let (mut all, mut proved) = (String::new(), None);
    let Some(pod) = pod else { return Ok((all, proved)) };
    let name = text(pod, "/metadata/name").unwrap_or_default();
    for status in pods::statuses(pod) {
        let container = text(status, "/name").unwrap_or_default();
        let Some(log) = session.log(name, container).await? else { continue };
        all.push_str(&format!("{container}: {}\n", log.trim_end()));
        if container == wp::PROVE {
            proved = Some(log);
        }
    }
    Ok((all, proved))
}

/// A batch's log is what it has to say about sites: the pods of those that are done have nothing to add.
fn batch_log(state: &JobState) -> String {
    match state {
        JobState::Succeeded { failed } => failed.iter().map(|(uid, why)| format!("{uid}: {why}\n")).collect(),
        JobState::Failed { message, .. } => format!("{message}\n"),
        JobState::Running => String::new(),
    }
}
