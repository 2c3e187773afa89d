//! A site's anchor, which owns all objects of the site in the cluster, and the tombstone that replaces it.
//!
//! Both are ConfigMaps with the same name, so only one of them can exist. Objects that a delayed call creates after the
//! release belong to a deleted anchor, and Kubernetes garbage-collects them; a call that reads again finds the
//! tombstone.

use std::time::Duration;

use serde_json::{Value, json};

use super::api::{CONFIG_MAPS, JOBS, SECRETS, Session};
use super::failure::Failure;
use super::manifest;
use super::names::{
    self, CDM, COMPONENT, MANAGED_BY, annotation, label, labels, of_site, own_uid, site_of, text,
};
use super::pods;
use super::settings::KubernetesSettings;
use crate::domain::{Hostnames, Uid};
use crate::ports::ErrorKind;

const ANCHOR: &str = "anchor";
const TOMBSTONE: &str = "tombstone";
/// The annotation with the URL of the site.
const ADDRESS: &str = "cdm/address";
/// The annotation with the time of the release, in milliseconds, by the clock of the releasing process.
const RELEASED: &str = "cdm/released";
/// How often to retry while another process creates an anchor concurrently.
const MAX_ATTEMPTS: usize = 8;
/// How long a tombstone is kept: much longer than any delayed call can still be in progress.
const TOMBSTONE_RETENTION: Duration = Duration::from_secs(24 * 3600);

/// A site's anchor.
#[derive(Clone, Debug)]
pub(super) struct Anchor {
    pub(super) uid: Uid,
    /// The URL of the site: the scheme and the canonical hostname.
    pub(super) address: String,
    own_uid: String,
}

impl Anchor {
    /// The owner reference of the anchor's objects.
    pub(super) fn owner(&self) -> Value {
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": of_site(self.uid), "uid": self.own_uid })
    }

    fn read(uid: Uid, object: &Value) -> Result<Self, Failure> {
        match label(object, COMPONENT).filter(|_| site_of(object) == Some(uid)) {
            Some(ANCHOR) if pods::is_deleting(object) => {
                Err(Failure::new(ErrorKind::Unavailable, "the site's anchor is being deleted"))
            }
            Some(ANCHOR) => {
                let address = annotation(object, ADDRESS).unwrap_or_default().to_owned();
                Ok(Self { uid, address, own_uid: own_uid(object).to_owned() })
            }
            Some(TOMBSTONE) => Err(Failure::new(ErrorKind::Gone, "the uid was released")),
            Some(_) | None => Err(Failure::new(
                ErrorKind::Foreign,
                "a ConfigMap of another owner has the name of the site's anchor",
            )),
        }
    }
}

/// The URL of a site.
pub(super) fn address(settings: &KubernetesSettings, hostnames: &Hostnames) -> String {
    format!("{}://{}", settings.scheme.as_str(), hostnames.canonical())
}

/// Returns the site's anchor; `None` if the site has none.
pub(super) async fn find(session: &Session<'_>, uid: Uid) -> Result<Option<Anchor>, Failure> {
    let object = session.get(CONFIG_MAPS, &of_site(uid)).await?;
    object.map(|object| Anchor::read(uid, &object)).transpose()
}

/// Returns the anchors of the sites that have one.
pub(super) async fn of_many(session: &Session<'_>, uids: &[Uid]) -> Result<Vec<Anchor>, Failure> {
    /// The maximum number of uids in one query.
    const MAX_UIDS: usize = 64;
    let mut anchors = Vec::new();
    for chunk in uids.chunks(MAX_UIDS) {
        let texts: Vec<String> = chunk.iter().map(ToString::to_string).collect();
        let anchors_of =
            format!("{MANAGED_BY}={CDM},{COMPONENT}={ANCHOR},{} in ({})", names::UID, texts.join(","));
        let found = session.list(CONFIG_MAPS, &anchors_of).await?;
        anchors.extend(found.iter().filter_map(|object| Anchor::read(site_of(object)?, object).ok()));
    }
    Ok(anchors)
}

/// Returns the site's anchor, creating it if it is missing.
pub(super) async fn ensure(session: &Session<'_>, uid: Uid, address: &str) -> Result<Anchor, Failure> {
    if let Some(anchor) = find(session, uid).await? {
        return Ok(anchor);
    }
    match session.create(CONFIG_MAPS, &config_map(ANCHOR, uid, &json!({ ADDRESS: address }))).await {
        Ok(object) => Anchor::read(uid, &object),
        Err(failure) if failure.kind == ErrorKind::Exists => find(session, uid).await?.ok_or_else(|| {
            Failure::new(ErrorKind::Unavailable, "the site's anchor was created and deleted at the same time")
        }),
        // An anchor alone has no visible effect, and the next call finds it.
        Err(failure) => Err(Failure { maybe_applied: false, ..failure }),
    }
}

/// Replaces the anchor by the tombstone, and deletes the site's objects.
pub(super) async fn release(
    session: &Session<'_>,
    settings: &KubernetesSettings,
    uid: Uid,
) -> Result<(), Failure> {
    put_tombstone(session, uid).await?;
    let resource = manifest::resource(&settings.route);
    for object in session.list(JOBS, &names::label_selector(super::job::JOB, uid)).await? {
        let name = text(&object, "/metadata/name").unwrap_or_default();
        session.delete(JOBS, name, Some(own_uid(&object))).await?;
        // A job that is still suspended has no annotation with the uid of its Secret yet.
        session.delete(SECRETS, name, annotation(&object, super::jobs::SECRET)).await?;
    }
    let name = of_site(uid);
    if let Some(object) = session.get(resource, &name).await?
        && site_of(&object) == Some(uid)
    {
        session.delete(resource, &name, Some(own_uid(&object))).await?;
        // The controller of a load balancer may have finalizers to process before the object is deleted.
        if session
            .get(resource, &name)
            .await?
            .is_some_and(|remaining| own_uid(&remaining) == own_uid(&object))
        {
            return Err(Failure::new(ErrorKind::Unavailable, "the site's route is being deleted")
                .into_maybe_applied());
        }
    }
    Ok(())
}

async fn put_tombstone(session: &Session<'_>, uid: Uid) -> Result<(), Failure> {
    let name = of_site(uid);
    let now = json!({ RELEASED: session.clock().wall().millis().to_string() });
    for _ in 0..MAX_ATTEMPTS {
        match session.create(CONFIG_MAPS, &config_map(TOMBSTONE, uid, &now)).await {
            Ok(_) => return Ok(()),
            Err(failure) if failure.kind == ErrorKind::Exists => {}
            Err(failure) => return Err(failure),
        }
        let Some(existing) = session.get(CONFIG_MAPS, &name).await? else { continue };
        match Anchor::read(uid, &existing) {
            Err(failure) if failure.kind == ErrorKind::Gone => return Ok(()),
            Ok(_) => session.delete(CONFIG_MAPS, &name, Some(own_uid(&existing))).await?,
            Err(failure) => return Err(failure),
        }
    }
    Err(Failure::new(ErrorKind::Unavailable, "the site's anchor was created and deleted at the same time")
        .into_maybe_applied())
}

/// Deletes tombstones that are older than their retention period.
pub(super) async fn sweep(session: &Session<'_>) -> Result<(), Failure> {
    let now = session.clock().wall();
    let tombstones = format!("{MANAGED_BY}={CDM},{COMPONENT}={TOMBSTONE}");
    for object in session.list(CONFIG_MAPS, &tombstones).await? {
        let released =
            annotation(&object, RELEASED).and_then(|millis| millis.parse().ok()).unwrap_or(u64::MAX);
        if now.since(crate::domain::Timestamp::from_millis(released)) >= TOMBSTONE_RETENTION {
            let name = text(&object, "/metadata/name").unwrap_or_default();
            session.delete(CONFIG_MAPS, name, Some(own_uid(&object))).await?;
        }
    }
    Ok(())
}

fn config_map(component: &str, uid: Uid, annotations: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": of_site(uid),
            "labels": labels(component, uid, None),
            "annotations": annotations,
        },
    })
}
